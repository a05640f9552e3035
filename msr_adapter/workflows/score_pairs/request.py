"""What `msr score` is asked for, and what is wrong with it that can be known before any row is read."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from msr_adapter.errors import Problem

OnUnknown = Literal["error", "skip"]
Known = Literal["all", "test"]

SUFFIXES = (".parquet", ".csv", ".tsv", ".jsonl")
SCORE, LOGIT, BOUNDED, WHY = "score", "logit", "bounded", "not_scored"
"""The columns that are added."""


@dataclass(frozen=True)
class PairsRequest:
    """The whole request."""

    pairs: Path
    out: Path
    columns: Mapping[str, str] = field(default_factory=dict)
    """Field -> column, where the name is not one of the usual ones."""
    unknown: OnUnknown = "error"
    """What becomes of rows that cannot be scored: the command ends, or they have no score and a reason."""
    histories: Known = "all"
    """What a user is to the model: all that is known, or what the evaluation knows of a test user."""
    overwrite: bool = False
    """Whether ``out`` may exist."""
    items: Path | None = None
    """A table of items that came after the data stage's."""

    def added(self, *, served: bool) -> tuple[str, ...]:
        """Return the columns that the table gets; bounds are a server's alone."""
        return (SCORE, LOGIT, *((BOUNDED,) if served else ()), *((WHY,) if self.unknown == "skip" else ()))


def nested_problems(wanted: PairsRequest, nested: list[str]) -> Iterator[Problem]:
    """Yield a problem for columns that the kind of file asked for cannot hold."""
    if nested and wanted.out.suffix.lower() in (".csv", ".tsv"):
        found = f"{wanted.out}: a {wanted.out.suffix[1:]} cannot hold {', '.join(nested[:5])} of {wanted.pairs}"
        yield Problem("", "--out", found, "columns of text, numbers or dates", "Name a .parquet or .jsonl")
