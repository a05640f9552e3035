"""Each user's most popular items: what the target `most-popular-last` is taken from."""

import numpy as np

from msr_adapter.arrays import Mask, user_blocks
from msr_adapter.data.interaction_log import Log, degree

POPULAR_ITEMS = 6
"""Items per user under `most-popular-last`, as in the published MicroLens code: 5 of history and the target."""

_BLOCK = 2**22
"""Rows that are sorted at a time."""


def most_popular(
    log: Log, number: int = POPULAR_ITEMS, block_rows: int = _BLOCK, *, counted: Mask | None = None
) -> Mask:
    """Return the rows of each user's ``number`` most popular items in the whole log; the first id wins a tie.

    Popularity is that of the ``counted`` rows (None: of all). O(rows log rows) in blocks of users: the memory is one
    block and one byte a row.
    """
    popularity = degree(log.counted(counted)[1], len(log.items))
    chosen = np.zeros(len(log.user), dtype=bool)
    for block in user_blocks(log.bounds(), block_rows):
        user, item = log.user[block], log.item[block]
        order = np.lexsort((item, -popularity[item], user))
        # The order keeps each user's rows where they are, and an item's rows beside each other: those count once.
        repeated = np.concatenate([[False], (np.diff(item[order]) == 0) & (np.diff(user) == 0)])
        before = np.cumsum(~repeated) - 1
        rank = before - before[np.searchsorted(user, user)]
        chosen[block.start + order[rank < number]] = True
    return chosen
