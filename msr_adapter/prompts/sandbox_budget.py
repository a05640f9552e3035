"""What a template may take, and what is left of it while it renders."""

import time
from dataclasses import dataclass

_UNWATCHED = 1000
"""Units between two looks at the clock: a few dozen steps."""


@dataclass(frozen=True)
class Limits:
    """What one rendering may take."""

    work: int = 20_000_000
    """Units: characters made, and nodes of the template passed in loops."""
    value: int = 5_000_000
    """Characters of one value, all that it holds included."""
    seconds: float = 5.0
    """Of the thread's processor time."""


class LimitError(Exception):
    """A template takes too long, or makes too much."""


class Budget:
    """What is left of the limits."""

    __slots__ = ("_began", "_limits", "_read_at", "left", "look_at")

    def __init__(self, limits: Limits) -> None:
        self.left, self._limits = limits.work, limits
        self.look_at = limits.work - _UNWATCHED
        self._began, self._read_at = time.thread_time(), time.monotonic() + limits.seconds

    def look(self) -> None:
        """Compare work and time with the limits. Raises `LimitError`."""
        if self.left < 0:
            raise LimitError("it takes too long, or its text becomes too long")
        self.look_at = max(self.left - _UNWATCHED, 0)
        if time.monotonic() > self._read_at:  # a machine that stood still is no fault of the template
            self._read_at = time.monotonic() + self._limits.seconds / 8
            if time.thread_time() - self._began > self._limits.seconds:
                raise LimitError(f"it takes longer than {self._limits.seconds:g} s")
