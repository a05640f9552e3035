"""The log inside the stage: what a reader returned as frames of strings, as integer codes sorted by user and time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import polars as pl

from msr_adapter.arrays import Codes, Labels, Mask, Rows
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.readers.reader import Corpus
from msr_adapter.schema import SPLITS

_BATCH = 1 << 20
"""Rows read at a time."""
_SHARD = 1 << 22
"""Rows sorted at a time: sets the memory, never the result."""


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
    """Milliseconds since 1970, or the position where the source has no times."""
    split: Labels | None = None
    """Split of each row as the source says it, -1 = none of them; None = the source says nothing."""

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
            None if self.split is None else self.split[rows],
        )

    def bounds(self) -> Rows:
        """Return the n_users + 1 offsets of each user's rows."""
        return np.concatenate([[0], np.cumsum(degree(self.user, len(self.users)))]).astype(np.int64)


def degree(codes: Codes, size: int, shard_rows: int = _SHARD) -> Rows:
    """Return how often each code below ``size`` occurs."""
    counts = np.zeros(size, dtype=np.int64)
    for part in _shards_of_rows(len(codes), shard_rows):
        counts += np.bincount(codes[part], minlength=size)
    return counts


def encode(corpus: Corpus, audit: Audit, *, batch_rows: int = _BATCH, shard_rows: int = _SHARD) -> Log:
    """Turn a corpus into codes; of a repeated (user, item) pair the earliest stays, the others are counted.

    The corpus is streamed, ``batch_rows`` at a time. Memory: 32 bytes a row, the distinct ids, and one shard that is
    being sorted: users with about ``shard_rows`` rows. Neither number changes the result.
    """
    users, items, read = _read_codes(corpus.interactions, batch_rows, shard_rows)
    user, item, time, *splits = _sort_distinct(read, len(users), len(items), shard_rows)
    split = splits[0].astype(np.int8, copy=False) if splits else None
    for noun, number in (("interactions", len(read[0])), ("users", len(users)), ("items", len(items))):
        audit.count(f"{noun}_read", number)
    audit.count("interactions_dropped_duplicate", len(read[0]) - len(user))
    return Log(users, items, user, item, time.astype(np.int64, copy=False), split)


def _read_codes(
    interactions: pl.LazyFrame, batch_rows: int, shard_rows: int
) -> tuple[pl.Series, pl.Series, list[Codes]]:
    """Return the sorted distinct ids of both kinds and every row as codes, time and perhaps split, as in the file."""
    # A series of each kind holds its growing dictionary, which Polars lets go with the last that uses it.
    known = {name: pl.Series(dtype=pl.Categorical(pl.Categories.random())) for name in ("user_id", "item_id")}
    codes = [pl.col(name).cast(ids.dtype).to_physical() for name, ids in known.items()]
    numbers = {name: number for number, name in enumerate(SPLITS)}
    split_code = pl.col("split").replace_strict(numbers, return_dtype=pl.Int8).fill_null(-1)
    split = [split_code] if "split" in interactions.collect_schema().names() else []
    batches: list[list[Codes]] = [[], [], [], *([] for _ in split)]
    # Batches come in the order of the file: Polars keeps it here unless told otherwise.
    for batch in interactions.select(*codes, "timestamp", *split).collect_batches(chunk_size=batch_rows):
        for column, values in zip(batches, batch, strict=True):
            column.append(values.to_numpy())
    columns = [_concatenate(parts, kind) for parts, kind in zip(batches, ("i4", "i4", "i8", "i1"), strict=False)]
    users, items = (_rank(ids, column, shard_rows) for ids, column in zip(known.values(), columns[:2], strict=True))
    return users, items, columns


def _concatenate(parts: list[Codes], kind: str) -> Codes:
    """Return the parts as one array and let go of them, so that a column is in memory twice at most once."""
    whole: Codes = np.concatenate([np.empty(0, dtype=kind), *parts], dtype=kind, casting="unsafe")
    parts.clear()
    return whole


def _rank(known: pl.Series, codes: Codes, shard_rows: int) -> pl.Series:
    """Return the ids sorted, and renumber ``codes`` in place, from the order of appearance to that of the ids."""
    assert isinstance(known.dtype, pl.Categorical)
    ids = known.dtype.categories.to_series()
    order = ids.arg_sort()
    rank = np.empty(len(ids), dtype=np.int32)
    rank[order.to_numpy()] = np.arange(len(ids), dtype=np.int32)
    for part in _shards_of_rows(len(codes), shard_rows):
        codes[part] = rank[codes[part]]
    return ids.gather(order)


def _shards_of_rows(rows: int, shard_rows: int) -> Iterator[slice]:
    """Yield slices of at most a shard: NumPy widens the codes that it counts or indexes with to 64 bits."""
    return (slice(begin, begin + shard_rows) for begin in range(0, rows, shard_rows))


def _sort_distinct(columns: Sequence[Codes], n_users: int, n_items: int, shard_rows: int) -> list[Codes]:
    """Sort user, item, time, ... by user, time and row; keep the first row of every (user, item).

    A shard of users at a time: sorting the whole log at once would hold several 64-bit copies of it.
    """
    user, item, time = columns[:3]
    ordered = [np.empty_like(column) for column in columns]
    end = 0
    for first, last in pairwise(_shards_of_users(user, n_users, shard_rows)):
        rows = np.flatnonzero((user >= first) & (user < last))
        rows = rows[np.lexsort((time[rows], user[rows]))]  # stable: equal times keep the order of the file
        _, earliest = np.unique(user[rows].astype(np.int64) * n_items + item[rows], return_index=True)
        rows = rows[np.sort(earliest)]
        begin, end = end, end + len(rows)
        for target, column in zip(ordered, columns, strict=True):
            target[begin:end] = column[rows]
    return [column[:end] for column in ordered]


def _shards_of_users(user: Codes, n_users: int, shard_rows: int) -> list[int]:
    """Return user codes that cut the rows into shards of about equal size."""
    until = np.cumsum(degree(user, n_users, shard_rows))
    # A user with more rows than a shard takes several cuts at once, which `unique` makes one.
    cuts = np.searchsorted(until, np.arange(shard_rows, len(user), shard_rows)) + 1
    return [0, *np.unique(cuts[cuts < n_users]).tolist(), n_users]


def _renumber(used: Mask) -> Codes:
    # The new number of a used code is how many used ones stand before it; the entries of the others are never read.
    return (np.cumsum(used) - 1).astype(np.int32)
