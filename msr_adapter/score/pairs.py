"""Any users and items, in memory: what a command or a server scores beside the candidates of a run."""

from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa

from msr_adapter.arrays import Codes
from msr_adapter.candidate_rows import CandidateRows
from msr_adapter.config.schema import TrainConfig
from msr_adapter.progress import Reporter
from msr_adapter.prompt_catalogue import PromptCatalogue, PromptUsers
from msr_adapter.score.scoring import scorer_of
from msr_adapter.stage_arguments import Client


@dataclass(frozen=True)
class PairsInMemory:
    """Users and items to be scored, in any order; a pair may stand twice."""

    users: Codes
    """(pairs,) places in ``summaries``."""
    items: Codes
    """(pairs,) places in ``catalogue``."""
    summaries: pl.Series
    """(users,) what prompts say of each user; none is null."""
    catalogue: PromptCatalogue
    known: PromptUsers | None = None
    """(users,) whose summaries they are, for templates that say more of users; None = nobody's."""


def score_pairs(train: TrainConfig, pairs: PairsInMemory, client: Client, reporter: Reporter) -> pa.Table:
    """Return a row for each pair in its order; ``example_id`` is the user's place.

    They are SCORES, or RATIOS where a text answers the question. Prompts, encoding and answers are those of the score
    stage; a pair that stands twice is asked about once, and pairs of a user are asked about side by side. Raises
    `StageError` if a pair has no answer. Memory: that of the prompts of one chunk, and a row each.
    """
    places, back = np.unique(np.stack([pairs.users, pairs.items]), axis=1, return_inverse=True)
    rows = CandidateRows.of_pairs(places[0], places[1], pairs.summaries, pairs.catalogue, client.prompts, pairs.known)
    found = scorer_of(train, client, lambda _: None, reporter).block(rows)
    return found.take(pa.array(back.ravel()))
