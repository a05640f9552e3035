"""Heuristics of the log alone: how many users interacted with an item, and how long ago the last one did."""

from dataclasses import dataclass

import numpy as np

from msr_adapter.arrays import Codes, Floats, Mask, Rows

_TIMESTAMPS_FROM = 10**11
"""Milliseconds from 1970 to March 1973. Nearer to 1970, times are positions or row numbers: no log is that old."""
_LARGEST = 2**62
_CHUNK = 2**22


@dataclass(frozen=True)
class TrainingLog:
    """The interactions that training may know of, in any order."""

    items: Codes
    """(rows,)"""
    times: Rows
    """Milliseconds (rows,)."""
    n_items: int
    """Number of items of the catalogue."""
    known: Mask | None = None
    """Which rows (rows,) count; None: all."""


def has_timestamps(times: Rows) -> bool:
    """Tell whether times (rows,) are moments that two users share, not positions in a list. O(rows)."""
    return bool(len(times)) and max(int(times.max()), -int(times.min())) >= _TIMESTAMPS_FROM


def popularity(items: Codes, counts: Rows) -> Floats:
    """Score candidates (n,) by ``counts`` (items,): how often training saw the item. O(n)."""
    return counts[items].astype(np.float64)


def recency(items: Codes, times: Rows, log: TrainingLog, chunk: int = _CHUNK) -> Floats:
    """Score candidates (n,) by minus the milliseconds since training last saw the item, before ``times`` (n,).

    Only interactions *strictly earlier* than the moment at which the pair is judged count, so neither the target nor
    anything later leaks in, whatever the split. An item not seen until then scores below every item that was.
    O((rows + n) log rows) time; memory is bounded by ``chunk`` rows of the log, which never change the scores.
    """
    if not len(log.items) or not len(items):
        return np.zeros(len(items))
    oldest, latest = int(log.times.min()), max(int(log.times.max()), int(times.max()))
    # A key is the item, then the time: coarsened only where 62 bits cannot hold milliseconds for so many items.
    unit = -(-(latest - oldest + 2) * log.n_items // _LARGEST)
    width = (latest - oldest + 2) // unit + 2
    wanted = items.astype(np.int64) * width + (np.maximum(times, oldest) - oldest) // unit
    order = np.argsort(wanted)  # searches in order are several times faster: each begins where the last one ended
    wanted, last = wanted[order], np.full(len(items), -1, dtype=np.int64)
    for begin in range(0, len(log.items), chunk):
        rows = slice(begin, begin + chunk)
        keys = log.items[rows].astype(np.int64) * width + (log.times[rows] - oldest) // unit
        ordered = np.sort(keys if log.known is None else keys[log.known[rows]])
        # The largest key below each wanted one; -1 where there is none.
        below = np.concatenate([[-1], ordered])[np.searchsorted(ordered, wanted, side="left")]
        np.maximum(last, below, out=last)
    seen = (last >= 0) & (last // width == wanted // width)
    scores = np.empty(len(items))
    scores[order] = np.where(seen, last - wanted, -2 * width).astype(np.float64) * unit
    return scores
