"""Shortcuts that need the log alone: how often an item was taken, and how lately."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.integer[Any]]
Rows = NDArray[np.int64]
Floats = NDArray[np.float64]

_CLOCK_FROM = 10**11
"""Milliseconds since 1970 of March 1973. Below it, times are positions or row numbers: no log is that old."""
_LARGEST = 2**62


def has_clock(times: Rows) -> bool:
    """Tell whether times (rows,) are moments that two users share, not positions in a list. O(rows)."""
    return bool(len(times)) and int(times.max()) >= _CLOCK_FROM


def popularity(items: Codes, counts: Rows) -> Floats:
    """Score candidates (n,) by ``counts`` (items,): how often training saw the item. O(n)."""
    return counts[items].astype(np.float64)


def recency(items: Codes, times: Rows, log_items: Codes, log_times: Rows, n_items: int) -> Floats:
    """Score candidates (n,) by minus the milliseconds since training last saw the item, before ``times`` (n,).

    ``log_items`` and ``log_times`` (rows,) are the interactions that training may know of, in any order. Only those
    *strictly earlier* than the moment at which the pair is judged count, so neither the target nor anything later leaks
    in, whatever the split. An item not seen until then scores below every item that was. O((rows + n) log rows) time,
    16 bytes per row.
    """
    if not len(log_items) or not len(items):
        return np.zeros(len(items))
    oldest, latest = int(log_times.min()), max(int(log_times.max()), int(times.max()))
    # A key is the item, then the time: coarsened only where 62 bits cannot hold milliseconds for so many items.
    span = latest - oldest + 2
    unit = -(-span * n_items // _LARGEST)
    width = span // unit + 2
    keys = np.sort(_key(log_items, log_times, oldest, unit, width))
    wanted = _key(items, np.maximum(times, oldest), oldest, unit, width)
    place = np.searchsorted(keys, wanted, side="left") - 1
    last = keys[np.maximum(place, 0)]
    seen = (place >= 0) & (last // width == items)
    age = (wanted - last) * unit
    return -np.where(seen, age, span * 2).astype(np.float64)


def _key(items: Codes, times: Rows, oldest: int, unit: int, width: int) -> Rows:
    return items.astype(np.int64) * width + (times - oldest) // unit
