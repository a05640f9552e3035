"""One line of the examination of a machine."""

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "absent", "warning", "error"]
"""absent: optional and not there. warning: works, but differently than one may think. error: training cannot work."""


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
