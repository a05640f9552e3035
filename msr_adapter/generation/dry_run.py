"""A dry run: how many answers are in the cache already, and how many would have to be asked for."""

from collections.abc import Iterable, Iterator, Sequence

from msr_adapter.generation.completion_cache import CacheStats, CompletionCache
from msr_adapter.generation.request import Answer, Backend, Completion, Failure, Follow, Request, ends_there
from msr_adapter.progress import Advance


class DryRunCache(CompletionCache):
    """A completion cache that stores nothing: ``stats.hits`` are there, ``stats.failed`` would be asked for.

    A chain ends at its first request without an answer, so what would follow is not counted.
    """

    def complete(
        self, backend: Backend, requests: Sequence[Request], *, advance: Advance | None = None
    ) -> list[Completion]:
        """Return a completion for every request; those without an answer have equal log-probabilities."""
        answers = self.attempt(DryRunBackend(backend.identity), requests, advance=advance)
        return [
            one if isinstance(one, Completion)
            else Completion(request.key, "", (-1.0,) * len(request.choices), "choice", 0, 0)
            for request, one in zip(requests, answers, strict=True)
        ]  # fmt: skip

    def stream(
        self, backend: Backend, batches: Iterable[Sequence[Request]], *, advance: Advance | None = None
    ) -> Iterator[list[Completion]]:
        """Yield what `complete` returns for each batch."""
        return (self.complete(backend, requests, advance=advance) for requests in batches)

    def _commit(self, backend: Backend, answers: Sequence[Answer]) -> None:
        # Counted, not stored: nobody was asked, so that there is no failure for a later run to tell of.
        hits, computed, failed = self.stats
        self.stats = CacheStats(hits, computed, failed + len(answers))


class DryRunBackend(Backend):
    """Stands for a backend that is not to be asked: it has no answer to anything."""

    label = "unasked"
    identity = ""

    def __init__(self, identity: str) -> None:
        self.identity = identity

    def complete(self, requests: Sequence[Request], follow: Follow = ends_there) -> list[Failure]:
        """Return a failure for every request."""
        asked, answers = list(requests), list[Failure]()
        while len(answers) < len(asked):
            answers.append(Failure(asked[len(answers)].key, "not asked"))
            asked += follow(answers[-1])
        return answers
