"""Shortcuts that need the log alone: how often an item was taken, and how lately."""

import numpy as np

from msr_adapter.arrays import Codes, Floats, Mask, Rows

_CLOCK_FROM = 10**11
"""Milliseconds from 1970 to March 1973. Nearer to 1970, times are positions or row numbers: no log is that old."""
_LARGEST = 2**62
_CHUNK = 2**22
"""Rows of the log per chunk: sets the memory, never the scores."""


def has_clock(times: Rows) -> bool:
    """Tell whether times (rows,) are moments that two users share, not positions in a list. O(rows)."""
    return bool(len(times)) and max(int(times.max()), -int(times.min())) >= _CLOCK_FROM


def popularity(items: Codes, counts: Rows) -> Floats:
    """Score candidates (n,) by ``counts`` (items,): how often training saw the item. O(n)."""
    return counts[items].astype(np.float64)


def recency(
    items: Codes, times: Rows, log_items: Codes, log_times: Rows, n_items: int, known: Mask | None = None
) -> Floats:
    """Score candidates (n,) by minus the milliseconds since training last saw the item, before ``times`` (n,).

    ``log_items`` and ``log_times`` (rows,) are the interactions that training may know of, in any order; or those of
    them that ``known`` (rows,) marks. Only the ones *strictly earlier* than the moment at which the pair is judged
    count, so neither the target nor anything later leaks in, whatever the split. An item not seen until then scores
    below every item that was. O((rows + n) log rows) time, memory bounded by one chunk of the log.
    """
    if not len(log_items) or not len(items):
        return np.zeros(len(items))
    oldest, latest = int(log_times.min()), max(int(log_times.max()), int(times.max()))
    # A key is the item, then the time: coarsened only where 62 bits cannot hold milliseconds for so many items.
    unit = -(-(latest - oldest + 2) * n_items // _LARGEST)
    width = (latest - oldest + 2) // unit + 2
    wanted = items.astype(np.int64) * width + (np.maximum(times, oldest) - oldest) // unit
    order = np.argsort(wanted)  # searches in order are several times faster: each begins where the last one ended
    wanted, last = wanted[order], np.full(len(items), -1, dtype=np.int64)
    for begin in range(0, len(log_items), _CHUNK):
        rows = slice(begin, begin + _CHUNK)
        keys = log_items[rows].astype(np.int64) * width + (log_times[rows] - oldest) // unit
        np.maximum(last, _last_below(np.sort(keys if known is None else keys[known[rows]]), wanted), out=last)
    seen = (last >= 0) & (last // width == wanted // width)
    scores = np.empty(len(items))
    scores[order] = np.where(seen, last - wanted, -2 * width).astype(np.float64) * unit
    return scores


def _last_below(ordered: Rows, wanted: Rows) -> Rows:
    """Return the largest of the sorted keys below each wanted one, -1 where there is none."""
    place = np.searchsorted(ordered, wanted, side="left")
    return np.concatenate([[-1], ordered])[place]
