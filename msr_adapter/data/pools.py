"""Which items a negative of each kind may be, and how likely each is, before what the user touched is taken out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import polars as pl
from numpy.typing import NDArray

from msr_adapter.config.models import Negatives
from msr_adapter.data.corpus import Codes, Rows
from msr_adapter.data.hardlists import HardLists
from msr_adapter.data.hashing import hash_ids, keyed


@dataclass(frozen=True)
class Pool:
    """The items of a chunk's lists: list number n may draw from ``items[low[n]:high[n]]``."""

    items: Codes
    low: Rows
    high: Rows
    cumulative: NDArray[np.float64] | None = None
    """Running sum of the items' weights, for pools that are one and the same for all lists; None = all alike."""


@dataclass(frozen=True)
class Knowledge:
    """What is known of the items of the catalogue, in the order of their codes."""

    items: pl.Series
    """Ids."""
    popularity: Rows
    """Interactions that training may know of."""
    category: pl.Series
    """Category, null = none."""


PoolOf = Callable[[Codes, Codes], Pool]
"""(user of each list, positive of each list) -> the pool they draw from."""


def make_pools(negatives: Negatives, known: Knowledge, hard: HardLists | None, seed: int) -> Mapping[str, PoolOf]:
    """Prepare every kind that ``negatives`` names, fallbacks included. O(items log items); hard lists come sorted."""
    makers: dict[str, Callable[[], PoolOf]] = {
        "uniform": lambda: partial(_same_for_all, Pool(np.arange(len(known.items), dtype=np.int32), *_NO_LISTS)),
        "popularity": lambda: partial(_same_for_all, _by_popularity(known.popularity, negatives.alpha)),
        "popularity-matched": lambda: _matched(known, negatives.pool, seed),
        "same-category": lambda: _by_category(known.category),
        "hard": lambda: partial(_hard, hard),
    }
    return {kind: makers[kind]() for kind in dict.fromkeys((*negatives.kinds(), *negatives.fallback))}


_NO_LISTS = (np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))


def _same_for_all(pool: Pool, users: Codes, _: Codes) -> Pool:
    low = np.zeros(len(users), dtype=np.int64)
    return Pool(pool.items, low, np.full(len(users), len(pool.items), dtype=np.int64), pool.cumulative)


def _by_popularity(popularity: Rows, alpha: float) -> Pool:
    """Weigh items by popularity ** alpha; one that training never saw has no weight (but 0 ** 0 = 1)."""
    weight = popularity.astype(np.float64) ** alpha
    items = np.flatnonzero(weight > 0)
    return Pool(items.astype(np.int32), *_NO_LISTS, np.cumsum(weight[items]))


def _matched(known: Knowledge, width: int, seed: int) -> PoolOf:
    """Order items by popularity (equals in a seeded order); a positive's pool is its ``width`` neighbours there.

    Half of them are less popular and half more; at the ends of the order the window moves inwards.
    """
    equals = keyed(hash_ids(known.items.to_list()), seed, "popularity-matched")
    order = np.lexsort((equals, known.popularity)).astype(np.int32)
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    width = min(width + 1, len(order))  # the positive is in the window and is never drawn

    def pool_of(_: Codes, positive: Codes) -> Pool:
        low = np.clip(rank[positive] - width // 2, 0, len(order) - width)
        return Pool(order, low, low + width)

    return pool_of


def _by_category(category: pl.Series) -> PoolOf:
    """Group items by category; the pool of a positive without one is empty."""
    codes = category.rank("dense").fill_null(0).cast(pl.Int64).to_numpy()
    order = np.argsort(codes, kind="stable").astype(np.int32)
    begin = np.searchsorted(codes[order], np.arange(codes.max(initial=0) + 2))
    begin[0] = begin[1]  # no category, no pool

    def pool_of(_: Codes, positive: Codes) -> Pool:
        return Pool(order, begin[codes[positive]], begin[codes[positive] + 1])

    return pool_of


def _hard(lists: HardLists | None, users: Codes, _: Codes) -> Pool:
    assert lists is not None, "hard negatives without scores"
    user = users if lists.by_user else np.zeros(len(users), dtype=np.int32)
    return Pool(lists.items, lists.bounds[user], lists.bounds[user + 1])
