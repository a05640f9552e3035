"""What a user has seen although no row of the log says so: what filters of rows and of users have dropped.

Such a pair is no history and no target, but it is never drawn as a negative of its user and never recommended. Pairs
whose item the catalogue lacks are left out: such an item can be neither.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from msr_adapter.arrays import Codes, Labels, Mask, Rows, contains, ranges, user_blocks
from msr_adapter.data.temporal import ERAS, LATEST

_BLOCK = 2**22
"""Rows of a log that are looked at together."""


@dataclass(frozen=True)
class SeenPairs:
    """Distinct (user, item) pairs beside those of a log, sorted by user, then item. Memory: 8 bytes a pair.

    Under a split by time, a pair that is a row too stands here where it was seen in an earlier era than the row's.
    """

    users: pl.Series
    """Ids, sorted: all users of the log, and those of whom nothing else is kept."""
    of_log: Codes
    """Code here of each user of the log."""
    user: Codes
    """Code of `users`."""
    item: Codes
    """Code of an item as in the log."""
    era: Labels | None = None
    """Era in which each pair was first known (`temporal`); None = no split by time."""

    def __len__(self) -> int:
        return len(self.user)

    def of(self, users: Codes, until: int = LATEST) -> tuple[Rows, Codes]:
        """Return how many items each of ``users`` (codes of the log) has, and the items, one user after the other.

        Only those known in the era ``until`` or before. O(users log pairs).
        """
        first, lengths = self._slices(users)
        rows = ranges(first, lengths)
        if self.era is None or until == LATEST:
            return lengths, self.item[rows]
        known = self.era[rows] <= until
        owner = np.repeat(np.arange(len(users)), lengths)[known]
        return np.bincount(owner, minlength=len(users)), self.item[rows[known]]

    def counts(self, users: Codes) -> Rows:
        """Return how many items each of ``users`` (codes of the log) has. O(users log pairs)."""
        return self._slices(users)[1]

    def _slices(self, users: Codes) -> tuple[Rows, Rows]:
        first, end = (np.searchsorted(self.user, self.of_log[users], side=side).astype(np.int64)
                      for side in ("left", "right"))  # fmt: skip
        return first, end - first


@dataclass(frozen=True)
class LogPairs:
    """The (user, item) pairs of a log, by user; its ids are sorted: code -> id."""

    users: pl.Series
    items: pl.Series
    user: Codes
    item: Codes
    bounds: Rows
    """Of each user's rows (users + 1,)."""
    era: Labels | None = None
    """Of each row, as in `SeenPairs`."""


def seen_beside(
    log: LogPairs, users: pl.Series, items: pl.Series, parts: Sequence[tuple[Codes, Codes, Labels | None]], *,
    may_be_rows: bool,
) -> SeenPairs | None:  # fmt: skip
    """Return which of the pairs in ``parts`` are no rows of ``log`` and have an item of it; None where there are none.

    ``parts`` are (users, items, eras or None) in codes of the sorted ids ``users`` and ``items``, which hold all ids
    of the log; of a pair that comes more than once, the earliest era counts.
    O(pairs log pairs), and O(rows log block) unless it is known that none of them is a row. Memory beside the result:
    16 bytes a pair, and one block.
    """
    known, of_log = _among(items, log.items), np.flatnonzero(_among(users, log.users))
    renumbered, size = (np.cumsum(known) - 1).astype(np.int32), len(log.items)
    pairs = np.empty(sum(len(item) for _, item, _ in parts), np.int64)
    timed = any(era is not None for *_, era in parts)
    width = ERAS if timed else 1  # the era is part of the key that is sorted: pairs and eras need no order beside it
    end = 0
    for user, item, era in parts:
        for begin in range(0, len(item), _BLOCK):
            block = slice(begin, begin + _BLOCK)
            there = known[item[block]]
            keys = user[block][there].astype(np.int64) * size + renumbered[item[block][there]]
            if timed:
                keys = keys * width + (LATEST if era is None else era[block][there])
            pairs[end : end + len(keys)] = keys
            end += len(keys)
    pairs = pairs[:end]
    pairs.sort()
    eras = (pairs % width).astype(np.int8) if timed else None
    pairs = pairs // width if timed else pairs
    wanted = np.concatenate([[True], pairs[1:] != pairs[:-1]])[: len(pairs)]
    if may_be_rows:
        wanted &= ~_are_rows(log, of_log, pairs, eras)
    pairs = pairs[wanted]
    if not len(pairs):
        return None
    user, item = (pairs // size).astype(np.int32), (pairs % size).astype(np.int32)
    return SeenPairs(users, of_log.astype(np.int32), user, item, None if eras is None else eras[wanted])


def _are_rows(log: LogPairs, of_log: Rows, pairs: Rows, eras: Labels | None) -> Mask:
    """Return which ``pairs``, sorted keys of a user and an item, the log has as rows of no later era."""
    found, size = np.zeros(len(pairs), dtype=bool), len(log.items)
    for block in user_blocks(log.bounds, _BLOCK):
        user = of_log[log.user[block]]
        rows = user * size + log.item[block]
        mine = slice(*np.searchsorted(pairs, [user[0] * size, (user[-1] + 1) * size]).tolist())
        if eras is None or log.era is None:
            found[mine] = contains(np.sort(rows), pairs[mine])
            continue
        for era in range(ERAS):
            found[mine] |= contains(np.sort(rows[log.era[block] <= era]), pairs[mine]) & (eras[mine] == era)
    return found


def _among(ids: pl.Series, some: pl.Series) -> Mask:
    # Imploded: Polars deprecates a plain series of the same type here, which could mean one value for each row.
    return np.asarray(ids.is_in(some.implode()).to_numpy(), dtype=bool)
