"""Many workers as one backend: shards are handed out as workers become free, and again when one dies."""

import itertools
import pickle
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from msr_adapter.backends.prefix_cache.stats import ScoringStats
from msr_adapter.distributed.messages import Died, Done, Message, Raised, ShardProgress, WorkerTracebackError
from msr_adapter.errors import StageError
from msr_adapter.generation.request import Answer, Follow, Request, ends_there
from msr_adapter.generation.shards import Job, Questions

ATTEMPTS = 3
"""Workers that may die over one shard."""

T = TypeVar("T")


class Transport(Protocol):
    """Starts workers in numbered seats, one in each, and carries what they are told and tell."""

    seats: int

    def start(self, seat: int) -> None:
        """Begin a worker in an empty seat; returns at once."""

    def give(self, seat: int, number: int, payload: bytes) -> None:
        """Give the worker of a seat a pickled shard, also while it is starting."""

    def news(self) -> Sequence[tuple[int, Message]]:
        """Wait up to about a second; return what the workers of some seats told. A seat is empty after `Died`."""

    def close(self) -> None:
        """End all workers."""


@dataclass
class _Assigned(Generic[T]):
    job: Job[T]
    lost: int = 0
    """Workers that died over it."""


class WorkerPool:
    """A backend of several workers (a `Crew`). Each loads the model; shards come back in any order."""

    def __init__(self, transport: Transport, identity: str, label: str, note: Callable[[str], None]) -> None:
        """``note`` takes a line for each worker that had to be replaced."""
        self.identity, self.label = identity, label
        self._spent = ScoringStats()
        self._transport, self._note = transport, note
        self._busy: dict[int, int] = {}
        """Seat -> the number of what its worker does; workers without one are idle."""
        self._alive: set[int] = set()
        self._numbers = itertools.count()

    @property
    def spent(self) -> ScoringStats | None:
        """What scoring took in all workers; None where nothing was scored by a backend that counts it."""
        return self._spent if self._spent.rows else None

    def complete(self, requests: Sequence[Request], follow: Follow = ends_there) -> list[Answer]:
        """As `Backend.complete`, wave by wave; shards, which `spread` takes, keep workers busier."""
        answers: list[Answer] = []
        wave = list(requests)
        while wave:
            size = -(-len(wave) // self._transport.seats)
            parts = (tuple(wave[start : start + size]) for start in range(0, len(wave), size))
            found = {answer.key: answer for _, told in self.spread(Job(Questions(part), None) for part in parts)
                     for answer in told}  # fmt: skip
            done = [found[request.key] for request in wave]
            answers += done
            wave = [more for answer in done for more in follow(answer)]
        return answers

    def spread(self, jobs: Iterable[Job[T]]) -> Iterator[tuple[Job[T], list[Answer]]]:
        """Yield each job with its answers as it is done.

        A worker that dies is replaced and its shard handed out again; the shard that ends `ATTEMPTS` workers is a
        `StageError`. An exception in a worker is raised here, with its traceback there as the cause.
        """
        source = iter(jobs)
        again: deque[_Assigned[T]] = deque()
        under_way: dict[int, _Assigned[T]] = {}
        more = True
        while more or again or under_way:
            while more and not again and self._free() is not None:
                job = next(source, None)
                more = job is not None
                if job is not None and job.shard is None:
                    yield job, []
                elif job is not None:
                    self._give(_Assigned(job), under_way)
            while again and self._free() is not None:
                self._give(again.popleft(), under_way)
            for seat, message in self._transport.news() if under_way else ():
                yield from self._hear(seat, message, under_way, again)

    def close(self) -> None:
        """End all workers, whatever they are doing."""
        self._transport.close()

    def _free(self) -> int | None:
        """Return an idle worker's seat, else an empty seat."""
        idle = [seat for seat in range(self._transport.seats) if seat not in self._busy]
        return min(idle, key=lambda seat: (seat not in self._alive, seat), default=None)

    def _give(self, assigned: _Assigned[Any], under_way: dict[int, _Assigned[Any]]) -> None:
        seat = self._free()
        assert seat is not None
        number = next(self._numbers)
        payload = pickle.dumps(assigned.job.shard, pickle.HIGHEST_PROTOCOL)
        if seat not in self._alive:
            self._transport.start(seat)
            self._alive.add(seat)
        self._busy[seat] = number
        under_way[number] = assigned
        self._transport.give(seat, number, payload)

    def _hear(
        self, seat: int, message: Message, under_way: dict[int, _Assigned[T]], again: "deque[_Assigned[T]]"
    ) -> Iterator[tuple[Job[T], list[Answer]]]:
        """Act on what a worker told; what an abandoned call left under way is of no interest any more."""
        match message:
            case ShardProgress(number, count) if number in under_way:
                under_way[number].job.report(count)
            case Done(number, answers, spent):
                del self._busy[seat]
                self._spent.add(spent)
                if number in under_way:
                    yield under_way.pop(number).job, answers
            case Raised(number, error, trace):
                del self._busy[seat]
                if number in under_way:
                    raise error from WorkerTracebackError(trace)
            case Died(reason):
                self._alive.discard(seat)
                assigned = under_way.pop(self._busy.pop(seat, -1), None)
                if assigned is not None:
                    self._lose(assigned, reason)
                    again.append(assigned)

    def _lose(self, assigned: _Assigned[Any], reason: str) -> None:
        assigned.lost += 1
        if assigned.lost == ATTEMPTS:
            raise StageError(
                f"{ATTEMPTS} workers died over the same shard, the last one: {reason}",
                "each worker holds a model: memory is short, or the driver of the device fails",
                "set fewer execution.workers or a smaller batch_size; what was answered is kept",
            )
        self._note(f"  a worker died ({reason}); its shard is handed out again")
