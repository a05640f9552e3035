"""A source's own split column: what each row is for."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from msr_adapter.arrays import Codes, Mask, Rows
from msr_adapter.data.audit.report import Audit
from msr_adapter.errors import Problem
from msr_adapter.synthetic import SyntheticDataset

Parts = NDArray[np.int8]

PARTS = {"train": 0, "validation": 1, "test": 2}
"""What a reader's split column says, and the split code it stands for."""


def part_code() -> pl.Expr:
    """Return the split code of the column split; -1 where it is null."""
    return pl.col("split").replace_strict(PARTS, return_dtype=pl.Int8).fill_null(-1).alias("part")


def part_problems(interactions: pl.LazyFrame) -> list[Problem]:
    """Return a problem when there is no split column for `split.kind: column`; its values are the reader's care."""
    if "split" in interactions.collect_schema().names():
        return []
    step = (
        "Add one, name it in data.source.columns.split (its other values are then told), or choose another split.kind"
    )
    found = "column, but no column of splits says train, validation or test in every row"
    return [Problem("", "split.kind", found, "a column `split`, `x_label` or `subset` that does", step)]


# The log inside the stage: frames of strings as read, then integer codes sorted by user and time.


_BATCH = 1 << 20
"""Rows read at a time."""
_SHARD = 1 << 22
"""Rows sorted at a time: sets the memory, never the result."""


@dataclass(frozen=True)
class Corpus:
    """What a reader returns: everything in the order of the file, nothing filtered."""

    interactions: pl.LazyFrame
    """user_id, item_id (String, stripped, not empty), timestamp (Int64: milliseconds, or the position); where the
    source says it, split (String: train, validation or test)."""
    items: pl.DataFrame | None
    """item_id, title (String, as written, null = none), each item once; where the source has them also text, category
    (String) and image (String: path or URL; Binary: the file's bytes). None = the source has no table of items."""
    synthetic: SyntheticDataset | None = None
    """The generated dataset behind the log: it draws the images and knows the true preferences."""


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
    part: Parts | None = None
    """Split code of each row as the source says it, -1 = none of them; None = the source says nothing."""

    def keep(self, rows: Mask) -> "Log":
        """Return the log of the given rows; users and items without a row leave it. O(rows)."""
        if rows.all():
            return self
        user, item = self.user[rows], self.item[rows]
        user_used, item_used = degree(user, len(self.users)) > 0, degree(item, len(self.items)) > 0
        return Log(
            self.users.filter(pl.Series(user_used)),
            self.items.filter(pl.Series(item_used)),
            _renumber(user_used)[user],
            _renumber(item_used)[item],
            self.time[rows],
            None if self.part is None else self.part[rows],
        )

    def pair_keys(self) -> Rows:
        """Return user * n_items + item of every row, unsorted."""
        return self.user.astype(np.int64) * len(self.items) + self.item

    def bounds(self) -> Rows:
        """Return the n_users + 1 offsets of each user's rows."""
        return np.concatenate([[0], np.cumsum(degree(self.user, len(self.users)))]).astype(np.int64)


def degree(codes: Codes, size: int) -> Rows:
    """Return how often each code below ``size`` occurs."""
    counts = np.zeros(size, dtype=np.int64)
    for part in _parts(len(codes)):
        counts += np.bincount(codes[part], minlength=size)
    return counts


def _parts(rows: int) -> Iterator[slice]:
    """Yield slices of at most a shard: NumPy widens the codes that it counts or indexes with to 64 bits."""
    return (slice(begin, begin + _SHARD) for begin in range(0, rows, _SHARD))


def encode(corpus: Corpus, audit: Audit) -> Log:
    """Turn a corpus into codes; of a repeated (user, item) pair the earliest stays, the others are counted.

    The corpus is streamed. Memory: 32 bytes a row, the distinct ids, and one shard of users that is being sorted.
    """
    users, items, read = _read_codes(corpus.interactions)
    user, item, time, *part = _sort_distinct(*read, n_users=len(users), n_items=len(items))
    for noun, number in (("interactions", len(read[0])), ("users", len(users)), ("items", len(items))):
        audit.count(f"{noun}_read", number)
    audit.count("interactions_dropped_duplicate", len(read[0]) - len(user))
    return Log(users, items, user, item, time, *part)


def _read_codes(interactions: pl.LazyFrame) -> tuple[pl.Series, pl.Series, tuple[NDArray[Any], ...]]:
    """Return the sorted distinct ids of both kinds and every row as codes, time and perhaps split, as in the file."""
    # A series of each kind holds its growing dictionary, which Polars lets go with the last that uses it.
    known = {name: pl.Series(dtype=pl.Categorical(pl.Categories.random())) for name in ("user_id", "item_id")}
    codes = [pl.col(name).cast(ids.dtype).to_physical() for name, ids in known.items()]
    split = [part_code()] if "split" in interactions.collect_schema().names() else []
    parts: list[list[Any]] = [[], [], [], *([] for _ in split)]
    for batch in interactions.select(*codes, "timestamp", *split).collect_batches(chunk_size=_BATCH):
        for part, column in zip(parts, batch, strict=True):
            part.append(column.to_numpy())
    columns = tuple(_joined(part, kind) for part, kind in zip(parts, ("i4", "i4", "i8", "i1"), strict=False))
    return _rank(known["user_id"], columns[0]), _rank(known["item_id"], columns[1]), columns


def _joined(parts: list[Any], kind: str) -> NDArray[Any]:
    """Return the parts as one array and let go of them."""
    whole = np.concatenate([np.empty(0, dtype=kind), *parts], dtype=kind, casting="unsafe")
    parts.clear()
    return whole


def _rank(known: pl.Series, codes: Codes) -> pl.Series:
    """Return the ids sorted, and renumber ``codes`` in place, from the order of appearance to that of the ids."""
    assert isinstance(known.dtype, pl.Categorical)
    ids = known.dtype.categories.to_series()
    order = ids.arg_sort()
    rank = np.empty(len(ids), dtype=np.int32)
    rank[order.to_numpy()] = np.arange(len(ids), dtype=np.int32)
    for part in _parts(len(codes)):
        codes[part] = rank[codes[part]]
    return ids.gather(order)


def _sort_distinct(
    user: Codes, item: Codes, time: Rows, *part: Parts, n_users: int, n_items: int
) -> list[NDArray[Any]]:
    """Sort by user, time and row, and keep the first row of every (user, item); a shard of users at a time."""
    columns: tuple[NDArray[Any], ...] = (user, item, time, *part)
    ordered = [np.empty_like(column) for column in columns]
    end = 0
    for first, last in pairwise(_shards(user, n_users)):
        rows = np.flatnonzero((user >= first) & (user < last))
        rows = rows[np.lexsort((time[rows], user[rows]))]  # stable: equal times keep the order of the file
        _, earliest = np.unique(user[rows].astype(np.int64) * n_items + item[rows], return_index=True)
        rows = rows[np.sort(earliest)]
        begin, end = end, end + len(rows)
        for target, column in zip(ordered, columns, strict=True):
            target[begin:end] = column[rows]
    return [column[:end] for column in ordered]


def _shards(user: Codes, n_users: int) -> list[int]:
    """Return user codes that cut the rows into shards of about equal size."""
    until = np.cumsum(degree(user, n_users))
    cuts = np.searchsorted(until, np.arange(_SHARD, len(user), _SHARD)) + 1
    return [0, *np.unique(cuts[cuts < n_users]).tolist(), n_users]


def _renumber(used: Mask) -> Codes:
    return (np.cumsum(used) - 1).astype(np.int32)
