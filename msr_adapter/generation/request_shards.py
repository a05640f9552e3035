"""Shards: what is computed together and committed together, in this process, another one or on another machine.

A shard that takes long is committed in parts: a killed process loses what `KEEP_EVERY_S` brought, or less.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, Self, TypeVar, runtime_checkable

from msr_adapter.errors import StageError
from msr_adapter.generation.request import (
    Answer,
    Backend,
    BackendWrapper,
    Completion,
    Failure,
    Follow,
    Request,
    ends_there,
    why_impossible,
)
from msr_adapter.generation.request_chains import Chains, Start
from msr_adapter.progress import Advance

T = TypeVar("T")

KEEP_EVERY_S = 30.0
"""After this long, what a shard under way was answered is handed over to be kept, with the next answer that comes."""
Keep = Callable[[Sequence[Answer]], None]
"""Takes answers of a shard that is under way: each once, and only such as may enter the cache."""


def keep_nothing(_: Sequence[Answer]) -> None:
    """Keep no answer before the end of its shard."""


@dataclass(frozen=True)
class RequestShard:
    """Requests that stand alone."""

    requests: tuple[Request, ...]

    def run(self, backend: Backend, report: Advance, keep: Keep = keep_nothing) -> list[Answer]:
        """Return the answers in the order of the requests; ``report`` takes the number of answers so far."""
        done = 0
        with _Keeper(keep, self.requests) as keeper:

            def count(answer: Answer) -> Sequence[Request]:
                nonlocal done
                done += 1
                keeper.add(answer)
                report(done)
                return ()

            return _checked(self.requests, list(backend.complete(self.requests, count)))

    def without(self, answers: Sequence[Answer]) -> "RequestShard":
        """Return what is left to compute once there are ``answers``."""
        known = {answer.key for answer in answers}
        return RequestShard(tuple(request for request in self.requests if request.key not in known))


@dataclass(frozen=True)
class ChainShard:
    """Chains of requests; whoever computes the shard runs them to their ends."""

    starts: tuple[Start[Any], ...]
    known: tuple[Answer, ...]
    """Answers that need no asking."""

    def run(self, backend: Backend, report: Advance, keep: Keep = keep_nothing) -> list[Answer]:
        """Return the answer to every request that was asked; ``report`` takes the number of answers used so far."""
        chains = Chains(self.starts, self.known)
        before, asked = chains.sent, chains.waiting()
        with _Keeper(keep, asked) as keeper:

            def follow(answer: Answer) -> Sequence[Request]:
                more = chains.settle(answer)
                asked.extend(more)
                keeper.add(answer)
                report(chains.sent - before)
                return more

            answers = list(backend.complete(tuple(asked), follow))
            return _checked(asked, answers)

    def without(self, answers: Sequence[Answer]) -> "ChainShard":
        """Return what is left to compute once there are ``answers``."""
        return replace(self, known=(*self.known, *answers))


class Shard(Protocol):
    """What is computed together, wherever the backend is. Picklable: it may go to another process."""

    def run(self, backend: Backend, report: Advance, keep: Keep = keep_nothing) -> list[Answer]:
        """Return the answers that the cache is to keep, if any; ``report`` takes the number of answers so far."""

    def without(self, answers: Sequence[Answer]) -> "Shard":
        """Return what is left to compute once there are ``answers``."""


class _Keeper:
    """Answers of a shard under way, handed over `KEEP_EVERY_S` after the last ones, and when an exception ends it.

    What comes at the end of a shard is not: `run` returns it.
    """

    def __init__(self, keep: Keep, requests: Sequence[Request]) -> None:
        """``requests`` may grow: an answer is taken for one of those that are there when it is handed over."""
        self._keep, self._requests = keep, requests
        self._new: list[Answer] = []
        self._last = time.monotonic()

    def add(self, answer: Answer) -> None:
        """Take an answer."""
        self._new.append(answer)
        if time.monotonic() - self._last >= KEEP_EVERY_S:
            self._hand_over()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is not None and self._new:
            with contextlib.suppress(StageError):  # the error that ends the shard is the one to be told
                self._hand_over()

    def _hand_over(self) -> None:
        """Hand over what is new, but for failures and what `_checked` will refuse: these wait for the shard's end."""
        asked, new = {request.key: request for request in self._requests}, self._new
        self._new = []
        sound = [answer for answer in new if answer.key in asked and _is_sound(asked[answer.key], answer)]
        if sound:
            self._keep(sound)
        self._last = time.monotonic()


