"""Example users on the page itself, for paper and for browsers without scripts: the best, the typical, the worst."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from msr_adapter.arrays import Floats
from msr_adapter.evaluate.candidates import HeldOut
from msr_adapter.metrics import GroupMetrics
from msr_adapter.report.user_sample import Ranking
from msr_adapter.report.user_texts import ItemText, Readings, SummaryStep, clip


@dataclass(frozen=True)
class CandidateView:
    """One ranked candidate."""

    item: ItemText
    probability: float
    target: bool
    place: int
    """1 = best; tied candidates stand in the order of the table."""


@dataclass(frozen=True)
class Block:
    """Some items of the history, and the preference text once they were read."""

    items: Sequence[ItemText]
    first: int
    """Number of the first one, from 1."""
    preference: str

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
    """Expected rank of the true item."""
    size: int
    blocks: list[Block]
    candidates: list[CandidateView]
    hidden: int
    """Candidates not shown, for very long lists."""

    @property
    def place(self) -> str:
        """The rank as people write it: ``3``, or ``2.5`` where candidates tie."""
        return f"{self.rank:.0f}" if self.rank == int(self.rank) else f"{self.rank:.1f}"


def make_cases(
    chosen: Sequence[tuple[str, int]],
    ranking: Ranking,
    result: GroupMetrics,
    held_out: HeldOut,
    probabilities: Floats,
    readings: Readings,
) -> list[Case]:
    """Return the ``chosen`` (kind, user index), all of them in ``ranking``, with everything the page shows of them."""
    cases = []
    for kind, user in chosen:
        candidates = _candidates(user, ranking, held_out, probabilities, readings)
        example, size = int(held_out.example_ids[user]), int(held_out.offsets[user + 1] - held_out.offsets[user])
        history = [readings.items[item] for item in readings.histories[example]]
        blocks = _blocks(history, readings.steps.get(example, ()))
        name, rank = clip(str(held_out.user_ids[user]), 60), float(result.ranks[user])
        cases.append(Case(kind, name, rank, size, blocks, candidates, size - len(candidates)))
    return cases


def _candidates(
    user: int, ranking: Ranking, held_out: HeldOut, probabilities: Floats, readings: Readings
) -> list[CandidateView]:
    place = int(np.searchsorted(ranking.users, user))
    end = int(ranking.counts[: place + 1].sum())
    shown = slice(end - int(ranking.counts[place]), end)
    rows, places = ranking.rows[shown], ranking.places[shown]
    items, labels = held_out.items.take(rows).to_pylist(), held_out.labels
    return [
        CandidateView(readings.items[item], float(probabilities[row]), bool(labels[row] > 0), int(stands))
        for item, row, stands in zip(items, rows, places, strict=True)
    ]


def _blocks(history: Sequence[ItemText], steps: Sequence[SummaryStep]) -> list[Block]:
    """Cut the history where a step ended; items that no step read come last, without a text."""
    ends = [step.read for step in steps]
    starts = [0, *ends]
    blocks = [
        Block(history[start:end], start + 1, step.text)
        for start, end, step in zip(starts, ends, steps, strict=False)
    ]  # fmt: skip
    return [*blocks, Block(history[starts[-1] :], starts[-1] + 1, "")] if starts[-1] < len(history) else blocks
