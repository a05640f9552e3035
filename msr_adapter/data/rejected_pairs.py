"""What users said no to, and until when: the stretches of time in which a user's last word on an item is negative."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from msr_adapter.arrays import Codes, Labels, Mask, Rows, contains, ranges
from msr_adapter.data.sorted_ids import places_of_ids
from msr_adapter.data.temporal import ERAS, Moments, eras

FOREVER = np.iinfo(np.int64).max
"""The end of a stretch after which the user said nothing more of the item."""


@dataclass(frozen=True)
class RejectedPairs:
    """Stretches of time of (user, item), sorted by user, item and time; those of a pair are disjoint.

    An item is rejected at a moment that is after `begin` and not after `end`: of the moment of a target itself, nothing
    is known.
    """

    users: pl.Series
    """Ids, sorted: code -> id."""
    items: pl.Series
    user: Codes
    item: Codes
    begin: Rows
    """Time of the negative word."""
    end: Rows
    """Time of the next word that is not; `FOREVER` = there is none."""
    began: Labels
    """Era of `begin` (`temporal`); 0 without a split by time."""
    ended: Labels
    """Era of `end`; `ERAS` = there is none."""

    def __len__(self) -> int:
        return len(self.user)

    def at(self, user: Codes, item: Codes, time: Rows) -> Mask:
        """Return which pairs (n,) are rejected at their ``time``. O(n log stretches)."""
        found = np.zeros(len(user), dtype=bool)
        stretches = self._keys(self.user, self.item)
        pairs = np.unique(stretches)
        asked = self._keys(user, item)
        mine = np.flatnonzero(contains(pairs, asked))
        moments, width = np.unique(self.begin), len(np.unique(self.begin)) + 1
        # By pair, then by the number of distinct moments before: one sorted key for both.
        known = np.searchsorted(pairs, stretches) * width + np.searchsorted(moments, self.begin)
        wanted = np.searchsorted(pairs, asked[mine]) * width + np.searchsorted(moments, time[mine])
        place = np.searchsorted(known, wanted) - 1
        there = (place >= 0) & (stretches[np.maximum(place, 0)] == asked[mine])
        found[mine] = there & (self.end[np.maximum(place, 0)] >= time[mine])
        return found

    def of(self, users: Codes, times: Rows) -> tuple[Rows, Codes]:
        """Return (place in ``users``, item) of what each rejects at the time, by user, what was rejected last first."""
        low, high = (np.searchsorted(self.user, users, side=side) for side in ("left", "right"))
        rows, owner = ranges(low, high - low), np.repeat(np.arange(len(users)), high - low)
        now = (self.begin[rows] < times[owner]) & (self.end[rows] >= times[owner])
        rows, owner = rows[now], owner[now]
        order = np.lexsort((self.item[rows], -self.begin[rows], owner))
        return owner[order], self.item[rows[order]]

    def at_end_of_eras(self, user: Codes, item: Codes, era: Labels | None) -> Mask:
        """Return which pairs (n,) are rejected when their ``era`` ends; None = when the log does."""
        keys, found = self._keys(self.user, self.item), np.zeros(len(user), dtype=bool)
        asked = self._keys(user, item)
        for code in range(ERAS) if era is not None else [0]:
            now = np.unique(keys[(self.began <= code) & (self.ended > code)])
            found |= contains(now, asked) if era is None else contains(now, asked) & (era == code)
        return found

    def among(self, users: pl.Series, items: pl.Series) -> "RejectedPairs":
        """Return those of some users and items (sorted ids), in their codes."""
        user, item = places_of_ids(users, self.users)[self.user], places_of_ids(items, self.items)[self.item]
        kept = (user >= 0) & (item >= 0)
        # Sorted ids have sorted codes, so that the order stays.
        return RejectedPairs(users, items, user[kept], item[kept], self.begin[kept], self.end[kept],
                             self.began[kept], self.ended[kept])  # fmt: skip

    def _keys(self, user: Codes, item: Codes) -> Rows:
        return user.astype(np.int64) * len(self.items) + item


def rejected_pairs(
    ids: Sequence[pl.Series], user: Codes, item: Codes, time: Rows, negative: Mask, moments: Moments | None
) -> RejectedPairs | None:
    """Return what the rows (n,) of a log, in the order of the file, say of ``negative`` words; None where none is.

    ``ids`` are those of users and items. Of equal times, the order of the file decides. O(n log n) of those pairs.
    """
    if not negative.any():
        return None
    keys = user.astype(np.int64) * len(ids[1]) + item
    rows = np.flatnonzero(contains(np.unique(keys[negative]), keys))
    rows = rows[np.lexsort((time[rows], keys[rows]))]
    keys, no = keys[rows], negative[rows]
    fresh = np.concatenate([[True], keys[1:] != keys[:-1]])
    began = no & (fresh | ~np.concatenate([[False], no[:-1]]))
    starts, revoked = np.flatnonzero(began), np.flatnonzero(~no)
    after = np.append(revoked, len(rows))[np.searchsorted(revoked, starts)]
    there = (after < len(rows)) & (np.append(keys, -1)[after] == keys[starts])
    begin = time[rows[starts]].astype(np.int64)
    end = np.where(there, time[rows[np.minimum(after, len(rows) - 1)]], FOREVER)
    kept = begin < end
    starts, begin, end = rows[starts[kept]], begin[kept], end[kept]
    first = np.zeros(len(begin), np.int8) if moments is None else eras(begin, moments)
    last = np.zeros(len(end), np.int8) if moments is None else eras(end, moments)
    last[end == FOREVER] = ERAS
    return RejectedPairs(ids[0], ids[1], user[starts], item[starts], begin, end, first, last)
