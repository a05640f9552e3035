"""Groups of candidates: what makes them valid, and where a group's only positive stands."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from msr_adapter.arrays import Integers

Scores = npt.NDArray[np.floating[Any]]

CHUNK_SCORES = 2**16
"""Scores per chunk: the temporaries of a chunk stay in the processor's cache."""


@dataclass(frozen=True)
class Groups:
    """Validated groups of scored candidates, each with at least one positive."""

    scores: Scores
    """(n,)"""
    offsets: Integers
    """(users + 1,): group ``u`` is the slice ``offsets[u]:offsets[u + 1]``."""
    positives: Integers
    """(positives,): their rows, ascending; with one positive a group, (users,)."""
    counts: Integers
    """Positives of each group (users,)."""

    @property
    def users(self) -> int:
        """Number of groups."""
        return len(self.offsets) - 1

    @property
    def sizes(self) -> Integers:
        """Candidates of each group (users,)."""
        return np.diff(self.offsets)

    @property
    def single(self) -> bool:
        """Whether every group has exactly one positive."""
        return len(self.positives) == self.users

    @property
    def owners(self) -> Integers:
        """The group of each positive (positives,)."""
        return np.arange(self.users) if self.single else np.repeat(np.arange(self.users), self.counts)

    @property
    def best(self) -> Integers:
        """Row of each group's best-scored positive (users,); the first of equals."""
        if self.single:
            return self.positives
        order = np.lexsort((self.positives, -self.scores[self.positives], self.owners))
        starts = np.concatenate([[0], np.cumsum(self.counts)[:-1]])
        return np.asarray(self.positives[order[starts]])


@dataclass(frozen=True)
class Standing:
    """Where one positive of each group stands."""

    greater: Integers
    """Candidates scored above it (users,)."""
    equal: Integers
    """Negatives tied with it (users,)."""
    sizes: Integers
    """Candidates of its group (users,)."""


def make_groups(scores: npt.ArrayLike, labels: npt.ArrayLike, offsets: npt.ArrayLike) -> Groups:
    """Check and bundle scores (n,), labels (n,) of 0 and 1, and offsets (users + 1,); scores are not copied.

    Raises ValueError, with counts, on arrays that do not fit together, empty groups, NaN scores, labels other than
    0 and 1, and groups without a positive. O(n) time, O(n / 8) memory.
    """
    values, bounds, marks = _as_scores(scores), np.asarray(offsets, dtype=np.int64), np.asarray(labels)
    _check_offsets(bounds, len(values))
    if marks.shape != values.shape:
        raise ValueError(f"{values.shape[0]} scores but labels of shape {marks.shape}")
    if np.isnan(values.min()):  # the minimum propagates NaN and needs no temporary array
        raise ValueError(f"{int(np.isnan(values).sum())} of {len(values)} scores are NaN")
    require_binary(marks)
    return Groups(values, bounds, *_find_positives(marks, bounds))


def require_binary(labels: npt.NDArray[Any]) -> None:
    """Raise ValueError if any of ``labels`` (n,) is neither 0 nor 1, such as 0.5 or NaN."""
    # Of whole numbers the ends tell all, without a temporary array; fractions and NaN lie between.
    whole = np.issubdtype(labels.dtype, np.integer) or labels.dtype == bool
    if not ((labels.min() >= 0 and labels.max() <= 1) if whole else np.isin(labels, (0, 1)).all()):
        raise ValueError("labels other than 0 and 1")


def _as_scores(scores: npt.ArrayLike) -> Scores:
    values = np.asarray(scores)
    if not np.issubdtype(values.dtype, np.floating):
        values = values.astype(np.float64)
    if values.ndim != 1:
        raise ValueError(f"scores have shape {values.shape}; a flat array is needed")
    return values


def _check_offsets(offsets: Integers, scores: int) -> None:
    if offsets.ndim != 1 or len(offsets) < 2:
        raise ValueError("no groups: offsets need at least two entries")
    if offsets[0] != 0 or offsets[-1] != scores:
        raise ValueError(f"offsets run from {offsets[0]} to {offsets[-1]}, but there are {scores} scores")
    if empty := int(np.count_nonzero(np.diff(offsets) <= 0)):
        raise ValueError(f"{empty} groups are empty")


def _find_positives(labels: npt.NDArray[Any], offsets: Integers) -> tuple[Integers, Integers]:
    positives = np.flatnonzero(labels).astype(np.int64, copy=False)
    groups = len(offsets) - 1
    if len(positives) == groups and np.all((offsets[:-1] <= positives) & (positives < offsets[1:])):
        return positives, np.ones(groups, np.int64)
    counts = np.bincount(np.searchsorted(offsets, positives, side="right") - 1, minlength=groups)
    if none := int(np.count_nonzero(counts == 0)):
        raise ValueError(f"{none} of {groups} groups have no positive")
    return positives, counts


def chunks(offsets: Integers) -> Iterator[tuple[int, int]]:
    """Yield ranges of groups (first, last) with about `CHUNK_SCORES` scores each; a larger group is a chunk alone."""
    users, first = len(offsets) - 1, 0
    while first < users:
        limit = int(offsets[first]) + CHUNK_SCORES
        last = max(first + 1, int(np.searchsorted(offsets, limit, side="right")) - 1)
        yield first, last
        first = last


def count_above(groups: Groups) -> Standing:
    """Count the candidates scored above each group's only positive and the negatives tied with it.

    These two counts decide every metric of a group with one positive. O(n) time; beside them, memory is one chunk.
    """
    greater, equal = np.empty(groups.users, np.int64), np.empty(groups.users, np.int64)
    for first, last in chunks(groups.offsets):
        greater[first:last], equal[first:last] = _count_chunk(groups, first, last)
    return Standing(greater, equal, groups.sizes)


def _count_chunk(groups: Groups, first: int, last: int) -> tuple[Integers, Integers]:
    bounds = groups.offsets[first : last + 1]
    scores = groups.scores[bounds[0] : bounds[-1]]
    target = np.repeat(groups.scores[groups.positives[first:last]], np.diff(bounds))
    starts = bounds[:-1] - bounds[0]
    # `reduceat` sums each slice from one start to the next; of an empty one it would return a row: no group is empty.
    greater = np.add.reduceat(scores > target, starts, dtype=np.int64)
    equal = np.add.reduceat(scores == target, starts, dtype=np.int64)
    return greater, equal - 1  # the positive equals itself
