"""The nearest of many vectors: exactly, by a matrix product block by block, or through faiss, which may miss some."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from msr_adapter.arrays import Codes, Floats, Integers, Mask, Vectors

EXACT_ITEMS = 1_000_000
"""Items up to which every one is compared."""
_BLOCK = 2**24
"""Cosines that are held at a time."""
_ROWS = 2**16
"""Vectors that are compared in float64 at a time."""
_ROUNDING = 1e-5
"""What a cosine of float32 vectors may be off: above what 4,096 dimensions were seen to leave, 4e-6."""
_LISTS_PER_ROOT, _PROBED = 4, 8
"""faiss cuts n items into 4 sqrt(n) lists and looks through 1 in 8 of them."""


class VectorIndex(Protocol):
    """Items that can be searched."""

    def search(self, queries: Vectors, count: int, barred: Sequence[Codes]) -> list[Codes]:
        """Return for each of ``queries`` (n, dimension) the ``count`` nearest items that are not ``barred`` for it.

        The order is the cosine as float64 tells it, falling; equal ones stand in the order that the index was given.
        """


def make_index(items: Vectors, ranks: Integers, search: str = "auto") -> VectorIndex:
    """Return an index of ``items`` (n, dimension), rows of length 1 or of zeros, which are never found.

    ``search`` is `exact`, `faiss` or `auto`: exact up to `EXACT_ITEMS`. ``ranks`` (n,) orders equal cosines.
    """
    exact = search == "exact" or (search == "auto" and len(items) <= EXACT_ITEMS)
    return ExactIndex(items, ranks) if exact else FaissIndex(items, ranks)


class ExactIndex:
    """Compares all. Memory: the vectors (4 bytes x items x dimension) and a block of 64 MiB; a query is
    O(items x dimension)."""

    def __init__(self, items: Vectors, ranks: Integers) -> None:
        self._order = _Order(items, ranks)
        self._absent = np.flatnonzero(~self._order.present)

    def search(self, queries: Vectors, count: int, barred: Sequence[Codes]) -> list[Codes]:
        """As `VectorIndex.search`, whatever the number of items."""
        items, found = self._order.items, []
        step = max(1, _BLOCK // max(1, len(items)))
        for first in range(0, len(queries), step):
            block = queries[first : first + step]
            cosines = block @ items.T
            cosines[:, self._absent] = -np.inf
            for row, query in enumerate(block):
                mine = cosines[row]
                mine[barred[first + row]] = -np.inf
                found.append(self._order.best(_candidates(mine, count), query, count))
        return found


def _candidates(cosines: Vectors, count: int) -> Integers:
    """Return the items that may be among the ``count`` nearest, given what rounding leaves open."""
    if count < len(cosines):
        last = np.partition(cosines, -count)[-count]
        close = np.flatnonzero(cosines >= last - _ROUNDING)
    else:
        close = np.arange(len(cosines))
    return close[np.isfinite(cosines[close])]


class FaissIndex:
    """Looks through the lists of vectors that lie nearest (IVF): fast, and may miss some. Memory: twice the vectors."""

    def __init__(self, items: Vectors, ranks: Integers) -> None:
        """Cut the items into lists: seconds for 100,000, minutes for millions; the same ones every time."""
        import faiss

        self._order = _Order(items, ranks)
        there = np.flatnonzero(self._order.present)
        dimension, lists = items.shape[1], max(1, round(_LISTS_PER_ROOT * np.sqrt(max(1, len(there)))))
        lists = min(lists, max(1, len(there)))
        self._index: Any = faiss.IndexIVFFlat(
            faiss.IndexFlatIP(dimension), dimension, lists, faiss.METRIC_INNER_PRODUCT
        )
        self._index.cp.min_points_per_centroid = 1  # else a warning on standard error where items are few
        self._index.nprobe = max(1, -(-lists // _PROBED))
        vectors = np.ascontiguousarray(items[there])
        if len(there):
            self._index.train(vectors)
            self._index.add_with_ids(vectors, there)

    def search(self, queries: Vectors, count: int, barred: Sequence[Codes]) -> list[Codes]:
        """As `VectorIndex.search`, but for what is missed."""
        if not len(queries) or not self._index.ntotal:
            return [np.empty(0, np.int32) for _ in queries]
        # What is barred may be nearest: so many more are asked for.
        wanted = min(count + max(map(len, barred)), self._index.ntotal)
        _, rows = self._index.search(np.ascontiguousarray(queries), wanted)
        found = []
        for query, near, bar in zip(queries, rows, barred, strict=True):
            close = near[near >= 0]
            found.append(self._order.best(close[~np.isin(close, bar)], query, count))
        return found


class _Order:
    """The exact order of some items for a query."""

    def __init__(self, items: Vectors, ranks: Integers) -> None:
        self.items, self._ranks = np.asarray(items, dtype=np.float32), ranks
        self.present: Mask = np.any(self.items, axis=1)

    def best(self, close: Integers, query: Vectors, count: int) -> Codes:
        """Return the ``count`` nearest of the items ``close``."""
        # Cosines of a matrix product depend in their last bits on where a vector stands: equal items would not tie.
        order = np.lexsort((self._ranks[close], -self._cosines(close, query)))
        return close[order[:count]].astype(np.int32)

    def _cosines(self, rows: Integers, query: Vectors) -> Floats:
        parts = [
            (self.items[rows[first : first + _ROWS]].astype(np.float64) * query.astype(np.float64)).sum(axis=1)
            for first in range(0, len(rows), _ROWS)
        ]
        return np.concatenate([np.empty(0), *parts])
