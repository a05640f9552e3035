"""Retrieve and rerank: what a baseline finds for each test user in the whole catalogue, and where a model puts it.

A target that was not retrieved is a miss, whatever k is.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np
import pyarrow as pa

from msr_adapter.arrays import Floats, Integers, Rows
from msr_adapter.config.schema import EvaluateConfig, FullConfig
from msr_adapter.errors import StageError
from msr_adapter.evaluate.baselines.catalogue import BASELINES, row_of
from msr_adapter.evaluate.baselines.fitting import RETRIEVED
from msr_adapter.evaluate.baselines.training_log import BaselineInputs
from msr_adapter.evaluate.candidates import read_held_out
from msr_adapter.evaluate.catalogue_ranking import (
    CatalogueChoices,
    as_candidates,
    read_choices,
    retrieved_candidates,
)
from msr_adapter.evaluate.table_retrieval import (
    RECALLS,
    RetrievalSettings,
    TableRetrieval,
    compared,
    hits_of,
    is_of_the_table,
    write_recalls,
)
from msr_adapter.metrics import MISSED, TargetRanks
from msr_adapter.retrieval import RETRIEVERS
from msr_adapter.schema import CANDIDATES, read_table, write_table
from msr_adapter.stage_arguments import Job


class RetrievalSummary(TypedDict):
    """What the stage says of itself in its manifest."""

    retriever: str
    users: int
    candidates: int
    targets_found: int
    recalls: dict[str, float]
    """Retriever of `msr recommend` -> share of the users' targets that it finds, a mean over users."""


@dataclass(frozen=True)
class RetrieveDirs:
    """The folders of earlier stages that are read."""

    data: Path
    fitted: Path
    """What is fitted has retrieved already, where it was fitted."""


def settings_of(config: EvaluateConfig) -> FullConfig:
    """Return what is asked for, in a stage that runs only where it is."""
    assert config.full is not None, "nothing is retrieved"
    return config.full


def label_of(name: str) -> str:
    """Return what a sentence calls a retriever: a baseline, or one of the table's."""
    labels = {row.name: row.label for row in RETRIEVERS} | {row.name: row.label for row in BASELINES}
    return labels[name]


def retrieve(config: EvaluateConfig, dirs: RetrieveDirs, settings: RetrievalSettings, job: Job) -> RetrievalSummary:
    """Write `candidates.parquet`: CANDIDATES of the test users, the best retrieved item first; and `recalls.parquet`.

    The latter has the hits of the retrievers of `msr recommend` that are compared.
    """
    full, held_out = settings_of(config), read_held_out(dirs.data)
    inputs = BaselineInputs(held_out, dirs.data, config, job.seed)
    choices = read_choices(held_out, dirs.data, config.protocol.negatives.exclude)
    table = TableRetrieval(inputs, choices, settings)
    names = compared(full, settings.fusion)
    lists = {}
    with job.reporter.track("retrieving", len(names)) as advance:
        for name in names:
            lists[name] = table.lists(name, full.top)
            advance(1)
    hits_by_name = {name: hits_of(choices, one) for name, one in lists.items()}
    write_recalls(held_out, choices, hits_by_name, job.out / RECALLS)
    if is_of_the_table(full):
        found = as_candidates(held_out, choices, lists[full.retriever], inputs.items)
    elif (row := row_of(full.retriever)).fitting:
        found = read_table(dirs.fitted / RETRIEVED, CANDIDATES)
    else:
        blocks = row.whole(inputs) if row.whole else None
        assert blocks is not None, f"{row.name} cannot retrieve"
        found = retrieved_candidates(held_out, choices, blocks, inputs.items, full.top)
    write_table(found, CANDIDATES, job.out / "candidates.parquet")
    each = np.diff(choices.target_offsets)
    recalls = {name: float((hit / each).mean()) for name, hit in hits_by_name.items()}
    users, hits = len(held_out.example_ids), int(found["label"].to_numpy().sum())
    targets = int(held_out.labels.sum())
    job.reporter.note(
        f"  {label_of(full.retriever)} retrieves {found.num_rows:,} items for {users:,} users; {hits:,} of {targets:,} "
        f"targets are among them ({hits / targets:.1%}), the others are misses for whatever ranks them"
    )
    told = ", ".join(f"{name} {recall:.1%}" for name, recall in recalls.items())
    job.reporter.note(f"  recall among {full.top:,} items as `msr recommend` retrieves them: {told}")
    return {"retriever": full.retriever, "users": users, "candidates": found.num_rows, "targets_found": hits,
            "recalls": recalls}  # fmt: skip


def starts_of(found: pa.Table) -> Rows:
    """Return the first row of each user in ``found`` (CANDIDATES)."""
    ids = found["example_id"].to_numpy()
    return np.flatnonzero(np.concatenate([[True], ids[1:] != ids[:-1]]))


def reranked(choices: CatalogueChoices, example_ids: Integers, found: pa.Table, scores: Floats) -> TargetRanks:
    """Return where the targets stand among the retrieved items ``found`` (CANDIDATES), ranked by ``scores`` (rows,).

    O(rows log rows). Raises StageError where they are of other users than ``example_ids``.
    """
    starts = starts_of(found)
    if not np.array_equal(found["example_id"].to_numpy()[starts], example_ids):
        raise StageError(
            "what was retrieved does not fit the test users", next_step="run again with `--force retrieve`"
        )
    sizes = np.diff(np.append(starts, found.num_rows))
    owner = np.repeat(np.arange(choices.users), sizes)
    levels, level = np.unique(scores, return_inverse=True)
    ordered = np.sort(owner * len(levels) + level)
    hits = np.flatnonzero(found["label"].to_numpy())
    users, own = owner[hits], owner[hits] * len(levels) + level[hits]
    low, high = np.searchsorted(ordered, own, "left"), np.searchsorted(ordered, own, "right")
    # A user's targets that were found come first: which of them is which plays no part in any metric.
    place = choices.target_offsets[users] + np.arange(len(hits)) - np.searchsorted(users, users)
    above, tied = np.full(len(choices.targets), MISSED, np.int64), np.ones(len(choices.targets), np.int64)
    above[place], tied[place] = (starts + sizes)[users] - high, high - low
    missed = np.bincount(choices.owners, minlength=choices.users) - np.bincount(users, minlength=choices.users)
    return TargetRanks(choices.owners, above, tied, sizes + missed)
