"""The rows of a log as choices: what a user clicked in one impression is one."""

from dataclasses import dataclass

import numpy as np

from msr_adapter.arrays import Codes, Mask, Rows


@dataclass(frozen=True)
class Choices:
    """The rows of a view as choices, which are whole impressions: a row without one is a choice by itself.

    Impressions whose clicks lie between each other's are one choice, so that its rows stand together.
    """

    start: Rows
    """First place of each place's choice (places,)."""
    number: Rows
    """Number of each place's choice (places,)."""
    last: Rows
    """Last place of each choice (choices,)."""

    def back(self, end: Rows, steps: int) -> Rows:
        """Return the place of the ``steps``-th last choice before the places ``end``: its last one; -1 = there is none.

        Of the last choice (1), what stands before ``end`` alone counts.
        """
        before = np.maximum(end - 1, 0)
        if steps == 1:
            return end - 1
        wanted = self.number[before] - (steps - 1)
        found: Rows = np.where((end > 0) & (wanted >= 0), self.last[np.maximum(wanted, 0)], -1)
        return found


@dataclass(frozen=True)
class TargetRows:
    """The rows of a view that can be targets, where not all can: each is a choice by itself, or with its impression."""

    start: Rows
    """First place of each place's choice (places,), as of `Choices`."""
    places: Rows
    """Those that can be targets, ascending: of a choice the last."""

    @classmethod
    def of(cls, target: Mask, choices: Choices | None = None) -> "TargetRows":
        """Return those of a view with these rows; without ``choices``, each row is one."""
        places = np.flatnonzero(target)
        if choices is None:
            return cls(np.arange(len(target)), places)
        number = choices.number[places]
        return cls(choices.start, places[np.append(number[1:] != number[:-1], True)[: len(places)]])

    def back(self, end: Rows, steps: int) -> Rows:
        """Return the place of the ``steps``-th last target before the places ``end``; -1 = there is none.

        It may lie before the user's first place, as that of `View.back` may.
        """
        found = np.searchsorted(self.places, end) - steps
        return np.where(found >= 0, self.places[np.maximum(found, 0)] if len(self.places) else -1, -1)


def choices_of(user: Codes, group: Rows) -> Choices:
    """Return the choices of rows (n,) that are sorted by user; a row of group -1 is in no impression. O(n log n)."""
    rows = np.arange(len(user))
    order = np.lexsort((group, user))  # stable: the rows of an impression stay in their order
    same = (np.diff(user[order]) == 0) & (np.diff(group[order]) == 0) & (group[order][1:] >= 0)
    ends = np.flatnonzero(np.append(~same, True)[: len(order)])
    lengths = np.diff(ends, prepend=-1)
    last_of = np.empty(len(user), dtype=np.int64)
    last_of[order] = np.repeat(order[ends], lengths)
    reach = np.maximum.accumulate(last_of) if len(user) else last_of
    fresh = np.ones(len(user), dtype=bool)
    fresh[1:] = reach[:-1] < rows[1:]
    starts = np.flatnonzero(fresh)
    number = np.cumsum(fresh) - 1
    return Choices(starts[number], number, np.append(starts[1:], len(user))[: len(starts)] - 1)


@dataclass(frozen=True)
class BesideTargets:
    """The rows of the log that were clicked in the impression of each example's target, before it."""

    bounds: Rows
    """(examples + 1,)"""
    rows: Rows

    @property
    def counts(self) -> Rows:
        """How many there are of each example (examples,)."""
        return np.diff(self.bounds)

    def keep(self, kept: Mask) -> "BesideTargets":
        """Return those of the examples that are ``kept``."""
        counts = self.counts
        lengths = counts[kept]
        return BesideTargets(np.concatenate([[0], np.cumsum(lengths)]), self.rows[np.repeat(kept, counts)])

    def of(self, part: slice) -> tuple[Rows, Rows]:
        """Return (number of the example within the slice, row) of those of a slice of examples."""
        begin, end = self.bounds[part.start], self.bounds[part.stop]
        return np.repeat(np.arange(part.stop - part.start), self.counts[part]), self.rows[begin:end]
