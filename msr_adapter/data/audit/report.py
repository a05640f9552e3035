"""The audit: every count and every finding of the data stage, written to `audit.json` and nothing dropped silently."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal, TypedDict

from msr_adapter.data.audit.recognition import Recognition
from msr_adapter.errors import LISTED

Severity = Literal["info", "warning", "error"]


Statistics = dict[str, Any]
"""What a check measured, as JSON: numbers, or objects of numbers. The keys are in `checks`."""


class AuditFinding(TypedDict):
    """One thing that a reader should know."""

    severity: Severity
    topic: str
    """Of `thresholds.RULES`."""
    text: str
    """What was found, and what to do about it."""


@dataclass
class Audit:
    """An accumulator that the steps of the stage share."""

    counts: dict[str, int] = field(default_factory=dict)
    findings: list[AuditFinding] = field(default_factory=list)
    named: dict[str, list[str]] = field(default_factory=dict)
    """Name of a count -> the first ids that it counts, at most `LISTED`."""
    recognised: list[Recognition] = field(default_factory=list)
    """What each file was taken for, in the order in which they were read."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """Attribute -> column, of what is to be read of the table of items beside what every source has."""
    several_images: Sequence[str] | None = None
    """Where items may have several images: the columns of the table of items that name further ones. None: only the
    first image of an item is read."""

    def count(self, name: str, number: int) -> None:
        """Add ``number`` to the count ``name``."""
        self.counts[name] = self.counts.get(name, 0) + int(number)

    def name(self, count: str, ids: Iterable[str]) -> None:
        """Say which users or items the count is about: the first of ``ids``, so that they can be looked up."""
        if shown := list(islice(ids, LISTED)):
            self.named[count] = shown

    def find(self, severity: Severity, text: str, topic: str = "source") -> None:
        """Note one thing a reader should know; ``text`` says what to do about it. Topics: `thresholds.RULES`."""
        self.findings.append(AuditFinding(severity=severity, topic=topic, text=text))

    def recognise(self, found: Recognition) -> None:
        """Say what a file was taken for."""
        self.recognised.append(found)

    def as_json(self, **more: object) -> dict[str, object]:
        """Return the content of `audit.json`."""
        sources = [found.as_json() for found in self.recognised]
        return {"counts": self.counts, "named": self.named, "findings": self.findings, "sources": sources, **more}
