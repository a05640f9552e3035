"""Names of NumPy array types; small vectorised steps over sorted arrays and ranges of rows, none a loop over users."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
Vectors = NDArray[np.float32]  # embeddings, one a row
Mask = NDArray[np.bool_]
Labels = NDArray[np.int8]  # 1 for a positive, 0 for a negative; or the number of a split
Rows = Integers  # row numbers of a table, or offsets into it
Codes = NDArray[np.integer]  # numbers that stand for ids (users, items); int32 where memory counts


def ranges(start: NDArray[np.integer], length: NDArray[np.integer]) -> Rows:
    """Return start[0], start[0] + 1, ... (length[0] of them), start[1], ...: all ranges one after the other."""
    before = np.cumsum(length) - length
    rows: Rows = np.arange(int(length.sum())) + np.repeat(start - before, length)
    return rows


def user_blocks(bounds: Rows, rows: int) -> Iterator[slice]:
    """Yield slices of a log that hold whole users and about ``rows`` rows each (a longer user alone makes one)."""
    cuts = bounds[np.searchsorted(bounds, np.arange(rows, int(bounds[-1]), rows))]
    edges = np.unique(np.concatenate([[0], cuts, bounds[-1:]])).tolist()
    yield from map(slice, edges[:-1], edges[1:])


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
        # A range that is done may point past the end; what is read there is not looked at.
        before = open_ & (times[np.minimum(middle, len(times) - 1)] < wanted)
        low = np.where(before, middle + 1, low)
        high = np.where(open_ & ~before, middle, high)
    return low
