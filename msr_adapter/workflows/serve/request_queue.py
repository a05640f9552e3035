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

        A request waits `Batching.window_ms` for company from when it came: so long as the model was busy, it has
        waited already.
        """
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            if not self._waiting:
                return None
            end = self._waiting[0].entered + self._batching.window_ms / 1000
            while self._waiting and not self._closed and not self._is_full() and (left := end - time.monotonic()) > 0:
                self._changed.wait(left)
            return self._first()

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
