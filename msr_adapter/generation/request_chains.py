"""Chains of requests, each of which depends on the answer before it; many chains move at once.

A chain runs twice: where it is computed, and again, from the answers, where its result is wanted. So nothing but
answers travels back from another process, and a single process works no differently.
"""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Generic, TypeVar

from msr_adapter.generation.request import Answer, Request

R = TypeVar("R")

# For example, the running summary of a user with a history of two blocks is the chain
#
#     def summary() -> Chain[str]:
#         answer = yield Request(model, "New items: A, B, C")                     # nothing is known yet
#         answer = yield Request(model, f"So far: {answer.text}. New: D, E, F")   # needs the answer before
#         return answer.text
#
# `Chains([summary, ...])` holds one generator for each user. It runs every one up to its first `yield`; `waiting` are
# the requests they stand at. `settle(answer)` sends the answer into every chain that stands at that request and returns
# the requests at which these chains stand then. A chain that returned is in `results`.

Chain = Generator[Request, Answer, R]
"""Yields a request, is sent its answer, and so on; returns what it learned. It depends on nothing but its answers."""
Start = Callable[[], Chain[R]]
"""Begins a chain anew. It may travel to another process: a frozen dataclass with ``__call__``, say."""
Lookup = Callable[[Sequence[str]], Mapping[str, Answer]]
"""Finds the answers of some keys."""


class Chains(Generic[R]):
    """Running chains: which one waits for which answer, and what can be asked next."""

    def __init__(self, starts: Sequence[Start[R]], known: Iterable[Answer] = ()) -> None:
        """Start all chains and move them as far as the ``known`` answers take them."""
        self.answers: dict[str, Answer] = {answer.key: answer for answer in known}
        self.results: dict[int, R] = {}
        """What the chains that ended returned, by their place."""
        self.sent = 0
        """Answers handed to a chain so far."""
        self.steps = [0] * len(starts)
        """Answers handed to each chain, by place."""
        self._waiting: dict[str, tuple[Request, list[int]]] = {}
        self._chains = [start() for start in starts]
        for place in range(len(starts)):
            self._move(place, None)

    def waiting(self) -> list[Request]:
        """Return the distinct requests that chains wait for: equal ones of several chains are asked once."""
        return [request for request, _ in self._waiting.values()]

    def stuck(self) -> list[int]:
        """Return the places of the chains that wait, ascending."""
        return sorted(place for _, places in self._waiting.values() for place in places)

    def settle(self, answer: Answer) -> list[Request]:
        """Hand ``answer`` to the chains that wait for it; return what must be asked next."""
        self.answers[answer.key] = answer
        _, places = self._waiting.pop(answer.key)
        return [new for place in places for new in self._move(place, answer)]

    def feed(self, lookup: Lookup) -> None:
        """Move the chains as far as the answers that ``lookup`` finds will take them."""
        # In waves: each wave looks up all the keys that the wave before led to, in one query.
        fresh = list(self._waiting)
        while fresh:
            found = lookup(fresh)
            fresh = [request.key for key in fresh if key in found for request in self.settle(found[key])]

    def _move(self, place: int, answer: Answer | None) -> list[Request]:
        """Send ``answer`` (None: begin) to a chain, then all that is known.

        Returns the request at which it stops, or nothing if it ended or another chain waits for the same request.
        """
        chain = self._chains[place]
        while True:
            try:
                request = next(chain) if answer is None else chain.send(answer)
            except StopIteration as end:
                self._count(place, answer)
                self.results[place] = end.value
                return []
            self._count(place, answer)
            if (answer := self.answers.get(request.key)) is None:
                break
        new = request.key not in self._waiting
        self._waiting.setdefault(request.key, (request, []))[1].append(place)
        return [request] if new else []

    def _count(self, place: int, answer: Answer | None) -> None:
        self.sent += answer is not None
        self.steps[place] += answer is not None


def shards(families: Sequence[object], size: int) -> tuple[list[list[int]], list[int]]:
    """Group places by ``families`` and cut them into shards of about ``size``.

    Chains of one family begin with the same request; they stay together, so that shards may run at the same time and
    ask it once. Returns the shards, and one place of each family that is larger than a shard and had to be split.

    The cut depends on nothing but the arguments, so that a resumed run makes the same shards.
    """
    members: dict[object, list[int]] = {}
    for place, family in enumerate(families):
        members.setdefault(family, []).append(place)
    cut: list[list[int]] = [[]]
    for places in members.values():
        if cut[-1] and len(cut[-1]) + len(places) > size:
            cut.append([])
        cut[-1] += places[:size]
        cut += [places[start : start + size] for start in range(size, len(places), size)]
    return [shard for shard in cut if shard], [places[0] for places in members.values() if len(places) > size]
