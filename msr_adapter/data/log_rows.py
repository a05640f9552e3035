"""Rows of a log in integer codes: read in batches, renumbered by the order of ids, sorted, without repeats."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import polars as pl

from msr_adapter.arrays import Codes, Labels, Mask, Rows
from msr_adapter.data.first_rows import first_rows
from msr_adapter.data.readers.reader import FILTERED
from msr_adapter.schema import SPLITS

_BATCH = 1 << 20
"""Rows read at a time."""
_LABELS = {"split": SPLITS, "filtered": FILTERED}
_SHARD = 1 << 22
"""Rows sorted at a time: sets the memory, never the result."""


def degree(codes: Codes, size: int, shard_rows: int = _SHARD) -> Rows:
    """Return how often each code below ``size`` occurs."""
    counts = np.zeros(size, dtype=np.int64)
    for part in shards_of_rows(len(codes), shard_rows):
        counts += np.bincount(codes[part], minlength=size)
    return counts


@dataclass(frozen=True)
class LogRows:
    """Rows in integer codes."""

    user: Codes
    item: Codes
    time: Codes
    split: Codes | None
    """As in `Log`; None = the source's own split does not decide."""
    filtered: Codes | None
    """Place in `FILTERED`, -1 = the row is kept; None = the source drops no rows."""
    group: Codes | None = None
    """The impression; None = the source names none."""
    event: Codes | None = None
    """Number of the word, -1 = it is merely seen; None = the source has no events."""
    session: Codes | None = None
    """The session of the user, -1 = none; None = sessions make no rows one. It is gone once rows are distinct."""

    def take(self, rows: Mask) -> "LogRows":
        """Return some of the rows."""
        columns = (self.split, None, self.group, self.event, self.session)
        more = (None if column is None else column[rows] for column in columns)
        return LogRows(self.user[rows], self.item[rows], self.time[rows], *more)


@dataclass(frozen=True)
class Parts:
    """Rows that are read, and sorted, at a time."""

    batch: int = _BATCH
    shard: int = _SHARD


def read_codes(interactions: pl.LazyFrame, batch_rows: int, shard_rows: int) -> tuple[pl.Series, pl.Series, LogRows]:
    """Return the sorted distinct ids of both kinds and every row, as in the file."""
    # A series of each kind holds its growing dictionary, which Polars lets go with the last that uses it.
    known = {name: pl.Series(dtype=pl.Categorical(pl.Categories.random())) for name in ("user_id", "item_id")}
    columns = [pl.col(name).cast(ids.dtype).to_physical() for name, ids in known.items()]
    there = interactions.collect_schema().names()
    labels: dict[str, tuple[str, ...]] = {name: words for name, words in _LABELS.items() if name in there}
    for name, words in labels.items():
        # Through an enumeration: Polars replaces texts by numbers in twice the memory of the whole log.
        columns.append(pl.col(name).cast(pl.Enum(words)).to_physical().cast(pl.Int8).fill_null(-1))
    if "event" in there:
        labels["event"] = ()
        columns.append(pl.col("event").fill_null(-1))
    groups = {name: pl.Series(dtype=pl.Categorical(pl.Categories.random()))
              for name in ("impression", "session") if name in there}  # fmt: skip
    for name, ids in groups.items():
        columns.append(pl.col(name).cast(ids.dtype).to_physical().cast(pl.Int64).fill_null(-1))
    kinds = ("i4", "i4", *("i1" for _ in labels), *("i8" for _ in groups), "i8")
    batches: list[list[Codes]] = [[] for _ in kinds]
    # Batches come in the order of the file: Polars keeps it here unless told otherwise.
    for batch in interactions.select(*columns, "timestamp").collect_batches(chunk_size=batch_rows):
        for column, values in zip(batches, batch, strict=True):
            column.append(values.to_numpy())
    user, item, *more, time = (_concatenate(parts, kind) for parts, kind in zip(batches, kinds, strict=True))
    users, items = (_rank(ids, column, shard_rows) for ids, column in zip(known.values(), (user, item), strict=True))
    named = dict(zip((*labels, *groups), more, strict=True))
    fields = (named.get(name) for name in ("split", "filtered", "impression", "event", "session"))
    return users, items, LogRows(user, item, time, *fields)


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
    for part in shards_of_rows(len(codes), shard_rows):
        codes[part] = rank[codes[part]]
    return ids.gather(order)


