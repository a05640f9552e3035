"""Completions kept by request key, so that neither a second run nor a killed one computes anything twice."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Self

from msr_adapter.errors import StageError
from msr_adapter.generation.chains import Chain, Chains, Known
from msr_adapter.generation.request import Answer, Backend, Completion, Failure, Follow, Request
from msr_adapter.generation.store import CompletionStore
from msr_adapter.progress import Advance

SHARD = 256
"""Requests that are computed and committed together."""
CHAINS = 128
"""Chains that are computed and committed together."""


class CacheStats(NamedTuple):
    """Running counts of a cache, over distinct requests."""

    hits: int = 0
    """Answered from the file."""
    computed: int = 0
    """Answered by a backend."""
    failed: int = 0
    """Put to a backend in vain."""


class CompletionCache:
    """Completions in one file; several processes may use it at once. A context manager."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stats = CacheStats()
        self._store = CompletionStore(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; everything is committed already."""
        self._store.close()

    def known(self, keys: Sequence[str]) -> set[str]:
        """Return those of ``keys`` that are answered already."""
        return set(self._store.lookup(keys))

    def complete(
        self,
        backend: Backend,
        requests: Sequence[Request],
        *,
        shard: int = SHARD,
        advance: Advance | None = None,
    ) -> list[Completion]:
        """As `attempt`, for callers that need every answer: the first shard with a failure raises `StageError`."""

        def refuse(failures: Sequence[Failure]) -> None:
            raise StageError(
                f"{len(failures)} of {len(requests)} requests failed, first: {failures[0].reason}",
                next_step="run the same command again: what was answered is kept",
            )

        answers = self._run(backend, requests, shard, advance, refuse)
        return [answer for answer in answers if isinstance(answer, Completion)]

    def attempt(
        self,
        backend: Backend,
        requests: Sequence[Request],
        *,
        shard: int = SHARD,
        advance: Advance | None = None,
    ) -> list[Answer]:
        """Answer ``requests`` in their order, each distinct one at most once ever; failures are tried again next time.

        Shards are consecutive slices of the distinct requests, whatever is cached; the missing ones of a shard go to
        the backend in one call and are committed in one transaction. Hence a killed run loses at most one shard, and
        its rerun hands the backend the very batches that an undisturbed run would have. ``advance`` sums to
        ``len(requests)``. Raises `StageError` if the file cannot be used or an answer is not a finite number.
        """
        return self._run(backend, requests, shard, advance, lambda _: None)

    def converse(
        self, backend: Backend, chains: Sequence[Chain], *, shard: int = CHAINS, advance: Advance | None = None
    ) -> None:
        """Move ``chains`` to their ends: a chain's next request enters as soon as its answer is there.

        A shard is a slice of ``chains``, whatever is cached, run in one call and committed in one transaction: a killed
        run loses at most one, and its rerun hands the backend what an undisturbed run would have. ``advance`` sums to
        the number of requests.
        """
        for start in range(0, len(chains), shard):
            known = Known(self._store.lookup)
            moving = Chains(chains[start : start + shard], known, advance or (lambda _: None))
            first = moving.first()
            if first:
                asked = _Asked(moving.follow, first)
                answers = backend.complete(first, asked.follow)
                self._commit(backend, asked.requests, answers)
            self.stats = self.stats._replace(hits=self.stats.hits + len(known.found))

    def _commit(self, backend: Backend, requests: Sequence[Request], answers: Sequence[Answer]) -> None:
        """Check and store what a backend gave in one transaction."""
        _check_answers(requests, answers)
        completions = [answer for answer in answers if isinstance(answer, Completion)]
        failures = [answer for answer in answers if isinstance(answer, Failure)]
        self._store.add(backend.identity, backend.label, completions, failures)
        hits, computed, failed = self.stats
        self.stats = CacheStats(hits, computed + len(completions), failed + len(failures))

    def _run(
        self,
        backend: Backend,
        requests: Sequence[Request],
        shard: int,
        advance: Advance | None,
        on_failures: Callable[[Sequence[Failure]], None],
    ) -> list[Answer]:
        if shard < 1:
            raise ValueError(f"shard {shard} must be at least 1")
        copies = Counter(request.key for request in requests)
        distinct = list({request.key: request for request in requests}.values())
        found: dict[str, Answer] = {}
        for start in range(0, len(distinct), shard):
            part = distinct[start : start + shard]
            answers = self._shard(backend, part)
            if failures := [answer for answer in answers.values() if isinstance(answer, Failure)]:
                on_failures(failures)
            found.update(answers)
            if advance is not None:
                advance(sum(copies[request.key] for request in part))
        return [found[request.key] for request in requests]

    def _shard(self, backend: Backend, shard: Sequence[Request]) -> dict[str, Answer]:
        found: dict[str, Answer] = dict(self._store.lookup([request.key for request in shard]))
        missing = [request for request in shard if request.key not in found]
        if missing:
            answers = backend.complete(missing)
            self._commit(backend, missing, answers)
            # Read back: if another process stored an answer meanwhile, the first one stands for both.
            found.update((answer.key, answer) for answer in answers if isinstance(answer, Failure))
            found.update(self._store.lookup([request.key for request in missing]))
        self.stats = self.stats._replace(hits=self.stats.hits + len(shard) - len(missing))
        return found


class _Asked:
    """Keeps every request that a conversation put to the backend, in order."""

    def __init__(self, follow: Follow, first: Sequence[Request]) -> None:
        self._follow, self.requests = follow, list(first)

    def follow(self, answer: Answer) -> Sequence[Request]:
        more = self._follow(answer)
        self.requests += more
        return more


def _check_answers(requests: Sequence[Request], answers: Sequence[Answer]) -> None:
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
