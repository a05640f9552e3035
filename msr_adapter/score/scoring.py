"""Every test candidate -> p(yes) / (p(yes) + p(no)) of the first answer token."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from msr_adapter import schema
from msr_adapter.config.models import Train
from msr_adapter.errors import Problem, StageError, UserError
from msr_adapter.generation import Backend, Completion, CompletionCache, Request
from msr_adapter.progress import Reporter
from msr_adapter.prompts import Prompts
from msr_adapter.rows import ANSWERS, CandidateRows

_CHUNK = 8_192
"""Requests in memory at a time: a multiple of the cache's shard, so that chunks do not change the shards."""
_LEAST_MASS = 0.1


def score(
    train: Train,
    data_dir: Path,
    users_dir: Path,
    prompts: Prompts,
    backend: Backend,
    cache: CompletionCache,
    out: Path,
    reporter: Reporter,
) -> dict[str, Any]:
    """Write `scores.parquet` (SCORES) for all test candidates, in the order of CANDIDATES; return counts.

    Answers come through ``cache``, shard by shard, so that a killed run resumes. Raises `StageError` if any candidate
    has no answer, `UserError` if there is nothing to score.
    """
    rows = CandidateRows(data_dir, users_dir, prompts, "test", images=train.images)
    if not len(rows):
        step = "Give more users or a larger test share"
        raise UserError(Problem("", "split", "there are no test candidates", "at least one example", step))
    answers: list[Completion] = []
    items: list[str] = []
    before = cache.stats
    with reporter.track("scoring", len(rows)) as advance:
        for ids, requests in _chunks(rows, backend.identity):
            items += ids
            answers += cache.complete(backend, requests, advance=advance)
    table, counts = _table(rows, items, answers)
    schema.write_table(table, schema.SCORES, out / "scores.parquet")
    counts |= {"computed": cache.stats.computed - before.computed, "cached": cache.stats.hits - before.hits}
    counts |= _lengths(answers, train.cutoff_len)
    _warn(counts, train.cutoff_len, reporter)
    return counts


def _chunks(rows: CandidateRows, identity: str) -> Iterator[tuple[list[str], list[Request]]]:
    for start in range(0, len(rows), _CHUNK):
        part = rows.take(np.arange(start, min(start + _CHUNK, len(rows))))
        yield (
            [row.item_id for row in part],
            [Request(identity, row.prompt, (row.image,) if row.image else (), ANSWERS) for row in part],
        )


def _table(rows: CandidateRows, items: list[str], answers: list[Completion]) -> tuple[pa.Table, dict[str, Any]]:
    missing = sum(len(answer.choice_logprobs) != len(ANSWERS) for answer in answers) + len(rows) - len(answers)
    if missing:
        raise StageError(f"{missing} of {len(rows)} candidates were not answered", "the backend is at fault")
    logprobs = np.array([answer.choice_logprobs for answer in answers])
    if sick := int((~np.isfinite(logprobs)).any(axis=1).sum()):
        raise StageError(
            f"{sick} of {len(rows)} candidates have no finite score", "training diverged, or float16 overflows",
            "look at the training loss; lower train.learning_rate or set train.model.dtype",
        )  # fmt: skip
    logit = logprobs[:, 0] - logprobs[:, 1]
    mass = np.exp(logprobs).sum(axis=1)
    # sigmoid(x) = (1 + tanh(x/2)) / 2 cannot overflow
    columns = [rows.examples, items, (1 + np.tanh(logit / 2)) / 2, logit, mass]
    counts = {
        "candidates": len(rows), "examples": len(np.unique(rows.examples)), "answer_mass": float(mass.mean()),
    }  # fmt: skip
    return pa.table(dict(zip(schema.SCORES.names, columns, strict=True)), schema=schema.SCORES), counts


def _lengths(answers: list[Completion], cutoff_len: int) -> dict[str, int]:
    lengths = np.array([answer.tokens_in for answer in answers])
    over = int((lengths >= cutoff_len).sum())
    return {"tokens_in": int(lengths.sum()), "longest_prompt": int(lengths.max()), "prompts_over_cutoff": over}


def _warn(counts: dict[str, Any], cutoff_len: int, reporter: Reporter) -> None:
    if counts["prompts_over_cutoff"]:
        reporter.note(
            f"  {counts['prompts_over_cutoff']} of {counts['candidates']} prompts have {cutoff_len} tokens or more, "
            "longer than any training row; they were scored whole"
        )
    if counts["answer_mass"] < _LEAST_MASS:
        reporter.note(
            f"  Yes and No together get {counts['answer_mass']:.1%} of the probability on average: "
            "this model was not trained to answer with them"
        )
