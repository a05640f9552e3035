"""The chain that reads one history, block by block."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from msr_adapter.generation import Answer, Chain, Request
from msr_adapter.prompts import HistoryItem, Prompts
from msr_adapter.summarize.ahead import Ahead
from msr_adapter.summarize.answers import Asking, read

History = Sequence[HistoryItem]

TO_COME = "‹the item's summary›"
"""Stands for the summary of an item that has none yet."""


def blocks_of(history: History, size: int) -> list[History]:
    """Cut ``history`` into blocks of ``size`` from the oldest item; the last block may be shorter."""
    return [history[start : start + size] for start in range(0, len(history), size)]


class Step(NamedTuple):
    """One block of a history, read."""

    request: Request
    answer: Answer
    text: str
    """The preference after it."""


@dataclass(frozen=True)
class Reading:
    """The chain that reads one history; it keeps nothing, so that any process can run it."""

    prompts: Prompts
    asking: Asking
    blocks: Sequence[History]
    past_failures: bool
    item_tokens: int = 0
    """Tokens that an item's summary can have where `TO_COME` stands for it."""

    def __call__(self) -> Chain[list[Step]]:
        """Yield a request for each block."""
        text, steps = "", list[Step]()
        for block in self.blocks:
            request = self.asking.request(self.prompts.user_preference(text, block))
            answer = yield request
            told = read(request, answer)
            # An empty answer must not wipe out what earlier blocks said.
            text = told or text
            steps.append(Step(request, answer, text))
            if told is None and not self.past_failures:
                break
        return steps

    def decisions(self) -> Iterator[object]:
        """Yield what decides each request: the blocks so far."""
        so_far: object = None
        for block in self.blocks:
            so_far = hash((so_far, tuple(block)))
            yield so_far

    def ahead(self) -> Iterator[Ahead]:
        """Yield the requests; the summary so far stands in them by name."""
        for number, block in enumerate(self.blocks):
            earlier = f"‹the summary after block {number}›" if number else ""
            unknown = sum(item.summary == TO_COME for item in block) * self.item_tokens
            to_come = unknown + (self.asking.max_new_tokens if number else 0)
            yield Ahead(self.prompts.user_preference(earlier, block), to_come)