def shards_of_rows(rows: int, shard_rows: int) -> Iterator[slice]:
    """Yield slices of at most a shard: NumPy widens the codes that it counts or indexes with to 64 bits."""
    return (slice(begin, begin + shard_rows) for begin in range(0, rows, shard_rows))


@dataclass(frozen=True)
class Collapse:
    """Which rows of a log are one."""

    keep: bool = False
    """Those of one user, item and time; else all of one user and item."""
    same_ms: int = 1
    """Milliseconds of a time."""
    ranks: Labels | None = None
    """Strength of each word, 0 = the strongest: the first of the strongest rows stays. None = there are no words."""


def sort_distinct(read: LogRows, sizes: tuple[int, int], shard_rows: int, same: Collapse) -> tuple[LogRows, bool]:
    """Sort by user, time and row; keep one row of those that are one, and say whether rows still repeat a pair.

    Where rows have a session, those that are left of one session are one too, unless pairs are distinct anyway. Where
    rows have a split, that holds for the training rows, and all held-out rows stay. ``sizes`` are the numbers of
    users and items. A shard of users at a time: sorting the whole log at once would hold several 64-bit copies of it.
    """
    columns = [one for one in (read.user, read.item, read.time, read.split, read.group, read.event) if one is not None]
    ordered = [np.empty_like(column) for column in columns]
    end = pairs = 0
    for first, last in pairwise(_shards_of_users(read.user, sizes[0], shard_rows)):
        rows = np.flatnonzero((read.user >= first) & (read.user < last))
        rows = rows[np.lexsort((read.time[rows], read.user[rows]))]  # stable: equal times keep the order of the file
        keys = read.user[rows].astype(np.int64) * sizes[1] + read.item[rows]
        _, earliest = np.unique(keys, return_index=True)
        pairs += len(earliest)
        times = read.time[rows] // same.same_ms if same.keep else None
        rank = None if read.event is None or same.ranks is None else same.ranks[read.event[rows]]
        session = None if read.session is None or not same.keep else _apart(read.session[rows])
        if same.keep or rank is not None:
            earliest = _first_of(keys, times, session, rank)
        if read.split is not None:
            held_out = read.split[rows] > 0
            training = np.flatnonzero(~held_out)
            of_time, of_session = (None if column is None else column[training] for column in (times, session))
            once = _first_of(keys[training], of_time, of_session)
            earliest = np.concatenate([training[once], np.flatnonzero(held_out)])
        rows = rows[np.sort(earliest)]
        begin, end = end, end + len(rows)
        for target, column in zip(ordered, columns, strict=True):
            target[begin:end] = column[rows]
    user, item, time, *more = [column[:end] for column in ordered]
    left = iter(more)
    split, group, event = (None if column is None else next(left) for column in (read.split, read.group, read.event))
    return LogRows(user, item, time, split, None, group, event), pairs < end


def _first_of(keys: Rows, times: Codes | None, session: Codes | None, rank: Codes | None = None) -> Rows:
    """Return a row of every key and time, as `first_rows`; of those, where there are sessions, one of each."""
    first = first_rows(keys, times, rank)
    if session is None:
        return first
    first.sort()  # of equals the first in time stays
    return first[first_rows(keys[first], session[first], None if rank is None else rank[first])]


def _apart(session: Codes) -> Codes:
    """Return sessions in which each row without one has a number of its own."""
    return np.where(session >= 0, session, -1 - np.arange(len(session)))


def _shards_of_users(user: Codes, n_users: int, shard_rows: int) -> list[int]:
    """Return user codes that cut the rows into shards of about equal size."""
    until = np.cumsum(degree(user, n_users, shard_rows))
    # A user with more rows than a shard takes several cuts at once, which `unique` makes one.
    cuts = np.searchsorted(until, np.arange(shard_rows, len(user), shard_rows)) + 1
    return [0, *np.unique(cuts[cuts < n_users]).tolist(), n_users]
