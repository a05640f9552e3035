"""Which items a negative of each kind may be, and how likely each is; which items a user has seen."""

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass
from functools import partial

import numpy as np
import polars as pl
from numpy.typing import NDArray

from msr_adapter.arrays import Codes, Floats, Mask, Rows, contains, ranges
from msr_adapter.config.schema import NegativesConfig
from msr_adapter.data.interaction_log import Log
from msr_adapter.data.negatives.popularity_strata import Strata, popularity_strata
from msr_adapter.data.temporal import EVERYTHING, LATEST, Horizon

_LISTS = 2**14
"""Lists whose users' logs are looked up at a time."""
MATCHED = "popularity-matched"
MINED = "mined"
_NO_LISTS = (np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))


@dataclass(frozen=True)
class Pool:
    """The items of a chunk's lists: list number n may draw from ``items[low[n]:high[n]]``."""

    items: Codes
    low: Rows
    high: Rows
    cumulative: Floats | None = None
    """Running sum of the weights of ``items``; None = all alike."""


@dataclass(frozen=True)
class ItemStatistics:
    """What decides how likely an item is as a negative, for the whole catalogue in the order of the codes."""

    items: pl.Series
    """Ids."""
    popularity: Rows
    """Interactions that training may know of."""
    category: pl.Series
    """Category, null = none."""
    targets: Rows | None = None
    """How often each item is the target of a training example; None = not counted."""
    offered: Mask | None = None
    """Which items may be negatives (items,); None = all."""


PoolOf = Callable[[Codes, Codes], Pool]
"""(user of each list, positive of each list) -> the pool they draw from."""


@dataclass(frozen=True)
class HardNegatives:
    """Items by falling score: those of user u are ``items[bounds[u]:bounds[u + 1]]``; user 0 is all, if not by_user."""

    items: Codes
    bounds: Rows
    by_user: bool


class SeenItems:
    """What is no negative of a chunk's lists: what their users have seen, and what was not on offer at their moment.

    What users have seen is held as sorted keys of user and item.
    """

    def __init__(
        self, log: Log, bounds: Rows, users: Codes, horizon: Horizon = EVERYTHING, times: Rows | None = None
    ) -> None:
        """Gather what ``users`` (of each list) have seen, as far as ``horizon`` goes; ``times`` are the targets'.

        Memory O(rows of these users, and pairs beside them).
        """
        distinct, self.user = np.unique(users, return_inverse=True)
        self.n_items = len(log.items)
        lengths, items = seen_items(log, bounds, distinct, horizon.era)
        self.keys = np.sort(np.repeat(np.arange(len(distinct)), lengths) * self.n_items + items)
        self._first = log.first if horizon.at_target else None
        self._times = times
        self._there = horizon.items
        self._numbers = None if horizon.items is None else np.cumsum(horizon.items) - 1

    def but_for_positives(self, targets: Codes, more: tuple[Rows, Codes]) -> "SeenItems":
        """Return the same where nothing that users have seen is excluded but the list's positives.

        These are its target (lists,) and ``more``, (list, item).
        """
        found, size = copy(self), self.n_items
        found.user = np.arange(len(targets))
        found.keys = np.sort(np.concatenate([found.user * size + targets, more[0] * size + more[1]]))
        return found

    def by(self, list_: Rows, item: NDArray[np.integer]) -> Mask:
        """Return whether each list may not have the item: its user has seen it, or it had not appeared yet."""
        found = contains(self.keys, self.user[list_] * self.n_items + item)
        if self._first is not None and self._times is not None:
            found |= self._first[item] > self._times[list_]
        if self._there is not None:  # pools have nothing else, but what was shown
            found |= ~self._there[item]
        return found

    def number(self, item: Rows) -> Rows:
        """Return the numbers of items among those that there are to draw: other items change none of them."""
        return item if self._numbers is None else self._numbers[item]


def seen_items(log: Log, bounds: Rows, users: Codes, until: int = LATEST) -> tuple[Rows, Codes]:
    """Return how many items each of ``users`` has seen, and the items, by user; an item may come more than once.

    Only what is known in the era ``until`` or before.
    """
    lengths = bounds[users + 1] - bounds[users]
    rows = ranges(bounds[users], lengths)
    if log.era is not None and until < LATEST:
        known = log.era[rows] <= until
        lengths = np.bincount(np.repeat(np.arange(len(users)), lengths)[known], minlength=len(users))
        rows = rows[known]
    items = log.item[rows]
    if log.seen is None:
        return lengths, items
    more, beside = log.seen.of(users, until)
    owner = np.concatenate([np.repeat(np.arange(len(users)), of) for of in (lengths, more)])
    order = np.argsort(owner, kind="stable")
    return lengths + more, np.concatenate([items, beside])[order]


