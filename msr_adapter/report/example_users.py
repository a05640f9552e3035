"""Example users on the page itself, for paper and for browsers without scripts: the best, the typical, the worst."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from msr_adapter.report.user_sample import ShownUsers
from msr_adapter.report.user_texts import ItemText, SummaryStep, clip


@dataclass(frozen=True)
class CandidateView:
    """One ranked candidate."""

    item: ItemText
    score: float
    target: bool
    place: int
    """1 = best; tied candidates stand in the order of the table."""


@dataclass(frozen=True)
class Block:
    """Some items of the history, and the user summary once they were read."""

    items: Sequence[ItemText]
    first: int
    """Number of the first one, from 1."""
    user_summary: str

    @property
    def last(self) -> int:
        """Number of the last one."""
        return self.first + len(self.items) - 1


@dataclass(frozen=True)
class Case:
    """One user."""

    kind: str
    """``Best``, ``Typical`` or ``Worst``."""
    user: str
    rank: float
    """Expected rank of the target."""
    size: int
    """Candidates, shown or not."""
    blocks: list[Block]
    candidates: list[CandidateView]

    @property
    def hidden(self) -> int:
        """Candidates not shown, for very long lists."""
        return self.size - len(self.candidates)

    @property
    def place(self) -> str:
        """The rank as people write it: ``3``, or ``2.5`` where candidates tie."""
        return f"{self.rank:.0f}" if self.rank == int(self.rank) else f"{self.rank:.1f}"


def make_cases(shown: ShownUsers) -> list[Case]:
    """Return the cases among the ``shown`` users with everything that the page shows of them."""
    held_out, texts = shown.scored.held_out, shown.texts
    cases = []
    for kind, user in shown.cases:
        example = int(held_out.example_ids[user])
        history = [texts.items[item] for item in texts.histories[example]]
        cases.append(Case(
            kind,
            clip(str(held_out.user_ids[user]), 60),
            float(shown.scored.result.ranks[user]),
            int(held_out.offsets[user + 1] - held_out.offsets[user]),
            _blocks(history, texts.steps.get(example, ())),
            _candidates(user, shown),
        ))  # fmt: skip
    return cases


def _candidates(user: int, shown: ShownUsers) -> list[CandidateView]:
    ranking, held_out = shown.ranking, shown.scored.held_out
    place = int(np.searchsorted(ranking.users, user))
    end = int(ranking.counts[: place + 1].sum())
    part = slice(end - int(ranking.counts[place]), end)
    rows, places = ranking.rows[part], ranking.places[part]
    items, labels, scores = held_out.items.take(rows).to_pylist(), held_out.labels, shown.scored.scores
    return [
        CandidateView(shown.texts.items[item], float(scores[row]), bool(labels[row] > 0), int(stands))
        for item, row, stands in zip(items, rows, places, strict=True)
    ]


def _blocks(history: Sequence[ItemText], steps: Sequence[SummaryStep]) -> list[Block]:
    """Cut the history where a step ended; items that no step read come last, without a user summary."""
    ends = [step.items_read for step in steps]
    starts = [0, *ends]
    blocks = [
        Block(history[start:end], start + 1, step.text)
        for start, end, step in zip(starts, ends, steps, strict=False)
    ]  # fmt: skip
    return [*blocks, Block(history[starts[-1] :], starts[-1] + 1, "")] if starts[-1] < len(history) else blocks
