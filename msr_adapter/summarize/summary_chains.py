"""The requests of one history, and of one item, each as a chain: a request depends on the answer before it.

A chain is a generator, so that any worker can run it, and so that thousands are under way at once. With blocks of 3, a
history of 7 items asks three times, and each prompt holds the answer to the one before::

    1. "A user chose: A, B, C. Summarise ..."                          -> "likes ships"
    2. "Preferences so far: likes ships. Since then: D, E, F ..."      -> "likes ships and maps"
    3. "Preferences so far: likes ships and maps. Since then: G ..."   -> the user summary

A request is known by what it says. Two users whose first six items are the same share requests 1 and 2, and a user who
comes back with an eighth item asks request 3 alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from msr_adapter.generation import Answer, Chain, Image, Request
from msr_adapter.prompts import NOBODY, HistoryItem, Prompts, UserFields
from msr_adapter.prompts.variables import IMAGE_PLACEHOLDER
from msr_adapter.summarize.cost_estimate import ExpectedRequest
from msr_adapter.summarize.summary_answers import Asking, read

History = Sequence[HistoryItem]

TO_COME = "‹the item's summary›"
"""Stands for the summary of an item that has none yet."""


def blocks_of(history: History, size: int) -> list[History]:
    """Cut ``history`` into blocks of ``size`` from the oldest item; the last block may be shorter."""
    return [history[start : start + size] for start in range(0, len(history), size)]


class UserStep(NamedTuple):
    """One block of a history, read."""

    request: Request
    answer: Answer
    text: str
    """The user summary after it."""


@dataclass(frozen=True)
class UserChain:
    """The chain that reads one history. It has no state, so that any process can run it."""

    prompts: Prompts
    asking: Asking
    blocks: Sequence[History]
    past_failures: bool
    item_tokens: int = 0
    """Tokens that an item's summary can have where `TO_COME` stands for it."""
    user: UserFields = NOBODY
    """What the template calls `user`."""

    def __call__(self) -> Chain[list[UserStep]]:
        """Yield a request for each block."""
        text, steps = "", list[UserStep]()
        for block in self.blocks:
            request = self.asking.request(self.prompts.user_summary(text, block, self.user))
            answer = yield request
            told = read(request, answer)
            # An empty answer must not wipe out what earlier blocks said.
            text = told or text
            steps.append(UserStep(request, answer, text))
            if told is None and not self.past_failures:
                break
        return steps

    def decisions(self) -> Iterator[object]:
        """Yield a hash of what decides each request: the blocks so far."""
        so_far: object = self.user
        for block in self.blocks:
            so_far = hash((so_far, tuple(block)))  # of texts it differs from process to process: never kept
            yield so_far

    def expected(self) -> Iterator[ExpectedRequest]:
        """Yield the requests; the summary so far stands in them by name."""
        for number, block in enumerate(self.blocks):
            earlier = f"‹the summary after block {number}›" if number else ""
            unknown = sum(item.summary == TO_COME for item in block) * self.item_tokens
            to_come = unknown + (self.asking.max_new_tokens if number else 0)
            yield ExpectedRequest(self.prompts.user_summary(earlier, block, self.user), to_come)


# The chains that describe one item: one prompt for all there is, or the paper's three.


class ItemResult(NamedTuple):
    """One item, described."""

    steps: list[tuple[Request, Answer]]
    """What was asked, in order. A failure is the last of it."""
    summary: str | None
    """The item's text, possibly empty; None after a failure."""


@dataclass(frozen=True)
class ItemChain:
    """One request that shows all there is of one item."""

    prompts: Prompts
    asking: Asking
    title: str
    text: str
    images: tuple[Image, ...]
    item: HistoryItem | None = None
    """What the template calls `item`; None = it does not."""

    @property
    def request(self) -> Request:
        """The item's one request."""
        prompt = self.prompts.item_summary(self.title, image=len(self.images), text=self.text, item=self.item)
        return self.asking.request(prompt, self.images[: prompt.count(IMAGE_PLACEHOLDER)])

    def __call__(self) -> Chain[ItemResult]:
        """Yield the request."""
        request = self.request
        answer = yield request
        return ItemResult([(request, answer)], read(request, answer))

    def decisions(self) -> Iterator[object]:
        """Yield what decides the request."""
        yield self.title, self.text, _digests(self.images), self.item

    def expected(self) -> Iterator[ExpectedRequest]:
        """Yield the request."""
        request = self.request
        yield ExpectedRequest(request.prompt, 0, request.images)


@dataclass(frozen=True)
class FusionChain:
    """The paper's three prompts: what is written about an item, what its image shows, and one summary of both.

    An item with words alone or an image alone is asked about once, and so is one whose other answer was empty: there
    is nothing to join.
    """

    prompts: Prompts
    asking: Asking
    title: str
    text: str
    images: tuple[Image, ...]
    item: HistoryItem | None = None
    """What the templates call `item`; None = they do not."""

    def __call__(self) -> Chain[ItemResult]:
        """Yield the item's requests one after the other."""
        steps, told = list[tuple[Request, Answer]](), list[str]()
        for request in self._parts():
            answer = yield request
            steps.append((request, answer))
            said = read(request, answer)
            if said is None:
                return ItemResult(steps, None)
            told += [said] if said else []
        if len(told) < 2:
            return ItemResult(steps, "".join(told))
        request = self.asking.request(self.prompts.item_fusion(self.title, told[0], told[1], self.item))
        answer = yield request
        steps.append((request, answer))
        said = read(request, answer)
        # An empty answer must not wipe out what both parts said.
        return ItemResult(steps, None if said is None else said or " ".join(told))

    def decisions(self) -> Iterator[object]:
        """Yield what decides each request; the joining one comes last."""
        words, image = (self.title, self.text, self.item), _digests(self.images)
        if self.title or self.text:
            yield "words", words
        if image:
            yield "image", self.title, image, self.item
        if image and (self.title or self.text):
            yield "both", words, image

    def expected(self) -> Iterator[ExpectedRequest]:
        """Yield the requests, the answers to come named in their places."""
        parts = list(self._parts())
        yield from (ExpectedRequest(part.prompt, 0, part.images) for part in parts)
        if len(parts) == 2:
            prompt = self.prompts.item_fusion(self.title, "‹the first answer›", "‹the second answer›", self.item)
            yield ExpectedRequest(prompt, 2 * self.asking.max_new_tokens)

    @property
    def family(self) -> object:
        """Return what decides the first request."""
        return (self.title, self.text, self.item) if self.title or self.text else _digests(self.images)

    def _parts(self) -> Iterator[Request]:
        if self.title or self.text:
            yield self.asking.request(self.prompts.item_text(self.title, self.text, self.item))
        if self.images:
            prompt = self.prompts.item_image(self.title, self.item, len(self.images))
            yield self.asking.request(prompt, self.images[: prompt.count(IMAGE_PLACEHOLDER)])


def _digests(images: Sequence[Image]) -> tuple[str, ...]:
    return tuple(image.digest for image in images)
