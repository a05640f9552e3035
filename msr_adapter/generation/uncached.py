"""Answers that nobody keeps: for work of which the result is kept as a whole."""

from collections.abc import Iterable, Iterator, Sequence

from msr_adapter.errors import StageError, plural
from msr_adapter.generation.completion_cache import CacheStats, CompletionCache
from msr_adapter.generation.request import Backend, Completion, Failure, Request
from msr_adapter.generation.request_shards import MonotonicProgress, RequestShard
from msr_adapter.progress import Advance


class UncachedAnswers(CompletionCache):
    """Takes the place of a cache where billions of answers would only fill it; knows nothing and opens no file."""

    def __init__(self) -> None:
        self.stats = CacheStats()

    def close(self) -> None:
        """Do nothing: there is nothing to close."""

    def known(self, keys: Sequence[str]) -> set[str]:
        """Return none of them."""
        return set()

    def stream(
        self, backend: Backend, batches: Iterable[Sequence[Request]], *, advance: Advance | None = None
    ) -> Iterator[list[Completion]]:
        """Yield the answers to each of ``batches``, each distinct request asked once. `StageError` if one fails."""
        for requests in batches:
            distinct = tuple({request.key: request for request in requests}.values())
            progress = MonotonicProgress(advance)
            answers = RequestShard(distinct).run(backend, progress.to)
            progress.to(len(requests))
            if failures := [answer for answer in answers if isinstance(answer, Failure)]:
                many = f"{len(failures):,} of {plural(len(distinct), 'request')} failed"
                raise StageError(f"{many}, first: {failures[0].reason}", next_step="run the same command again")
            found = {answer.key: answer for answer in answers if isinstance(answer, Completion)}
            self.stats = self.stats._replace(computed=self.stats.computed + len(distinct))
            yield [found[request.key] for request in requests]
