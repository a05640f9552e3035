"""Completions kept by request key, so that neither a second run nor a killed one computes anything twice.

Only the process that opened the file uses it: it looks up, hands out shards of what is missing, and commits each
shard's answers in one transaction when they arrive, in whatever order; those of a slow shard every half a minute.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, NamedTuple, Self, TypeVar

from msr_adapter.errors import StageError, plural
from msr_adapter.generation.completion_store import CompletionStore
from msr_adapter.generation.request import Answer, Backend, Completion, Failure, Request
from msr_adapter.generation.request_chains import Chains, Start, shards
from msr_adapter.generation.request_shards import ChainShard, Keep, MonotonicProgress, RequestShard, ShardJob, spread
from msr_adapter.progress import Advance

R = TypeVar("R")


class CacheStats(NamedTuple):
    """Running counts of a cache, over distinct requests."""

    hits: int = 0
    """Answered from the file."""
    computed: int = 0
    """Answered by a backend."""
    failed: int = 0
    """Asked without getting an answer."""


class CompletionCache:
    """Completions by request key in one SQLite file, which several processes may use at once. A context manager."""

    def __init__(
        self,
        path: Path,
        *,
        shard_requests: int = 256,
        shard_chains: int = 128,
        note: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Open or create the file; ``note`` is told on closing if some of its completions were damaged.

        ``shard_requests`` requests, or ``shard_chains`` chains, are computed together: a larger shard shares more
        prefixes. They are committed together too, unless that takes longer than `KEEP_EVERY_S`.
        """
        if min(shard_requests, shard_chains) < 1:
            raise ValueError(f"a shard holds at least 1 request or chain, not {min(shard_requests, shard_chains)}")
        self.path = path
        self.stats = CacheStats()
        self._shard_requests, self._shard_chains = shard_requests, shard_chains
        self._store, self._note = CompletionStore(path), note

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; everything is committed already."""
        if dropped := self._store.dropped:
            self._note(f"{self.path}: {plural(dropped, 'damaged completion')} dropped and asked again")
        self._store.close()

    def known(self, keys: Sequence[str]) -> set[str]:
        """Return those of ``keys`` that the file answers."""
        return set(self._store.lookup(keys))

    def lookup(self, keys: Sequence[str]) -> dict[str, Completion]:
        """Return key -> completion for those of ``keys`` that the file answers; `stats` does not count them."""
        return self._store.lookup(keys)

    def complete(
        self,
        backend: Backend,
        requests: Sequence[Request],
        *,
        advance: Advance | None = None,
    ) -> list[Completion]:
        """As `attempt`, for callers that need every answer: the first shard with a failure raises `StageError`."""
        [answers] = self.stream(backend, [requests], advance=advance)
        return answers

    def stream(
        self,
        backend: Backend,
        batches: Iterable[Sequence[Request]],
        *,
        advance: Advance | None = None,
    ) -> Iterator[list[Completion]]:
        """Yield what `complete` would return for each of ``batches``, in their order. Memory: the batches under way.

        Batches are drawn as workers become free: with many workers, the next ones begin before the first one ends.
        A request of several batches is asked in the first of them.
        """

        def refuse(asked: int, failures: Sequence[Failure]) -> None:
            raise StageError(
                f"{len(failures):,} of {plural(asked, 'request')} failed, first: {failures[0].reason}",
                next_step="run the same command again: what was answered is kept; if files of the run are gone or "
                "damaged, make them again with `msr build-data PIPELINE --force data`",
            )

        for answers in self._run(backend, batches, advance, refuse):
            yield [answer for answer in answers if isinstance(answer, Completion)]

    def attempt(
        self,
        backend: Backend,
        requests: Sequence[Request],
        *,
        advance: Advance | None = None,
    ) -> list[Answer]:
        """Answer ``requests`` in their order, each distinct one at most once ever; failures are tried again next time.

        Shards are consecutive slices of the distinct requests, whatever is cached; the missing ones of a shard go to
        the backend in one call and are committed in one transaction, or every `KEEP_EVERY_S`. Hence a killed run loses
        at most the shards under way (one for each worker) or that time's answers, whichever is less, and where shards
        are faster than that, its rerun hands the backend the same batches as an undisturbed run.
        ``advance`` sums to ``len(requests)``. Raises `StageError` if the file cannot be used or an answer is not a
        finite number.
        """
        [answers] = self._run(backend, [requests], advance, lambda *_: None)
        return answers

    def run_chains(
        self,
        backend: Backend,
        starts: Sequence[Start[R]],
        *,
        families: Sequence[object] | None = None,
        advance: Advance | None = None,
    ) -> Iterator[tuple[int, R]]:
        """Run chains to their ends; yield each one's place and what it returned, shard by shard, in any order.

        A chain's next request is asked as soon as its answer is there. A shard is about ``shard_chains`` chains,
        whatever is cached, run in one call and committed in one transaction or every `KEEP_EVERY_S`: a killed run loses
        at most those under way, or that time's answers. ``families``, by place, says which
        chains begin with the same request: they share a shard, because shards may be computed at the same time.
        ``advance`` sums to the number of requests.
        """
        parts, cut = shards(range(len(starts)) if families is None else families, self._shard_chains)
        # A family that fills several shards has one first request in all of them: it is answered before they are
        # handed out, or each of the shards would ask it.
        begun = [next(starts[place](), None) for place in cut]
        self.attempt(backend, [request for request in begun if request])
        jobs = (self._chain_job(starts, places, advance, self._keep(backend)) for places in parts)
        for job, answers in spread(backend, jobs):
            replay = job.owner
            self._commit(backend, answers)
            replay.end({answer.key: answer for answer in answers}, self._store.lookup)
            yield from replay.results()

    def _chain_job(
        self, starts: Sequence[Start[R]], places: Sequence[int], advance: Advance | None, keep: Keep
    ) -> "ShardJob[_Replay[R]]":
        """Return what is left of a shard of chains once the file has answered what it can."""
        chains = Chains([starts[place] for place in places])
        chains.feed(self._store.lookup)
        self.stats = self.stats._replace(hits=self.stats.hits + len(chains.answers))
        progress = MonotonicProgress(advance)
        progress.to(done := chains.sent)
        stuck = [starts[places[at]] for at in chains.stuck()]
        shard = ChainShard(tuple(stuck), self._known_to(stuck, chains)) if stuck else None
        return ShardJob(shard, _Replay(places, chains, progress), lambda count: progress.to(done + count), keep)

    def _known_to(self, stuck: Sequence[Start[R]], chains: Chains[R]) -> tuple[Answer, ...]:
        """Return the answers that ``stuck`` chains need from the file, wherever they are computed.

        Those that they have been given already, and, where a request failed in an earlier run, those that come after
        it if it fails again: whoever computes the shard has no file to look them up in.
        """
        reachable = chains
        if self._store.failures([request.key for request in chains.waiting()]):
            reachable = Chains(stuck, chains.answers.values())
            reachable.feed(lambda keys: {**self._store.failures(keys), **self._store.lookup(keys)})
        return tuple(answer for answer in reachable.answers.values() if isinstance(answer, Completion))

    def _keep(self, backend: Backend) -> Keep:
        """Return what commits answers of ``backend`` while their shard is under way."""
        return lambda answers: self._commit(backend, answers)

    def _commit(self, backend: Backend, answers: Sequence[Answer]) -> None:
        """Store a backend's answers in one transaction and count them."""
        if not answers:
            return
        completions = [answer for answer in answers if isinstance(answer, Completion)]
        failures = [answer for answer in answers if isinstance(answer, Failure)]
        # Two shards that are under way at once may be given the same request, and what is committed while a shard is
        # under way comes again at its end: only the first answer is a new one.
        added = self._store.add(backend.identity, backend.label, completions, failures)
        hits, computed, failed = self.stats
        self.stats = CacheStats(hits, computed + added, failed + len(failures))

    def _run(
        self,
        backend: Backend,
        batches: Iterable[Sequence[Request]],
        advance: Advance | None,
        on_failures: Callable[[int, Sequence[Failure]], None],
    ) -> Iterator[list[Answer]]:
        """Yield the answers of each batch in the order of its requests; batches come in their order.

        ``on_failures`` takes the number of requests of a batch, and the failures of one of its shards.
        """
        begun: deque[_Batch] = deque()
        for job, answers in spread(backend, self._jobs(batches, begun, advance, self._keep(backend))):
            part, batch, progress = job.owner
            self._commit(backend, answers)
            # Read back: if another process stored an answer meanwhile, the first one stands for both.
            batch.add(answers, self._store.lookup([request.key for request in part]))
            if failures := [answer for answer in answers if isinstance(answer, Failure)]:
                on_failures(len(batch.requests), failures)
            progress.to(sum(batch.copies[request.key] for request in part))
            while begun and not begun[0].left:
                yield self._end(begun.popleft())
        yield from (self._end(batch) for batch in begun)

    def _end(self, batch: "_Batch") -> list[Answer]:
        """Return the answers of a batch. Those before it have ended: the file answers what it shares with them."""
        return batch.answers(self._store.lookup(batch.waiting))

    def _jobs(
        self, batches: Iterable[Sequence[Request]], begun: "deque[_Batch]", advance: Advance | None, keep: Keep
    ) -> "Iterator[ShardJob[tuple[list[Request], _Batch, MonotonicProgress]]]":
        """Yield the requests of each shard of each batch that the file does not answer."""
        for requests in batches:
            # What an earlier batch has under way is not in the file yet, and must not be asked twice.
            asked = {key for batch in begun for key in batch.copies}
            batch = _Batch(requests, self._shard_requests)
            begun.append(batch)
            for part in batch.parts:
                known = self._store.lookup([request.key for request in part])
                unknown = [request for request in part if request.key not in known]
                missing = tuple(request for request in unknown if request.key not in asked)
                batch.waiting += [request.key for request in unknown if request.key in asked]
                self.stats = self.stats._replace(hits=self.stats.hits + len(part) - len(missing))
                # Of a shard under way, each answer counts once as it comes; with those known before when it has ended.
                progress = MonotonicProgress(advance)
                shard = RequestShard(missing) if missing else None
                yield ShardJob(shard, (part, batch, progress), progress.to, keep)


