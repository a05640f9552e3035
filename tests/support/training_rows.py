"""Training rows one by one, for tests that compare them with what they should be."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from msr_adapter.llamafactory.dataset import WrittenRow, read_rows


@dataclass(frozen=True)
class TrainingRow:
    """One row: a user turn, the answer to learn, at most one image (path relative to ``media_dir``)."""

    prompt: str
    answer: str
    images: tuple[str, ...] = ()
    rejected: str | None = None
    """Of a pair: the answer that ``answer`` is preferred to."""
    right: bool | None = None
    """Of a judged answer: whether it is right."""

    @property
    def answers(self) -> tuple[str, ...]:
        """All answers that training reads after the prompt."""
        return (self.answer,) if self.rejected is None else (self.answer, self.rejected)


def training_rows(folder: Path) -> Iterator[TrainingRow]:
    """Yield the rows that `write_rows` wrote, in order, a row group at a time."""
    for row in read_rows(folder):
        yield _row(row)


def _row(row: WrittenRow) -> TrainingRow:
    prompt, images = row["messages"][0]["content"], tuple(row["images"])
    if "chosen" in row:
        return TrainingRow(prompt, row["chosen"]["content"], images, rejected=row["rejected"]["content"])
    return TrainingRow(prompt, row["messages"][1]["content"], images, right=row.get("kto_tag"))
