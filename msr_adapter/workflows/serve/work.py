"""What the engine is asked and what it answers: users with candidates, and log-odds for each of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from msr_adapter.arrays import Codes, Floats
from msr_adapter.generation import Image


@dataclass(frozen=True)
class Candidate:
    """What prompts show of a candidate."""

    title: str
    image: Image | None = None
    place: int = -1
    """Row of ITEMS; -1 = an item of no catalogue."""
    more: tuple[Image, ...] = ()
    """Those after the first."""

    @property
    def images(self) -> tuple[Image, ...]:
        """All images, in order."""
        return () if self.image is None else (self.image, *self.more)


@dataclass(frozen=True)
class UserWork:
    """One user and what is to be scored for this user."""

    history: Codes
    """Rows of ITEMS, oldest first."""
    candidates: Sequence[Candidate] = ()
    summary: str | None = None
    """A user summary that stands in for what the history would say."""
    user_id: str = ""
    """Whose attributes templates say; empty = nobody's."""

    @property
    def has_user(self) -> bool:
        """Say whether the model has anything to judge by."""
        return bool(len(self.history)) or self.summary is not None


@dataclass(frozen=True)
class LiveStep:
    """The user summary after one block of a history."""

    items_read: int
    text: str


@dataclass(frozen=True)
class LiveSummary:
    """What is told of one user, and how it came about."""

    text: str
    steps: tuple[LiveStep, ...] = ()


@dataclass(frozen=True)
class ScoredUser:
    """The answer to one `UserWork`."""

    summary: LiveSummary
    shown: str
    """The text that the prompts held: the summary, or what `train.too_long: truncate` leaves of it."""
    scores: Floats
    """p(yes) / (p(yes) + p(no)), (candidates,); NaN without a user to judge by."""
    logits: Floats
    bounded: Sequence[bool] = field(default=())
    """Whether a server kept one answer back, so that the score is a bound (candidates,)."""
