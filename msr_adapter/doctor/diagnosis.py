"""What the doctor found: one finding per thing it looked at, and the verdict."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "absent", "warning", "error"]
"""absent: optional and not there. warning: works, but not as one may think. error: training cannot work."""


@dataclass(frozen=True)
class Finding:
    """What was found of one thing, what it means, and the command that mends it."""

    section: str
    name: str
    state: State
    found: str
    means: str = ""
    """What is disabled or changed; empty when all is well."""
    mend: str = ""
    """A command, or what to do."""


@dataclass(frozen=True)
class Diagnosis:
    """All findings, and the GPUs that torch sees."""

    findings: tuple[Finding, ...]
    devices: tuple[Mapping[str, object], ...]
    """name, capability, total_bytes, free_bytes, bfloat16 of each GPU."""

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What keeps training from working at all."""
        return tuple(finding for finding in self.findings if finding.state == "error")

    @property
    def verdict(self) -> str:
        """One sentence: whether this machine can train, and on what, or what keeps it from that."""
        if self.errors:
            return f"Training cannot work here: {', '.join(finding.name for finding in self.errors)}."
        number = len(self.devices)
        where = "on its processor" if not number else "on its GPU" if number == 1 else f"on its {number} GPUs"
        return f"This machine can train and score {where}."
