"""Requests that wait for the model: bounded, taken in batches, dropped when nobody waits for them any more."""

import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field

from msr_adapter.workflows.serve.settings import Batching
from msr_adapter.workflows.serve.work import ScoredUser, UserWork

_PATIENCE, _PATIENCE_EACH = 0.25, 0.05
"""Shares of the latest batch's time that the model may wait: for all who come back, and for the next one of them."""
_RESIGNED = 4
"""Batches that wait for nobody, after one that waited in vain."""


class QueueFullError(Exception):
    """As many requests wait as may."""


class QueueClosedError(Exception):
    """The server is stopping."""


@dataclass(eq=False)
class Ticket:
    """A request in the queue; its ``future`` is cancelled when nobody waits for the answer any more."""

    work: Sequence[UserWork]
    future: "Future[list[ScoredUser]]" = field(default_factory=Future)
    entered: float = field(default_factory=time.monotonic)

    @property
    def pairs(self) -> int:
        """Number of pairs that are scored; 1 where only a user is read."""
        return max(1, sum(len(one.candidates) for one in self.work))

    @property
    def gone(self) -> bool:
        """Say whether nobody waits for the answer."""
        return self.future.cancelled()

    def answer(self, found: list[ScoredUser]) -> None:
        """Hand over the answer, if anybody waits for it."""
        with suppress(InvalidStateError):
            self.future.set_result(found)

    def fail(self, error: Exception) -> None:
        """Hand over why there is none."""
        with suppress(InvalidStateError):
            self.future.set_exception(error)


class RequestQueue:
    """First come, first served; safe between the threads of the server and of the model."""

    def __init__(self, limit: int, batching: Batching) -> None:
        self._limit, self._batching = limit, batching
        self._waiting: deque[Ticket] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._answered = 0
        """Requests of the latest batch: their clients may ask again at once."""
        self._begun = time.monotonic()
        """When the latest batch was taken."""
        self._resigned = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, ticket: Ticket) -> None:
        """Let a request wait. Raises `QueueFullError` or `QueueClosedError`."""
        with self._changed:
            if self._closed:
                raise QueueClosedError
            if len(self._waiting) >= self._limit:
                raise QueueFullError
            self._waiting.append(ticket)
            self._changed.notify()

    def drop(self, ticket: Ticket) -> None:
        """Forget a request that nobody waits for: it costs nothing any more, unless it is under way already."""
        ticket.future.cancel()
        with self._changed, suppress(ValueError):
            self._waiting.remove(ticket)

    def take(self) -> list[Ticket] | None:
        """Wait for requests and return those that are answered together; None once the queue is closed and empty.

        Clients that ask again as soon as they are answered would fall into two groups, one of which waits while the
        other is answered. So those who were answered last are waited for, beside those who came meanwhile: as long as
        somebody comes within `Batching.window_ms` of the one before, or a twentieth of the latest batch's time, and for
        a quarter of it at the most. Where nobody comes back, the next batches do not wait. A first batch waits for
        whoever comes.
        """
        with self._changed:
            free = time.monotonic()
            busy, expected = free - self._begun, self._answered + len(self._waiting)
            while not self._waiting and not self._closed:
                self._changed.wait()
            if not self._waiting:
                return None
            if not self._answered:
                self._await_company(self._batching.requests, 0.0)
            elif self._resigned:
                self._resigned -= 1
            elif not self._await_company(expected, busy):
                self._resigned = _RESIGNED
            taken = self._first()
            self._answered, self._begun = len(taken), time.monotonic()
            return taken

    def _await_company(self, expected: int, busy_s: float) -> bool:
        """Wait until ``expected`` requests are there or no more come; say whether that was worth it, or not needed.

        ``busy_s``: how long the model was busy before.
        """
        window, known = self._batching.window_ms / 1000, len(self._waiting)
        came = time.monotonic()
        last = came + max(window, _PATIENCE * busy_s)
        window = max(window, _PATIENCE_EACH * busy_s) if window else 0
        while len(self._waiting) < expected and not self._closed and not self._is_full():
            if (left := min(came + window, last) - time.monotonic()) <= 0:
                break
            before = len(self._waiting)
            self._changed.wait(left)
            came = time.monotonic() if len(self._waiting) > before else came
        return not window or len(self._waiting) > min(known, expected - 1)

    def left(self) -> list[Ticket]:
        """Take all that waits, for whoever has to refuse it."""
        with self._changed:
            waiting = list(self._waiting)
            self._waiting.clear()
        return waiting

    def close(self) -> None:
        """Take no further request; what waits is still answered."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _is_full(self) -> bool:
        batching = self._batching
        return len(self._waiting) >= batching.requests or sum(one.pairs for one in self._waiting) >= batching.pairs

    def _first(self) -> list[Ticket]:
        taken: list[Ticket] = []
        pairs = 0
        while self._waiting and len(taken) < self._batching.requests:
            if taken and pairs + self._waiting[0].pairs > self._batching.pairs:
                break
            taken.append(self._waiting.popleft())
            pairs += taken[-1].pairs
        return taken