@dataclass(frozen=True)
class ShardJob(Generic[T]):
    """A shard, and what the process that hands it out needs to go on once it is answered."""

    shard: Shard | None
    """What has to be computed; None: nothing."""
    owner: T
    """Stays in this process."""
    report: Advance = lambda _: None
    """Takes the number of answers so far, as they come."""
    keep: Keep = keep_nothing
    """Takes answers of a shard that is under way for long; they come again with all others of it."""


@runtime_checkable
class ShardPool(Protocol):
    """What a backend of several workers does beside `Backend`."""

    def spread(self, jobs: Iterable[ShardJob[T]]) -> Iterator[tuple[ShardJob[T], list[Answer]]]:
        """Yield each job with its answers as it is done, in any order; jobs are drawn as workers become free."""


def spread(backend: Backend, jobs: Iterable[ShardJob[T]]) -> Iterator[tuple[ShardJob[T], list[Answer]]]:
    """Yield each job with its answers: by the workers of a `ShardPool`, else one after another in this process."""
    if isinstance(backend, ShardPool):
        return backend.spread(jobs)
    return ((job, job.shard.run(backend, job.report, job.keep) if job.shard else []) for job in jobs)


class _Watched(BackendWrapper):
    """The same backend; ``tell`` takes the tokens of each text that it writes."""

    def __init__(self, backend: Backend, tell: Callable[[int], None]) -> None:
        super().__init__(backend)
        self._tell = tell

    def complete(self, requests: Sequence[Request], follow: Follow = ends_there) -> Sequence[Answer]:
        def follow_and_tell(answer: Answer) -> Sequence[Request]:
            if isinstance(answer, Completion):
                self._tell(answer.tokens_out)
            return follow(answer)

        return self._backend.complete(requests, follow_and_tell)


def watched(backend: Backend, tell: Callable[[int], None]) -> Backend:
    """Return ``backend`` with ``tell`` called for each answer; a `ShardPool`, whose workers are elsewhere, as it is."""
    return backend if isinstance(backend, ShardPool) else _Watched(backend, tell)


class MonotonicProgress:
    """Progress that never goes back: a shard that is computed again, because its worker died, is not counted twice."""

    def __init__(self, advance: Advance | None) -> None:
        self._advance: Callable[[int], None] = advance or (lambda _: None)
        self._at = 0

    def to(self, count: int) -> None:
        """Move to ``count``, if that is forward."""
        if count > self._at:
            self._advance(count - self._at)
            self._at = count


def _checked(requests: Sequence[Request], answers: Sequence[Answer]) -> list[Answer]:
    """Return the answers, those with impossible probabilities as failures.

    Others that must not enter the cache are refused: wrong ones are a bug, non-finite ones a broken model.
    """
    if [request.key for request in requests] != [answer.key for answer in answers]:
        raise ValueError(f"the backend gave {len(answers)} answers to {len(requests)} requests, or in another order")
    broken = 0
    for request, answer in zip(requests, answers, strict=True):
        if isinstance(answer, Failure):
            continue
        if len(answer.choice_logprobs) != len(request.choices):
            raise ValueError(f"{len(answer.choice_logprobs)} log-probabilities for choices {request.choices}")
        broken += not all(map(math.isfinite, answer.choice_logprobs))
    if broken:
        raise StageError(
            f"the model gave no finite log-probability for {broken} of {len(answers)} prompts",
            "training diverged, or its numbers overflow in float16",
            "look at the training loss; lower the learning rate, or set dtype to bfloat16 or float32",
        )
    return [_possible(answer) for answer in answers]


def _is_sound(request: Request, answer: Answer) -> bool:
    """Tell whether an answer is a completion that `_checked` will have nothing against."""
    if isinstance(answer, Failure) or len(answer.choice_logprobs) != len(request.choices):
        return False
    numbers = answer.choice_logprobs
    return all(map(math.isfinite, numbers)) and not why_impossible(numbers, bounds=bool(answer.bounded))


def _possible(answer: Answer) -> Answer:
    if isinstance(answer, Failure):
        return answer
    reason = why_impossible(answer.choice_logprobs, bounds=bool(answer.bounded))
    return Failure(answer.key, f"impossible probabilities: {reason}") if reason else answer
