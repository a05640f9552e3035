"""Small vectorised steps over sorted arrays and ranges of rows; none of them loops over users."""

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]


def ranges(start: NDArray[np.integer], length: NDArray[np.integer]) -> Rows:
    """Return start[0], start[0] + 1, ... (length[0] of them), start[1], ...: all ranges one after the other."""
    before = np.cumsum(length) - length
    rows: Rows = np.arange(int(length.sum())) + np.repeat(start - before, length)
    return rows


def contains(ordered: Rows, values: Rows) -> Mask:
    """Return which values are in the sorted array. O(values log ordered)."""
    if not len(ordered):
        return np.zeros(len(values), dtype=bool)
    place = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
    found: Mask = ordered[place] == values
    return found


def first_at_least(times: Rows, low: Rows, high: Rows, wanted: Rows | int) -> Rows:
    """Return for each range low..high-1 of ascending ``times`` the first place whose time is not before ``wanted``.

    `high` where there is none. A binary search of all ranges at once: O(ranges log longest), memory O(ranges).
    """
    low, high = low.copy(), high.copy()
    while (open_ := low < high).any():
        middle = (low + high) // 2
        before = open_ & (times[np.minimum(middle, len(times) - 1)] < wanted)
        low = np.where(before, middle + 1, low)
        high = np.where(open_ & ~before, middle, high)
    return low
