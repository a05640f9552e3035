"""Candidates of training and validation examples as rows that LLaMA-Factory reads, and how often they answer Yes."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from msr_adapter.arrays import Codes, Mask
from msr_adapter.candidate_rows import ANSWERS, CandidateFolders, CandidateRows
from msr_adapter.config.schema import TrainConfig
from msr_adapter.errors import Problem, UserError, plural
from msr_adapter.llamafactory.dataset import (
    TRAIN,
    VALIDATION,
    Shape,
    TrainingRows,
    WrittenRow,
    json_text,
    write_info,
    write_rows,
)
from msr_adapter.llamafactory.objectives import objective_of
from msr_adapter.llamafactory.row_lengths import MeasureRequest
from msr_adapter.llamafactory.token_counts import AnswerCutter
from msr_adapter.progress import Advance, Reporter
from msr_adapter.prompts import Prompts
from msr_adapter.stage_arguments import Job, StageDirs
from msr_adapter.train.text_rows import pairs, right_rows, some_bare, some_pairs, with_bare

LabelWords = tuple[str, str]
"""The two answers that are trained: yes, no."""

_IMAGE_WITHIN = {"parquet": 1_000, "jsonl": 1}
"""Rows by which an image must have come, if any has one: readers of JSONL infer types from the first rows, and
LLaMA-Factory's converter infers its own, of whatever it reads, from the first 1,000."""
_SPLITS = ((TRAIN, "train"), (VALIDATION, "validation"))
_LONGEST_LIST = 1_000
"""Rows of one validation list that are written."""
_DRAW = 0x115E
"""Sets the draw among longer lists apart from the other draws."""
_BARE = 0xBA2E
"""Sets the draw of rows without evidence apart from the order."""
_CHUNK = 10_000
"""Rows whose prompts are in memory at a time; a divisor of the rows of a file."""
_FAR = 1.5
"""Factor between the share of positives and the configured one that is worth a warning."""