class _Batch:
    """Requests that are answered in one list."""

    def __init__(self, requests: Sequence[Request], shard: int) -> None:
        distinct = list({request.key: request for request in requests}.values())
        self.requests = requests
        self.copies = Counter(request.key for request in requests)
        self.parts = [distinct[start : start + shard] for start in range(0, len(distinct), shard)]
        self.left = len(self.parts)
        """Shards under way or not begun."""
        self.waiting: list[str] = []
        """Keys of what is asked in batches before this one."""
        self._found: dict[str, Answer] = {}

    def add(self, answers: Iterable[Answer], stored: Mapping[str, Completion]) -> None:
        """Keep the answers of one shard."""
        self._found.update((answer.key, answer) for answer in answers)
        self._found.update(stored)
        self.left -= 1

    def answers(self, waited: Mapping[str, Completion]) -> list[Answer]:
        """Return the answers in the order of the requests; ``waited`` has those to ``waiting``."""
        self._found.update(waited)
        if any(request.key not in self._found for request in self.requests):
            raise StageError(
                "completions have disappeared from the cache",
                "something pruned it meanwhile",
                "run the same command again",
            )
        return [self._found[request.key] for request in self.requests]


@dataclass(frozen=True)
class _Replay(Generic[R]):
    """A shard of chains that this process runs again, from the answers that were computed for them."""

    places: Sequence[int]
    chains: Chains[R]
    progress: MonotonicProgress

    def end(self, answers: Mapping[str, Answer], lookup: Callable[[Sequence[str]], Mapping[str, Answer]]) -> None:
        """Move the chains to their ends with the answers that were computed, and those of the file.

        A computed answer goes before a stored one: the chain was computed with it, and its later requests follow from
        it, also where another process has stored another answer meanwhile.
        """
        self.chains.feed(
            lambda keys: {
                **lookup([key for key in keys if key not in answers]),
                **{key: answers[key] for key in keys if key in answers},
            }
        )
        if left := len(self.chains.waiting()):
            raise ValueError(f"{left} requests were not asked: these chains do not depend on their answers alone")
        self.progress.to(self.chains.sent)

    def results(self) -> Iterator[tuple[int, R]]:
        """Yield what the chains returned, by their place among all."""
        for at, result in sorted(self.chains.results.items()):
            yield self.places[at], result
