"""Distinct items that the user has not seen, for the slots of a chunk of lists: reject and retry, then finish exactly.

Accepting draws one by one unless the list has the item already is sampling without replacement, with the weights
renormalised after each pick. The exact finish draws the rest from the same distribution: the items with the smallest
exponential variates of rate weight (Efraimidis and Spirakis, 2006), or with the smallest random keys when all weigh the
same.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from msr_adapter.arrays import Floats, Mask, Rows, contains, ranges
from msr_adapter.data.negatives.pools import Pool, SeenItems
from msr_adapter.seeded_random import Bits, below, stream

ROUNDS = 24
"""Rounds of reject-and-retry before the few slots left are finished exactly."""
_PAIRS = 2**22
"""Pairs of a list and an item that the exact finish looks at together: bounds its memory, never changes the draw."""


@dataclass(frozen=True)
class Slots:
    """The negatives of a chunk of lists, one after the other."""

    list_: Rows
    """Number of the list within the chunk, ascending."""
    number: Rows
    """Number of the slot within its list."""
    chosen: Rows
    """Item, or -1 while empty. Filled in place."""

    def empty(self, wanted: Mask) -> Rows:
        """Return the ``wanted`` slots that are empty."""
        return np.flatnonzero(wanted & (self.chosen < 0))


def fill(slots: Slots, wanted: Mask, keys: Bits, pool: Pool, seen: SeenItems, rounds: int = ROUNDS) -> None:
    """Fill the ``wanted`` empty slots from the pool; those for which it has too few items stay empty.

    A slot's draws depend on the key of its list, its number and the slots of the list filled before, on nothing else.
    """
    wanted = wanted & (pool.high > pool.low)[slots.list_]
    for attempt in range(rounds):
        empty = slots.empty(wanted)
        if not len(empty):
            return
        # Number 0 of each key's stream is the place of the target (`with_targets`).
        bits = stream(keys[slots.list_[empty]], (attempt << 32) + slots.number[empty] + 1)
        drawn = _draw(bits, pool, slots.list_[empty])
        drawn[seen.by(slots.list_[empty], drawn)] = -1
        _accept(slots, empty, drawn, seen.n_items)
    _finish(slots, slots.empty(wanted), keys, pool, seen)


def _draw(bits: Bits, pool: Pool, list_: Rows) -> Rows:
    low = pool.low[list_]
    if pool.cumulative is None:
        place = low + below(bits, pool.high[list_] - low)
    else:
        # A float holds 53 bits exactly, so the share is below 1; the product may still round up to the whole sum.
        share = (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
        begin = np.where(low > 0, pool.cumulative[low - 1], 0.0)
        end = pool.cumulative[pool.high[list_] - 1]
        place = np.searchsorted(pool.cumulative, begin + share * (end - begin), side="right")
        place = np.clip(place, low, pool.high[list_] - 1)
    drawn: Rows = pool.items[place].astype(np.int64)
    return drawn


def _accept(slots: Slots, empty: Rows, drawn: Rows, n_items: int) -> None:
    """Put draws into their empty slots unless the list has the item already; the lowest slot wins a tie."""
    # Only the lists that still have empty slots are looked at: after a few rounds they are a small part of the chunk.
    unfinished = np.zeros(slots.list_[-1] + 1, dtype=bool)
    unfinished[slots.list_[empty]] = True
    earlier = np.flatnonzero((slots.chosen >= 0) & unfinished[slots.list_])
    new, drawn = empty[drawn >= 0], drawn[drawn >= 0]
    items = np.concatenate([slots.chosen[earlier], drawn])
    # What is chosen stands before what is drawn, so the first of equals is never a repeated draw.
    _, first = np.unique(slots.list_[np.concatenate([earlier, new])] * n_items + items, return_index=True)
    fresh = first[first >= len(earlier)] - len(earlier)
    slots.chosen[new[fresh]] = drawn[fresh]


def _finish(slots: Slots, empty: Rows, keys: Bits, pool: Pool, seen: SeenItems) -> None:
    """Fill what is left from the free items of each pool, as many lists at a time as `_PAIRS` allows."""
    lists, needed = np.unique(slots.list_[empty], return_counts=True)
    width = pool.high[lists] - pool.low[lists]
    cuts = np.searchsorted(np.cumsum(width) // _PAIRS, np.arange(int(width.sum()) // _PAIRS + 2))
    first = np.cumsum(needed) - needed
    for begin, end in pairwise(cuts.tolist()):
        if begin < end:
            last = first[end - 1] + needed[end - 1]
            _finish_some(slots, empty[first[begin] : last], lists[begin:end], keys, pool, seen)


def _finish_some(slots: Slots, empty: Rows, lists: Rows, keys: Bits, pool: Pool, seen: SeenItems) -> None:
    width = pool.high[lists] - pool.low[lists]
    places, list_ = ranges(pool.low[lists], width), np.repeat(lists, width)
    item = pool.items[places].astype(np.int64)
    inside = np.flatnonzero(np.isin(slots.list_, lists) & (slots.chosen >= 0))
    used = np.sort(slots.list_[inside] * seen.n_items + slots.chosen[inside])
    free = ~seen.by(list_, item) & ~contains(used, list_ * seen.n_items + item)
    places, list_, item = places[free], list_[free], item[free]
    bits = stream(keys[list_], (ROUNDS << 32) + seen.number(item))  # numbers that no round has used
    order = np.lexsort((bits if pool.cumulative is None else _variates(bits, pool, places), list_))
    list_, item = list_[order], item[order]
    place = np.arange(len(list_)) - np.searchsorted(list_, list_)
    slot_place = np.arange(len(empty)) - np.searchsorted(slots.list_[empty], slots.list_[empty])
    number = int(max(place.max(initial=-1), slot_place.max(initial=-1))) + 1
    _, drawn, slot = np.intersect1d(
        list_ * number + place, slots.list_[empty] * number + slot_place, assume_unique=True, return_indices=True
    )
    slots.chosen[empty[slot]] = item[drawn]


def _variates(bits: Bits, pool: Pool, places: Rows) -> Floats:
    assert pool.cumulative is not None
    weight = np.diff(pool.cumulative, prepend=0.0)[places]
    # Half a step above zero, whose logarithm is infinite.
    variates: Floats = -np.log(((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53) / weight
    return variates
