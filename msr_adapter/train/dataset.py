"""Candidates of training and validation examples -> rows that LLaMA-Factory reads."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from msr_adapter.config.models import Train
from msr_adapter.errors import Problem, UserError
from msr_adapter.llamafactory.dataset import TRAIN, VALIDATION, TrainingRow, write_info, write_rows
from msr_adapter.progress import Advance, Reporter
from msr_adapter.prompts import Prompts
from msr_adapter.rows import NO, YES, CandidateRows

_SPLITS = ((TRAIN, "train"), (VALIDATION, "validation"))


def build_dataset(
    train: Train, data_dir: Path, users_dir: Path, prompts: Prompts, seed: int, out: Path, reporter: Reporter
) -> dict[str, Any]:
    """Write `msr_train/`, `msr_validation/` (when it has rows) and `dataset_info.json` into ``out``; return counts.

    Rows are shuffled by ``seed``. Image paths are relative to ``data_dir``. Raises `UserError` without training rows.
    """
    counts: dict[str, Any] = {}
    written = []
    for place, (name, split) in enumerate(_SPLITS):
        rows = CandidateRows(data_dir, users_dir, prompts, split, images=train.images)
        counts |= {f"{split}_rows": len(rows), f"{split}_positives": int(rows.labels.sum())}
        if len(rows):
            order = np.random.default_rng([seed, place]).permutation(len(rows))
            with reporter.track(f"{split} rows", len(rows)) as advance:
                tally = _Tally()
                write_rows(out / name, tally.count(_training_rows(rows, order, data_dir, advance)))
            counts[f"{split}_with_image"] = tally.with_image
            written.append(name)
    if TRAIN not in written:
        step = "Lower data.k_core or split.min_history, or give more interactions"
        raise UserError(Problem("", "split", "no training examples are left", "at least one", step))
    write_info(out, written)
    return counts


class _Tally:
    """Counts rows as they stream past."""

    def __init__(self) -> None:
        self.with_image = 0

    def count(self, rows: Iterator[TrainingRow]) -> Iterator[TrainingRow]:
        for row in rows:
            self.with_image += bool(row.images)
            yield row


def _training_rows(rows: CandidateRows, order: np.ndarray, data_dir: Path, advance: Advance) -> Iterator[TrainingRow]:
    for index in order.tolist():
        row = rows[index]
        images = (row.image.path.relative_to(data_dir).as_posix(),) if row.image else ()
        yield TrainingRow(row.prompt, YES if row.label else NO, images)
        advance(1)
