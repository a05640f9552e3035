"""Stages that ask a model in shards of four, small enough to run on workers and alone; not collected by pytest."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow as pa

from msr_adapter.config.schema import ModelConfig, TrainConfig, UserSummariesConfig
from msr_adapter.generation import Backend, CompletionCache
from msr_adapter.prompts import Prompts
from msr_adapter.schema import SCORES, USER_SUMMARIES, read_table
from msr_adapter.score import score
from msr_adapter.stage_arguments import Client, Job
from msr_adapter.summarize import summarize_users
from tests.support.summaries import Lines, write_shop, write_summaries
from tests.support.tiny_run import QUIET, flat_stages, write_upstream

HISTORIES = ["".join(pair) + tail for pair in product("abc", "de") for tail in ("", "f", "fgh", "g")]
"""Families of four begin with the same block of two."""


def users(folder: Path, backend: Backend, histories: Sequence[str] = HISTORIES) -> tuple[pa.Table, dict[str, Any]]:
    """Run the user summaries of ``histories``."""
    write_shop(folder, {letter: f"Title {letter}" for letter in "abcdefgh"}, histories, tested=6)
    write_summaries(folder / "items", dict.fromkeys("abcdefgh", "a book"))
    config = UserSummariesConfig(model=ModelConfig(path="tiny"), block=2, max_new_tokens=12)
    with CompletionCache(folder / "c.sqlite", shard_chains=4) as cache:
        client, job = Client(Prompts(), backend, cache), Job(folder / "users", Lines())
        counts = summarize_users(config, flat_stages(folder), client, job)
    return read_table(folder / "users" / "users.parquet", USER_SUMMARIES), counts


def scores(folder: Path, backend: Backend) -> tuple[pa.Table, dict[str, Any]]:
    """Score the sixteen candidates of a tiny run, which is made once."""
    made = write_upstream(folder / "upstream")
    (folder / "score").mkdir()
    with CompletionCache(folder / "s.sqlite", shard_requests=4) as cache:
        client, job = Client(Prompts(), backend, cache), Job(folder / "score", QUIET)
        counts = score(TrainConfig(model=ModelConfig(path="tiny")), made, client, job)
    return read_table(folder / "score" / "scores.parquet", SCORES), counts
