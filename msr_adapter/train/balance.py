"""What a written row asks and answers, whatever its objective, and how often the answer is Yes."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msr_adapter.config.models import Train
from msr_adapter.llamafactory.measuring import Asked
from msr_adapter.progress import Reporter
from msr_adapter.rows import ANSWERS

_FAR = 1.5
"""Factor between the share of positives and the configured one that is worth a warning."""


@dataclass
class Balance:
    """How many rows teach Yes."""

    said: tuple[str, str] = ANSWERS
    """The two answers: yes, no."""
    rows: int = 0
    yes: int = 0

    def add(self, row: Mapping[str, Any]) -> None:
        """Take in one row."""
        self.rows += 1
        self.yes += _teaches_yes(row, self.said[0])

    @property
    def share(self) -> float | None:
        """Rows that teach Yes; None without rows."""
        return self.yes / self.rows if self.rows else None


def asked_of(row: Mapping[str, Any], data_dir: Path) -> Asked:
    """Return the prompt of a written row, every answer it holds, and its images."""
    images = tuple(data_dir / image for image in row["images"])
    if "chosen" in row:
        return Asked(row["messages"][-1]["content"], (row["chosen"]["content"], row["rejected"]["content"]), images)
    prompt, answer = row["messages"]
    return Asked(prompt["content"], (answer["content"],), images)


def tell_balance(balance: Balance, train: Train, reporter: Reporter) -> None:
    """Warn when one answer is all there is, or when the share of Yes is far from what the negatives ask for."""
    if balance.share is None:
        return
    expected = 1 / (1 + train.negatives.count)
    if balance.share in (0.0, 1.0):
        only = balance.said[0] if balance.share else balance.said[1]
        reporter.note(f"warning: every training row answers {only}: nothing can be learned from that [label-balance]")
    elif not expected / _FAR <= balance.share <= min(1.0, expected * _FAR):
        reporter.note(f"warning: {balance.share:.1%} of the training rows answer {balance.said[0]}; "
                      f"train.negatives ask for {expected:.1%} [label-balance]")  # fmt: skip


def _teaches_yes(row: Mapping[str, Any], yes: str) -> bool:
    if "chosen" in row:
        return bool(row["chosen"]["content"] == yes)
    return bool((row["messages"][-1]["content"] == yes) == row.get("kto_tag", True))
