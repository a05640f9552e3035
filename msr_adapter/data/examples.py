"""Which rows of a log examples are made of: all of them, those of a split, or each user's most popular items."""

from dataclasses import dataclass

import numpy as np

from msr_adapter.arrays import Mask, Rows, first_at_least, user_blocks
from msr_adapter.data.log import Log, degree

POPULAR_ITEMS = 6
"""Items per user under `most-popular-last`, as in the published MicroLens code: 5 of history and the target."""

_BLOCK = 2**22


@dataclass(frozen=True)
class View:
    """A part of a log's rows in their order; a place is a number among them."""

    rows: Rows | None
    """Rows of the log, ascending; None = all of them."""
    first: Rows
    """First place of each user (users,)."""
    end: Rows
    """One past the last place of each user (users,)."""

    def __len__(self) -> int:
        return int(self.end[-1]) if len(self.end) else 0

    def row(self, place: Rows) -> Rows:
        """Return the rows of the log at ``place``."""
        return place if self.rows is None else self.rows[place]

    def before(self, log: Log, moment: int) -> Rows:
        """Return for each user the place one past the last row before ``moment``."""
        times = log.time if self.rows is None else log.time[self.rows]
        return first_at_least(times, self.first, self.end, moment)

    def last(self, log: Log, wanted: Mask) -> tuple[Rows, Rows]:
        """Return the users that have a ``wanted`` row (of the log) in the view, and the place of their last one."""
        places = np.flatnonzero(wanted if self.rows is None else wanted[self.rows])
        user = log.user[self.row(places)]
        is_last = np.append(user[1:] != user[:-1], True)[: len(user)]
        return user[is_last].astype(np.int64), places[is_last]


def view_of(log: Log, target: str, allowed: Mask | None = None) -> View:
    """Return the rows that are ``allowed`` (None = all) and that the protocol's ``target`` leaves."""
    if target == "most-popular-last":
        popular = most_popular(log)
        allowed = popular if allowed is None else popular & allowed
    if allowed is None:
        bounds = log.bounds()
        return View(None, bounds[:-1], bounds[1:])
    rows = np.flatnonzero(allowed)
    end = np.cumsum(degree(log.user[rows], len(log.users)))
    return View(rows, np.concatenate([[0], end[:-1]]), end)


def most_popular(log: Log, number: int = POPULAR_ITEMS) -> Mask:
    """Return the rows of each user's ``number`` most popular items in the whole log; the first id wins a tie.

    O(rows log rows) in blocks of users: the memory is one block and one byte a row.
    """
    popularity = degree(log.item, len(log.items))
    chosen = np.zeros(len(log.user), dtype=bool)
    for block in user_blocks(log.bounds(), _BLOCK):
        user, item = log.user[block], log.item[block]
        order = np.lexsort((item, -popularity[item], user))
        rank = np.arange(len(user)) - np.searchsorted(user, user)  # the order keeps each user's rows where they are
        chosen[block.start + order[rank < number]] = True
    return chosen