def free_items(log: Log, users: Codes, times: Rows, horizon: Horizon, *, seen_too: bool = False) -> Rows:
    """Return how many items there are to draw for lists of these users whose targets are at ``times`` (lists,).

    ``seen_too``: what users have seen is drawn as well, and the target alone is not.
    """
    if horizon is EVERYTHING and not seen_too:
        return np.asarray(len(log.items) - log.seen_counts()[users])
    bounds, there = log.bounds(), np.ones(len(log.items), dtype=bool) if horizon.items is None else horizon.items
    appeared = None if log.first is None or not horizon.at_target else np.sort(log.first[there])
    free = np.full(len(users), int(there.sum()))
    if appeared is not None:
        free = np.searchsorted(appeared, times, side="right")
    if seen_too:
        return np.asarray(np.maximum(free - 1, 0))
    for begin in range(0, len(users), _LISTS):
        part = slice(begin, begin + _LISTS)
        lengths, items = seen_items(log, bounds, users[part], horizon.era)
        owner = np.repeat(np.arange(len(lengths)), lengths)
        # An item may have been seen more than once.
        owner, items = np.divmod(np.unique(owner * len(log.items) + items), len(log.items))
        taken = there[items]
        if appeared is not None and log.first is not None:
            taken &= log.first[items] <= times[part][owner]
        free[part] -= np.bincount(owner[taken], minlength=len(lengths))
    return np.asarray(free)


def strata_of(negatives: NegativesConfig, known: ItemStatistics) -> Strata:
    """Return the strata that `popularity-matched` draws from."""
    count, there = negatives.kinds().get(MATCHED, negatives.count), known.offered
    if there is None:
        return popularity_strata(known.popularity, negatives.pool, count, known.targets)
    targets = None if known.targets is None else known.targets[there]
    strata = popularity_strata(known.popularity[there], negatives.pool, count, targets)
    low, high, twinless = (np.zeros(len(there), dtype=kind) for kind in (np.int64, np.int64, bool))
    low[there], high[there], twinless[there] = strata.low, strata.high, strata.twinless
    return Strata(np.flatnonzero(there)[strata.order], strata.cumulative, low, high, twinless)


def make_pools(negatives: NegativesConfig, known: ItemStatistics, hard: HardNegatives | None) -> Mapping[str, PoolOf]:
    """Prepare every kind that ``negatives`` names, fallbacks included. O(items log items); hard lists come sorted.

    What is mined depends on another run: whoever has read it adds `pool_of_scored`.
    """
    there = np.ones(len(known.items), dtype=bool) if known.offered is None else known.offered
    makers: dict[str, Callable[[], PoolOf]] = {
        "uniform": lambda: partial(_same_for_all, Pool(np.flatnonzero(there).astype(np.int32), *_NO_LISTS)),
        "popularity": lambda: partial(_same_for_all, _by_popularity(known.popularity, negatives.alpha, there)),
        "popularity-matched": lambda: partial(_matched, strata_of(negatives, known)),
        "same-category": lambda: _by_category(known.category, there),
        "hard": lambda: pool_of_scored(hard),
    }
    # What was shown beside a target is not known by its item: `impressions.shown_with` gives that pool.
    wanted = dict.fromkeys((*negatives.kinds(), *negatives.fallback))
    return {kind: makers[kind]() for kind in wanted if kind in makers}


def _same_for_all(pool: Pool, users: Codes, _: Codes) -> Pool:
    low = np.zeros(len(users), dtype=np.int64)
    return Pool(pool.items, low, np.full(len(users), len(pool.items), dtype=np.int64), pool.cumulative)


def _by_popularity(popularity: Rows, alpha: float, there: Mask) -> Pool:
    """Weigh items by popularity ** alpha; one that training never saw has no weight (but 0 ** 0 = 1)."""
    weight = popularity.astype(np.float64) ** alpha * there
    items = np.flatnonzero(weight > 0)
    return Pool(items.astype(np.int32), *_NO_LISTS, np.cumsum(weight[items]))


def _matched(strata: Strata, _: Codes, positive: Codes) -> Pool:
    return Pool(strata.order, strata.low[positive], strata.high[positive], strata.cumulative)


def _by_category(category: pl.Series, there: Mask) -> PoolOf:
    """Group the items that are ``there`` by category; the pool of a positive without one is empty."""
    codes = category.rank("dense").fill_null(0).cast(pl.Int64).to_numpy() * there
    order = np.argsort(codes, kind="stable").astype(np.int32)
    begin = np.searchsorted(codes[order], np.arange(codes.max(initial=0) + 2))
    begin[0] = begin[1]  # no category, no pool

    def pool_of(_: Codes, positive: Codes) -> Pool:
        return Pool(order, begin[codes[positive]], begin[codes[positive] + 1])

    return pool_of


def pool_of_scored(scored: HardNegatives | None) -> PoolOf:
    """Return what draws among each user's highest-scored items."""
    return partial(_hard, scored)


def _hard(hard: HardNegatives | None, users: Codes, _: Codes) -> Pool:
    assert hard is not None, "negatives by scores without scores"
    user = users if hard.by_user else np.zeros(len(users), dtype=np.int32)
    return Pool(hard.items, hard.bounds[user], hard.bounds[user + 1])
