"""A backend whose answers are told of as they come, for a progress bar."""

from collections.abc import Callable, Sequence

from msr_adapter.generation.request import Answer, Backend, Completion, Follow, Request, ends_there
from msr_adapter.generation.shards import Crew


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
