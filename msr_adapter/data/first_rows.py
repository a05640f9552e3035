"""Which of the rows that repeat a pair stays: the first, but what was bought rather than the look at it before."""

import numpy as np

from msr_adapter.arrays import Codes, Rows


def first_rows(keys: Rows, times: Codes | None = None, rank: Codes | None = None) -> Rows:
    """Return a row of every key (and of every time, if ``times`` are given): the first of the lowest rank, else of all.

    What was bought counts as that, not as the look at it before, which would give the target away. O(n log n).
    """
    order = np.lexsort([column for column in (rank, times, keys) if column is not None])  # stable
    fresh = np.diff(keys[order]) != 0
    if times is not None:
        fresh |= np.diff(times[order]) != 0
    found: Rows = order[np.concatenate([[True], fresh])[: len(order)]]
    return found
