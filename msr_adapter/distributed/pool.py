"""A pool of workers as one backend: shards go to whoever is free, and to another one when a worker dies."""

import itertools
import pickle
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from msr_adapter.distributed.worker_messages import (
    Died,
    Done,
    Message,
    Raised,
    ShardAnswers,
    ShardProgress,
    WorkerTracebackError,
)
from msr_adapter.errors import StageError
from msr_adapter.generation.request import Answer, Backend, Follow, Request, ends_there
from msr_adapter.generation.request_shards import RequestShard, ShardJob
from msr_adapter.generation.scoring_stats import ScoringStats

ATTEMPTS = 3
"""Workers that may die over one shard."""

T = TypeVar("T")


class Transport(Protocol):
    """Starts workers in numbered slots, one in each, and carries messages both ways."""

    slots: int

    def start(self, slot: int) -> None:
        """Start a worker in an empty slot; returns at once."""

    def send(self, slot: int, number: int, payload: bytes) -> None:
        """Send the worker in a slot a pickled shard, also while it is starting."""

    def receive(self) -> Sequence[tuple[int, Message]]:
        """Wait up to about a second; return messages with the slots they come from. After `Died` a slot is empty."""

    def close(self) -> None:
        """End all workers."""


@dataclass
class _Assigned(Generic[T]):
    job: ShardJob[T]
    lost: int = 0
    """Workers that died over it."""
    kept: list[Answer] = field(default_factory=list)
    """What came while it was under way: the next worker is not asked for it."""


@dataclass
class _Queue(Generic[T]):
    """The shards of one call of `WorkerPool.spread`."""

    running: dict[int, _Assigned[T]] = field(default_factory=dict)
    """By the number that a worker was sent with the shard."""
    again: deque[_Assigned[T]] = field(default_factory=deque)
    """Shards whose workers died."""


class WorkerPool(Backend):
    """A backend of several workers (a `ShardPool`). Each loads the model; shards come back in any order."""

    label = identity = ""

    def __init__(self, transport: Transport, backend: Backend, note: Callable[[str], None]) -> None:
        """Every worker is one ``backend``; ``note`` takes a line for each worker that had to be replaced."""
        self.identity, self.label, self._facts = backend.identity, backend.label, backend.facts
        self._stats = ScoringStats()
        self._transport, self._note = transport, note
        self._busy: dict[int, int] = {}
        """Slot -> the number of the shard that its worker computes; workers without one are idle."""
        self._alive: set[int] = set()
        self._numbers = itertools.count()

    @property
    def stats(self) -> ScoringStats | None:
        """What scoring took in all workers; None where nothing was scored by a backend that counts it."""
        return None if self._stats == ScoringStats() else self._stats

    @property
    def facts(self) -> Mapping[str, str]:
        """As those of the one backend that each worker has."""
        return self._facts

    def complete(self, requests: Sequence[Request], follow: Follow = ends_there) -> list[Answer]:
        """As `Backend.complete`: requests wave by wave, each wave in equal shares for all workers.

        All wait for the slowest at the end of a wave; `spread` keeps workers busier.
        """
        answers: list[Answer] = []
        wave = list(requests)
        while wave:
            size = -(-len(wave) // self._transport.slots)  # rounded up
            parts = (tuple(wave[start : start + size]) for start in range(0, len(wave), size))
            found = {answer.key: answer for _, part in self.spread(ShardJob(RequestShard(part), None) for part in parts)
                     for answer in part}  # fmt: skip
            done = [found[request.key] for request in wave]
            answers += done
            wave = [more for answer in done for more in follow(answer)]
        return answers

    def spread(self, jobs: Iterable[ShardJob[T]]) -> Iterator[tuple[ShardJob[T], list[Answer]]]:
        """Yield each job with its answers as it is done.

        A worker that dies is replaced and what is left of its shard handed out again; the shard that ends `ATTEMPTS`
        workers is a `StageError`. An exception in a worker is raised here, with its traceback there as the cause.
        """
        source = iter(jobs)
        queue = _Queue[T]()
        more = True
        while more or queue.again or queue.running:
            # Jobs are drawn only for free workers: drawing one reads the cache, and holds its requests in memory.
            while more and not queue.again and self._free_slot() is not None:
                job = next(source, None)
                more = job is not None
                if job is not None and job.shard is None:
                    yield job, []
                elif job is not None:
                    self._assign(_Assigned(job), queue)
            while queue.again and self._free_slot() is not None:
                self._assign(queue.again.popleft(), queue)
            for slot, message in self._transport.receive() if queue.running else ():
                yield from self._handle(slot, message, queue)

    def close(self) -> None:
        """End all workers, whatever they are doing."""
        self._transport.close()

    def _free_slot(self) -> int | None:
        """Return the slot of an idle worker, else an empty one."""
        idle = [slot for slot in range(self._transport.slots) if slot not in self._busy]
        # An idle worker has its model loaded; a new one would have to load it first.
        return min(idle, key=lambda slot: (slot not in self._alive, slot), default=None)

    def _assign(self, assigned: _Assigned[T], queue: _Queue[T]) -> None:
        """Hand a shard to a free worker; a new one is started where the slot is empty."""
        slot = self._free_slot()
        assert slot is not None
        number = next(self._numbers)
        assert assigned.job.shard is not None
        shard = assigned.job.shard.without(assigned.kept) if assigned.kept else assigned.job.shard
        payload = pickle.dumps(shard, pickle.HIGHEST_PROTOCOL)
        if slot not in self._alive:
            self._transport.start(slot)
            self._alive.add(slot)
        self._busy[slot] = number
        queue.running[number] = assigned
        self._transport.send(slot, number, payload)

    def _handle(self, slot: int, message: Message, queue: _Queue[T]) -> Iterator[tuple[ShardJob[T], list[Answer]]]:
        """Act on a message. One about a shard of an earlier call, which was abandoned, only frees its worker."""
        match message:
            case ShardProgress(number, count) if number in queue.running:
                queue.running[number].job.report(count)
            case ShardAnswers(number, some) if number in queue.running:
                assigned = queue.running[number]
                assigned.kept += some
                assigned.job.keep(some)
            case Done(number, answers, stats):
                del self._busy[slot]
                self._stats.add(stats)
                if number in queue.running:
                    assigned = queue.running.pop(number)
                    yield assigned.job, [*{one.key: one for one in (*assigned.kept, *answers)}.values()]
            case Raised(number, error, trace):
                del self._busy[slot]
                if number in queue.running:
                    raise error from WorkerTracebackError(trace)
            case Died(reason):
                self._alive.discard(slot)
                lost = queue.running.pop(self._busy.pop(slot, -1), None)
                if lost is not None:
                    self._count_loss(lost, reason)
                    queue.again.append(lost)

    def _count_loss(self, assigned: _Assigned[T], reason: str) -> None:
        assigned.lost += 1
        if assigned.lost == ATTEMPTS:
            raise StageError(
                f"{ATTEMPTS} workers died over the same shard, the last one: {reason}",
                "each worker holds a model: memory is short, or the driver of the device fails",
                "set fewer execution.workers or a smaller batch_size; what was answered is kept",
            )
        self._note(f"  a worker died ({reason}); its shard is handed out again")
