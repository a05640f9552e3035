"""The paper's three prompts for one item: what is written about it, what its picture shows, and one summary of both."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from msr_adapter.generation import Answer, Chain, Image, Request
from msr_adapter.prompts import Prompts
from msr_adapter.summarize.answers import Asking, read


class Fused(NamedTuple):
    """One item, described."""

    steps: list[tuple[Request, Answer]]
    """What was asked, in order. A failure is the last of it."""
    summary: str | None
    """The item's text, possibly empty; None after a failure."""


@dataclass(frozen=True)
class Fusing:
    """The chain that describes one item; it keeps nothing, so that any process can run it.

    An item with words alone or a picture alone is asked about once, and so is one whose other answer was empty: there
    is nothing to join.
    """

    prompts: Prompts
    asking: Asking
    title: str
    text: str
    image: Image | None

    def __call__(self) -> Chain[Fused]:
        """Yield the item's requests one after the other."""
        steps, told = list[tuple[Request, Answer]](), list[str]()
        for request in self._parts():
            answer = yield request
            steps.append((request, answer))
            said = read(request, answer)
            if said is None:
                return Fused(steps, None)
            told += [said] if said else []
        if len(told) < 2:
            return Fused(steps, "".join(told))
        request = self.asking.request(self.prompts.item_fusion(self.title, *told))
        answer = yield request
        steps.append((request, answer))
        said = read(request, answer)
        # An empty answer must not wipe out what both parts said.
        return Fused(steps, None if said is None else said or " ".join(told))

    @property
    def most(self) -> int:
        """Return the most requests that the item can take."""
        words, picture = bool(self.title or self.text), self.image is not None
        return words + picture + (words and picture)

    @property
    def family(self) -> object:
        """Return what decides the first request."""
        return (self.title, self.text) if self.title or self.text else self.image and self.image.digest

    def _parts(self) -> Iterator[Request]:
        if self.title or self.text:
            yield self.asking.request(self.prompts.item_text(self.title, self.text))
        if self.image:
            yield self.asking.request(self.prompts.item_image(self.title), (self.image,))
