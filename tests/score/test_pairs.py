"""Pairs in memory: the scores of the score stage, in any order, each asked about once."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from msr_adapter import schema
from msr_adapter.backends.scripted import ScriptedBackend
from msr_adapter.candidate_rows import PromptCatalogue
from msr_adapter.errors import StageError
from msr_adapter.generation import CompletionCache
from msr_adapter.prompts import Prompts
from msr_adapter.score import PairsInMemory, score, score_pairs
from msr_adapter.stage_arguments import Client, Job
from tests.support.tiny_run import QUIET, stages, train_config


def test_pairs_in_any_order_have_the_scores_of_the_stage(tmp_path: Path) -> None:
    made, backend = stages(), ScriptedBackend()
    with CompletionCache(tmp_path / "one.sqlite") as cache:
        score(train_config(), made, Client(Prompts(), backend, cache), Job(tmp_path, QUIET))
    known = pl.DataFrame(schema.read_table(tmp_path / "scores.parquet", schema.SCORES))
    summaries = pl.DataFrame(schema.read_table(made.user_summaries / "users.parquet", schema.USER_SUMMARIES))
    catalogue = PromptCatalogue(made.data, images=True)
    shuffled = pl.concat([known, known.head(3)]).sample(fraction=1, shuffle=True, seed=1)
    users = pl.Series(summaries["example_id"]).search_sorted(shuffled["example_id"]).to_numpy()
    items = pl.Series(catalogue.ids.to_pylist()).search_sorted(shuffled["item_id"]).to_numpy()
    asked = ScriptedBackend()
    with CompletionCache(tmp_path / "two.sqlite") as cache:
        pairs = PairsInMemory(users, items, summaries["summary"], catalogue)
        found = score_pairs(train_config(), pairs, Client(Prompts(), asked, cache), QUIET)
    assert found["item_id"].to_pylist() == shuffled["item_id"].to_list()
    assert found["example_id"].to_pylist() == users.tolist()
    assert found["logit"].to_pylist() == shuffled["logit"].to_list()
    assert len(asked.answered) == len(known) == len(set(asked.answered))


def test_a_user_without_a_summary_is_refused(tmp_path: Path) -> None:
    made, place = stages(), np.zeros(1, np.int64)
    pairs = PairsInMemory(place, place, pl.Series([None], dtype=pl.String), PromptCatalogue(made.data, images=True))
    with (
        CompletionCache(tmp_path / "one.sqlite") as cache,
        pytest.raises(StageError, match="1 example has no user summary"),
    ):
        score_pairs(train_config(), pairs, Client(Prompts(), ScriptedBackend(), cache), QUIET)