def build_dataset(train: TrainConfig, dirs: StageDirs, prompts: Prompts, job: Job) -> dict[str, Any]:
    """Write `msr_train/`, `msr_validation/` (when it has rows) and `dataset_info.json` and return counts.

    A candidate is one row, of the shape that ``train.objective`` wants; for judged answers two, the right one and the
    wrong one. Of a question that a text answers, the positives alone are rows; beside them, some once more without the
    evidence (`train.text_answer.without_evidence`). Its pairs are the text of a positive and that of a negative. Rows
    are shuffled by the job's seed. Image paths are relative to the data stage's folder. Raises `UserError` without
    training rows.
    """
    shape = objective_of(train).shape
    counts: dict[str, Any] = {}
    written = []
    quote = json_text if train.rows == "jsonl" else None
    folders = CandidateFolders(dirs.data, dirs.user_summaries, items=dirs.items)
    for place, (name, split) in enumerate(_SPLITS):
        rows = CandidateRows.read(folders, prompts, split, images=train.images, quote=quote)
        sides = 2 if shape == "judged" else 1
        kept, right, equal = _written(rows, split, job.seed), None, 0
        left = 0 if train.asks_text else int((~kept).sum())
        if train.asks_text and shape == "pairs":
            right = right_rows(rows)
            wrong, equal = pairs(rows, right)
            kept &= wrong
        elif train.asks_text:
            kept = rows.labels > 0
        counts |= {f"{split}_rows": sides * int(kept.sum()), f"{split}_positives": sides * int(rows.labels[kept].sum())}
        counts |= {f"{split}_pairs_of_equal_texts": equal} if equal else {}
        counts |= {f"{split}_rows_left_out": sides * left} if left else {}
        if kept.any():
            shown = rows.shows_image(np.arange(len(rows)))
            order = _order(rows, split, sides, np.random.default_rng([job.seed, place]))
            order = order[kept[order // sides]]
            bare = None
            if train.asks_text and split == "train" and (share := train.text_answer.without_evidence):
                bare = (quote or str)(prompts.without_evidence)
                order = with_bare(order, len(rows), share, np.random.default_rng([job.seed, place, _BARE]))
                counts["train_rows_without_evidence"] = int((order >= len(rows)).sum())
                counts["train_rows"] = counts["train_positives"] = len(order)
                shown = np.append(shown, np.zeros(len(rows), bool))
            order = _image_early(order, shown.repeat(sides), _IMAGE_WITHIN[train.rows])
            with job.reporter.track(f"{split} rows", len(order)) as advance:
                chunks = _chunks(rows, order, _RowContent(shape, train.answers.trained, bare, right), advance)
                write_rows(job.out / name, chunks, train.rows)
            counts[f"{split}_with_image"] = sides * int(shown[: len(rows)][kept].sum())
            written.append(name)
    if TRAIN not in written:
        step = "Lower data.k_core or split.min_history, or give more interactions"
        raise UserError(Problem("", "split", "no training examples are left", "at least one", step))
    write_info(job.out, written, shape)
    return counts | (_answers(train, prompts, counts, job) if train.asks_text else {})


def _answers(train: TrainConfig, prompts: Prompts, counts: dict[str, Any], job: Job) -> dict[str, int]:
    """Say and return how many answers were cut, of all that the candidates of these splits have."""
    if not isinstance(prompts.cut, AnswerCutter):
        return {}
    known, truncated = len(prompts.cut.known), prompts.cut.truncated
    cut = f"{truncated:,} of {plural(known, 'different answer')} cut to {train.text_answer.max_tokens} tokens"
    bare = counts.get("train_rows_without_evidence", 0)
    among = f", {bare:,} of them without a {'candidate' if prompts.answers_with_user else 'user'}" if bare else ""
    equal = counts.get("train_pairs_of_equal_texts", 0)
    among += f" ({plural(equal, 'pair')} of equal texts left out)" if equal else ""
    job.reporter.note(f"  {plural(counts['train_rows'], 'row')} to train on{among}; {cut}")
    return {"answers": known, "answers_cut": truncated}


def _order(rows: CandidateRows, split: str, sides: int, generator: np.random.Generator) -> Codes:
    """Shuffle training rows one by one; of other splits the examples, whose rows stay together.

    Row r asks about candidate r // ``sides``. Only training sees the order, and prompts of one user side by side
    compress 20 times better.
    """
    if split == "train":
        return generator.permutation(sides * len(rows))
    first = np.flatnonzero(np.diff(rows.examples, prepend=-1))
    length = np.diff(np.append(first, len(rows)))
    drawn = generator.permutation(len(first))
    # Candidate i of an example stands at the example's new place plus i: one addition instead of a loop over examples.
    begin = np.cumsum(length[drawn]) - length[drawn]
    order: Codes = np.arange(len(rows)) + np.repeat(first[drawn] - begin, length[drawn])
    return (sides * order[:, None] + np.arange(sides)).ravel()


def _written(rows: CandidateRows, split: str, seed: int) -> Mask:
    """Return the rows (n,) to write: all of training's, `_LONGEST_LIST` at most of a validation list.

    Of a longer list, the positives and a draw of the others. Under full ranking, a validation loss over the whole
    catalogue would cost far more than the training.
    """
    sizes = np.bincount(np.unique(rows.examples, return_inverse=True)[1], minlength=1)
    if split == "train" or sizes.max() <= _LONGEST_LIST:
        return np.ones(len(rows), dtype=bool)
    drawn = np.where(rows.labels > 0, -1.0, np.random.default_rng([seed, _DRAW]).random(len(rows)))
    order = np.lexsort((drawn, rows.examples))
    begin = np.repeat(np.cumsum(sizes) - sizes, sizes)
    kept = np.zeros(len(rows), dtype=bool)
    kept[order] = np.arange(len(rows)) - begin < _LONGEST_LIST
    return kept


def _image_early(order: Codes, shown: Mask, within: int) -> Codes:
    """Put the first row that has an image in front, unless one is among the first ``within`` rows."""
    place = int(np.argmax(shown[order]))  # 0 where no row has an image: the order stays then too
    if place < within:
        return order
    return np.concatenate([order[place : place + 1], order[:place], order[place + 1 :]])


@dataclass(frozen=True)
class _RowContent:
    """What rows say, beside what their candidates do."""

    shape: Shape
    words: LabelWords
    bare: str | None
    """Where there is one, len(rows) + r is row r with this prompt and without its images."""
    right: Codes | None
    """Where there are some, a row is the wrong text of a pair, and these are the right ones."""


def _chunks(rows: CandidateRows, order: Codes, told: _RowContent, advance: Advance) -> Iterator[TrainingRows]:
    """Yield the training rows in ``order``, `_CHUNK` at a time, with the answers that their shape has."""
    for begin in range(0, len(order), _CHUNK):
        chosen = order[begin : begin + _CHUNK]
        if told.bare is not None:
            yield some_bare(rows, chosen, told.bare)
        elif told.right is not None:
            yield some_pairs(rows, told.right, chosen)
        else:
            yield _answered(rows, chosen, told)
        advance(len(chosen))


def _answered(rows: CandidateRows, chosen: Codes, told: _RowContent) -> TrainingRows:
    """Return rows that are answered by a word, or by the text of a positive."""
    texts = pl.Series(told.words)
    # Places in ``words``: label 1 is answered by the first, label 0 by the second.
    if told.shape == "judged":  # two rows a candidate: even ones have the right answer, odd ones the wrong
        chosen, odd = chosen // 2, chosen % 2
        answers = texts.gather((1 - rows.labels[chosen]) ^ odd)
        return TrainingRows(rows.prompts(chosen), answers, rows.images(chosen), right=pl.Series(odd == 0))
    right, wrong = 1 - rows.labels[chosen], rows.labels[chosen]
    rejected = texts.gather(wrong) if told.shape == "pairs" else None
    answers = texts.gather(right) if rows.answer_texts is None else rows.answers(chosen)
    return TrainingRows(rows.prompts(chosen), answers, rows.images(chosen), rejected)


# Written rows, whatever their shape.


def measure_request(row: WrittenRow, data_dir: Path) -> MeasureRequest:
    """Return the prompt of a written row, every answer it holds, and its images."""
    images = tuple(data_dir / image for image in row["images"])
    if "chosen" in row:
        answers = row["chosen"]["content"], row["rejected"]["content"]
        return MeasureRequest(row["messages"][-1]["content"], answers, images)
    prompt, answer = row["messages"]
    return MeasureRequest(prompt["content"], (answer["content"],), images)


@dataclass
class LabelBalance:
    """Counts training rows, and how many of them teach Yes."""

    words: LabelWords = ANSWERS
    rows: int = 0
    yes: int = 0

    def add(self, row: WrittenRow) -> None:
        """Take in one written row: of a pair, the preferred answer counts; a wrong answer teaches the other one."""
        self.rows += 1
        if "chosen" in row:
            self.yes += row["chosen"]["content"] == self.words[0]
        else:
            self.yes += (row["messages"][-1]["content"] == self.words[0]) == row.get("kto_tag", True)

    @property
    def share(self) -> float | None:
        """Rows that teach Yes; None without rows."""
        return self.yes / self.rows if self.rows else None

    def warn(self, train: TrainConfig, reporter: Reporter) -> None:
        """Warn when one answer is all there is, or when the share of Yes is far from what the negatives ask for."""
        if self.share is None:
            return
        expected = 1 / (1 + train.negatives.count)
        if self.share in (0.0, 1.0):
            only = self.words[0] if self.share else self.words[1]
            reporter.note(f"warning: every training row answers {only}: nothing can be learned from that "
                          "[label-balance]")  # fmt: skip
        elif train.negatives.kind != "impressions" and not expected / _FAR <= self.share <= min(1.0, expected * _FAR):
            reporter.note(f"warning: {self.share:.1%} of the training rows answer {self.words[0]}; "
                          f"train.negatives ask for {expected:.1%} [label-balance]")  # fmt: skip
