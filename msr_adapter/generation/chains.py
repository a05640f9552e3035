"""Chains of requests, each of which depends on the answer before it: many chains move at once."""

from collections.abc import Callable, Generator, Mapping, Sequence

from msr_adapter.generation.request import Answer, Completion, Request
from msr_adapter.progress import Advance

Chain = Generator[Request, Answer, None]
"""Yields a request, is sent its answer, and so on; it keeps what it learned itself."""
Lookup = Callable[[Sequence[str]], Mapping[str, Completion]]


class Chains:
    """The chains of one shard on their way: who waits for which answer, and what can be asked next.

    ``known`` looks answers up that need no asking. Equal requests of several chains are asked once.
    """

    def __init__(self, chains: Sequence[Chain], known: "Known", advance: Advance) -> None:
        self._known, self._advance = known, advance
        self._waiting: dict[str, list[Chain]] = {}
        self._starts: list[tuple[Chain, Request]] = []
        for chain in chains:
            if (request := next(chain, None)) is not None:
                self._starts.append((chain, request))
        known.load([request.key for _, request in self._starts])

    def first(self) -> list[Request]:
        """Return the distinct requests that must be asked to begin with."""
        return [new for chain, request in self._starts for new in self._ask(chain, request)]

    def follow(self, answer: Answer) -> list[Request]:
        """Hand ``answer`` to the chains that wait for it; return what must be asked next."""
        self._known.learn(answer)
        return [new for chain in self._waiting.pop(answer.key) for new in self._send(chain, answer)]

    def _send(self, chain: Chain, answer: Answer) -> list[Request]:
        self._advance(1)
        try:
            request = chain.send(answer)
        except StopIteration:
            return []
        return self._ask(chain, request)

    def _ask(self, chain: Chain, request: Request) -> list[Request]:
        """Return ``request`` if nobody knows or asked it yet; a known answer moves the chain on at once."""
        if (answer := self._known.get(request.key)) is not None:
            return self._send(chain, answer)
        new = request.key not in self._waiting
        self._waiting.setdefault(request.key, []).append(chain)
        return [request] if new else []


class Known:
    """Answers of this shard and of the store."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup
        self._answers: dict[str, Answer] = {}
        self.found: set[str] = set()
        """Keys that were in the store."""
        self._absent: set[str] = set()

    def load(self, keys: Sequence[str]) -> None:
        """Look many keys up at once."""
        stored = self._lookup(keys)
        self._answers.update(stored)
        self.found.update(stored)
        self._absent.update(key for key in keys if key not in stored)

    def get(self, key: str) -> Answer | None:
        """Return the answer, if there is one."""
        if key not in self._answers and key not in self._absent:
            self.load([key])
        return self._answers.get(key)

    def learn(self, answer: Answer) -> None:
        """Remember an answer that a backend gave."""
        self._answers[answer.key] = answer
