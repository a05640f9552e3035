"""The log inside the stage: frames of strings as read, then integer codes sorted by user and time."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from msr_adapter.data.audit import Audit
from msr_adapter.shop import Shop

Codes = NDArray[np.int32]
Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Corpus:
    """What a reader returns: everything in the order of the file, nothing filtered."""

    interactions: pl.LazyFrame
    """user_id, item_id (String, stripped, not empty), timestamp (Int64: milliseconds, or the position)."""
    items: pl.DataFrame | None
    """item_id, title (String, as written, null = none), each item once; where the source has them also text, category
    (String) and image (String: path or URL; Binary: the file's bytes). None = the source has no table of items."""
    shop: Shop | None = None
    """The generated shop behind the log: it draws covers and knows the true tastes."""


@dataclass(frozen=True)
class Log:
    """Distinct (user, item) pairs in integer codes, sorted by user, then time, then row of the file."""

    users: pl.Series
    """Distinct user ids, sorted: code -> id."""
    items: pl.Series
    """Distinct item ids, sorted: code -> id."""
    user: Codes
    item: Codes
    time: Rows

    def keep(self, rows: Mask) -> "Log":
        """Return the log of the given rows; users and items without a row leave it. O(rows)."""
        user, item = self.user[rows], self.item[rows]
        user_used, item_used = degree(user, len(self.users)) > 0, degree(item, len(self.items)) > 0
        return Log(
            self.users.filter(pl.Series(user_used)),
            self.items.filter(pl.Series(item_used)),
            _renumber(user_used)[user],
            _renumber(item_used)[item],
            self.time[rows],
        )

    def pair_keys(self) -> Rows:
        """Return user * n_items + item of every row, unsorted."""
        return self.user.astype(np.int64) * len(self.items) + self.item

    def bounds(self) -> Rows:
        """Return the n_users + 1 offsets of each user's rows."""
        return np.concatenate([[0], np.cumsum(degree(self.user, len(self.users)))]).astype(np.int64)


def degree(codes: Codes, size: int) -> Rows:
    """Return how often each code below ``size`` occurs."""
    return np.bincount(codes, minlength=size)


def encode(corpus: Corpus, audit: Audit) -> Log:
    """Turn a corpus into codes; of a repeated (user, item) pair the earliest stays, the others are counted."""
    frame = corpus.interactions.collect()
    users, user = _codes(frame["user_id"])
    items, item = _codes(frame["item_id"])
    time = frame["timestamp"].to_numpy().astype(np.int64)
    order = np.lexsort((time, user))  # stable: equal times keep the order of the file
    log = Log(users, items, user[order], item[order], time[order])
    _, first = np.unique(log.pair_keys(), return_index=True)
    mask = np.zeros(len(order), dtype=bool)
    mask[first] = True
    for noun, number in (("interactions", len(order)), ("users", len(users)), ("items", len(items))):
        audit.count(f"{noun}_read", number)
    audit.count("interactions_dropped_duplicate", int((~mask).sum()))
    return log.keep(mask)


def _codes(ids: pl.Series) -> tuple[pl.Series, Codes]:
    distinct = ids.unique().sort()
    codes = ids.cast(pl.Enum(distinct)).to_physical().to_numpy()
    return distinct, codes.astype(np.int32)


def _renumber(used: Mask) -> Codes:
    return (np.cumsum(used) - 1).astype(np.int32)
