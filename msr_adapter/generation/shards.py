"""A backend whose answers are told of as they come, for a progress bar."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from msr_adapter.errors import StageError
from msr_adapter.generation.chains import Chains, Start
from msr_adapter.generation.request import Answer, Backend, Completion, Failure, Follow, Request, ends_there
from msr_adapter.progress import Advance


class _Watched:
    """The same backend; ``tell`` gets the tokens of each text that it writes."""

    def __init__(self, backend: Backend, tell: Callable[[int], None]) -> None:
        self._backend, self._tell = backend, tell

    @property
    def label(self) -> str:
        return self._backend.label

    @property
    def identity(self) -> str:
        return self._backend.identity

    def complete(self, requests: Sequence[Request], follow: Follow = ends_there) -> Sequence[Answer]:
        def follow_and_tell(answer: Answer) -> Sequence[Request]:
            if isinstance(answer, Completion):
                self._tell(answer.tokens_out)
            return follow(answer)

        return self._backend.complete(requests, follow_and_tell)


def watched(backend: Backend, tell: Callable[[int], None]) -> Backend:
    """Return ``backend`` with ``tell`` called for each answer; a crew of workers, which is elsewhere, as it is."""
    return backend if isinstance(backend, Crew) else _Watched(backend, tell)


# A shard is what is computed together and committed together, on this process, another one or another machine.

T = TypeVar("T")


@dataclass(frozen=True)
class Questions:
    """Requests that stand alone."""

    requests: tuple[Request, ...]

    def run(self, backend: Backend, report: Advance) -> list[Answer]:
        """Return the answers in the order of the requests; ``report`` takes the number of answers so far."""
        answers = list(backend.complete(self.requests))
        _check(self.requests, answers)
        report(len(answers))
        return answers


@dataclass(frozen=True)
class Conversation:
    """Chains of requests; whoever computes the shard moves them to their ends."""

    starts: tuple[Start[Any], ...]
    known: tuple[Answer, ...]
    """Answers that need no asking."""

    def run(self, backend: Backend, report: Advance) -> list[Answer]:
        """Return every answer that had to be asked; ``report`` takes the number of answers handed on so far."""
        chains = Chains(self.starts, self.known)
        before, asked = chains.sent, chains.waiting()

        def follow(answer: Answer) -> Sequence[Request]:
            more = chains.settle(answer)
            asked.extend(more)
            report(chains.sent - before)
            return more

        answers = list(backend.complete(tuple(asked), follow))
        _check(asked, answers)
        return answers


Shard = Questions | Conversation


@dataclass(frozen=True)
class Job(Generic[T]):
    """A shard on its way."""

    shard: Shard | None
    """What has to be computed; None: nothing. It may travel."""
    owner: T
    """What whoever hands it out knows of it; stays here."""
    report: Advance = lambda _: None
    """Takes the number of answers so far, as they come."""


@runtime_checkable
class Crew(Protocol):
    """What a backend of several workers does beside `Backend.complete`."""

    def spread(self, jobs: Iterable[Job[T]]) -> Iterator[tuple[Job[T], list[Answer]]]:
        """Yield each job with its answers as it is done, in any order; jobs are drawn as workers become free."""


def spread(backend: Backend, jobs: Iterable[Job[T]]) -> Iterator[tuple[Job[T], list[Answer]]]:
    """Yield each job with its answers: by the workers of a `Crew`, else one after another in this process."""
    if isinstance(backend, Crew):
        return backend.spread(jobs)
    return ((job, job.shard.run(backend, job.report) if job.shard else []) for job in jobs)


class Bar:
    """Progress that never goes back: a shard that is done again does not count again."""

    def __init__(self, advance: Advance | None) -> None:
        self._advance: Callable[[int], None] = advance or (lambda _: None)
        self._at = 0

    def to(self, count: int) -> None:
        """Move to ``count``, if that is forward."""
        if count > self._at:
            self._advance(count - self._at)
            self._at = count


def _check(requests: Sequence[Request], answers: Sequence[Answer]) -> None:
    """Refuse answers that would poison the cache: wrong ones are a bug, non-finite ones a sick model."""
    if [request.key for request in requests] != [answer.key for answer in answers]:
        raise ValueError(f"the backend gave {len(answers)} answers to {len(requests)} requests, or in another order")
    sick = 0
    for request, answer in zip(requests, answers, strict=True):
        if isinstance(answer, Failure):
            continue
        if len(answer.choice_logprobs) != len(request.choices):
            raise ValueError(f"{len(answer.choice_logprobs)} log-probabilities for choices {request.choices}")
        sick += not all(map(math.isfinite, answer.choice_logprobs))
    if sick:
        raise StageError(
            f"the model gave no finite log-probability for {sick} of {len(answers)} prompts",
            "training diverged, or its numbers overflow in float16",
            "look at the training loss; lower the learning rate, or set dtype to bfloat16 or float32",
        )
