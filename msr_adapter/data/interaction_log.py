"""The log inside the stage: what a reader returned as frames of strings, as integer codes sorted by user and time."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from msr_adapter.arrays import Codes, Labels, Mask, Rows, user_blocks
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.audit.thresholds import note
from msr_adapter.data.log_rows import Collapse, LogRows, Parts, degree, read_codes, shards_of_rows, sort_distinct
from msr_adapter.data.published_split import count_filtered, count_rows
from msr_adapter.data.readers.events import EventWords
from msr_adapter.data.readers.reader import NOT_CLICKED, Corpus
from msr_adapter.data.rejected_pairs import RejectedPairs, rejected_pairs
from msr_adapter.data.seen_pairs import LogPairs, SeenPairs, seen_beside
from msr_adapter.data.shown_items import Impressions, Shown
from msr_adapter.data.temporal import ERAS, Moments, eras, eras_of_filtered
from msr_adapter.errors import plural

__all__ = ["Log", "Parts", "degree", "encode", "first_of_pairs", "first_times"]

_SHARD = 1 << 22
"""Rows that are looked at together."""


@dataclass(frozen=True)
class Log:
    """(user, item) pairs in integer codes, sorted by user, then time, then row of the file.

    They are distinct, but under a published split a held-out row may repeat a pair, and where `data.repeats` is keep
    any row may (`repeats`).
    """

    users: pl.Series
    """Distinct user ids, sorted: code -> id."""
    items: pl.Series
    """Distinct item ids, sorted: code -> id."""
    user: Codes
    item: Codes
    time: Rows
    """Milliseconds since 1970, or the position where the source has no times."""
    split: Labels | None = None
    """Split of each row where the source's own decides, -1 = none of them."""
    seen: SeenPairs | None = None
    """What users have seen beside these rows; None = nothing. In codes of `items`, so `keep` leaves it behind."""
    repeats: bool = False
    """Whether rows may repeat a pair."""
    era: Labels | None = None
    """Era of each row (`temporal`); None = no split by time."""
    first: Rows | None = None
    """Time at which each item first appears in the log that was read (items,); None = no split by time."""
    keeps: bool = False
    """Whether such a row is an interaction like any other (`data.repeats: keep`): in histories, targets, counts."""
    group: Rows | None = None
    """The impression of each row, whose user it belongs to as well; -1 = none. None = the source has no impressions."""
    shown: Shown | None = None
    """What users were shown and did not click, as long as filters drop rows; then it is in `impressions`."""
    impressions: Impressions | None = None
    target: Mask | None = None
    """Which rows can be targets; None = all. The others are history alone (`data.source.events`)."""
    event: Labels | None = None
    """Word of each row, by its number in `events`; None = the source has no events."""
    events: EventWords | None = None
    rejected: RejectedPairs | None = None
    """What users said no to; in ids of its own as long as filters drop rows. None = nothing."""
    unseen: pl.Series | None = None
    """Ids of the table of items, sorted, of which the source has no row of any kind; None = there is no such table."""
    table_only: Mask | None = None
    """Which of `items` (items,) are of the table alone; None = none (`unseen_items`)."""
    cold: Mask | None = None
    """Which of `items` (items,) training never hears of; None = none is held out (`cold_items`)."""

    def keep(self, rows: Mask) -> "Log":
        """Return the log of the given rows, without `seen`; users and items without a row leave it. O(rows)."""
        if rows.all():
            return replace(self, seen=None)
        split, era = (None if labels is None else labels[rows] for labels in (self.split, self.era))
        user, item, time = self.user[rows], self.item[rows], self.time[rows]
        kept = replace(self, user=user, item=item, time=time, split=split, era=era, seen=None)
        kept = replace(kept, target=None if self.target is None else self.target[rows])
        kept = replace(kept, event=None if self.event is None else self.event[rows])
        return replace(kept, group=None if self.group is None else self.group[rows]).with_used_ids()

    def with_used_ids(self) -> "Log":
        """Return the log without the users and items that have no row, and without `seen`. O(rows)."""
        user_used, item_used = degree(self.user, len(self.users)) > 0, degree(self.item, len(self.items)) > 0
        return replace(
            self,
            users=self.users.filter(pl.Series(user_used)),
            items=self.items.filter(pl.Series(item_used)),
            user=_renumber(user_used)[self.user],
            item=_renumber(item_used)[self.item],
            first=None if self.first is None else self.first[item_used],
            seen=None,
        )

    def bounds(self) -> Rows:
        """Return the n_users + 1 offsets of each user's rows."""
        return np.concatenate([[0], np.cumsum(degree(self.user, len(self.users)))]).astype(np.int64)

    def distinct(self, rows: Mask | None = None) -> tuple[Codes, Codes]:
        """Return user and item of every distinct pair, in the order of the rows; of the given ones if any are."""
        user, item = (self.user, self.item) if rows is None else (self.user[rows], self.item[rows])
        if not self.repeats:
            return user, item
        first = first_of_pairs(user, item, len(self.items))
        return user[first], item[first]

    def counted(self, rows: Mask | None = None) -> tuple[Codes, Codes]:
        """Return user and item of what counts, of the given rows: distinct pairs, or all where repeats are kept."""
        return replace(self, repeats=self.repeats and not self.keeps).distinct(rows)

    def pairs(self) -> LogPairs:
        """Return the pairs as `seen_pairs` takes them."""
        return LogPairs(self.users, self.items, self.user, self.item, self.bounds(), self.era)

    def seen_counts(self) -> Rows:
        """Return how many distinct items each user has seen, in rows of the log or beside them (users,)."""
        counts = degree(self.distinct()[0], len(self.users))
        return counts if self.seen is None else counts + self.seen.counts(np.arange(len(self.users)))


def first_of_pairs(user: Codes, item: Codes, n_items: int) -> Mask:
    """Return which rows (sorted by user) are the first of their pair, in blocks of users: O(rows log block)."""
    first = np.zeros(len(user), dtype=bool)
    size = int(user.max(initial=-1)) + 1
    bounds = np.concatenate([[0], np.cumsum(degree(user, size))]).astype(np.int64)
    for block in user_blocks(bounds, _SHARD):
        keys = user[block].astype(np.int64) * n_items + item[block]
        first[block.start + np.unique(keys, return_index=True)[1]] = True
    return first


def first_times(log: Log) -> Rows:
    """Return the time at which each item first appears (items,). O(rows), in parts."""
    first = np.full(len(log.items), np.iinfo(np.int64).max)
    for part in shards_of_rows(len(log.item), _SHARD):
        np.minimum.at(first, log.item[part], log.time[part])
    return first


_PARTS = Parts()


@dataclass(frozen=True)
class _Aside:
    """What is no row of a log, but says something of its users."""

    shown: Shown | None = None
    rejected: RejectedPairs | None = None
    seen: Sequence[tuple[Codes, Codes, Labels | None]] = ()
    """(users, items, eras) of what they have seen all the same, as `seen_beside` takes them."""


def _set_aside(
    read: LogRows, ids: tuple[pl.Series, pl.Series], said: EventWords | None, audit: Audit, moments: Moments | None
) -> tuple[LogRows, _Aside]:
    """Take out the rows that a filter of the source drops and those of negative words; return the others, and these."""
    seen, found = list[tuple[Codes, Codes, Labels | None]](), _Aside()
    if read.filtered is not None:
        count_filtered(audit, read.filtered, read.split)
        not_clicked = read.filtered == NOT_CLICKED
        dropped = read.filtered >= 0
        if not_clicked.any():
            rows = read.take(not_clicked)
            time = rows.time.astype(np.int64, copy=False)
            of_time = None if moments is None else eras(time, moments)
            found = replace(found, shown=Shown(*ids, rows.user, rows.item, _group_of(rows), time, of_time))
            read = replace(read.take(~not_clicked), filtered=read.filtered[~not_clicked])
            dropped = dropped[~not_clicked]
        assert read.filtered is not None
        era = None if moments is None else eras_of_filtered(read.time, read.filtered, moments)
        seen.append((read.user[dropped], read.item[dropped], era))
        read = read.take(~dropped)
    if said is not None and read.event is not None and said.are("negative").any():
        negative, time = said.are("negative")[read.event], read.time.astype(np.int64, copy=False)
        audit.count("interactions_negative", int(negative.sum()))
        found = replace(found, rejected=rejected_pairs(ids, read.user, read.item, time, negative, moments))
        era = None if moments is None else eras(time[negative], moments)
        seen.append((read.user[negative], read.item[negative], era))
        read = read.take(~negative)
    return read, replace(found, seen=seen)


def encode(
    corpus: Corpus, audit: Audit, *, published_split: bool = False, keep_repeats: bool = False,
    moments: Moments | None = None, parts: Parts = _PARTS,
) -> Log:  # fmt: skip
    """Turn a corpus into codes; of a repeated (user, item) pair the earliest stays, the others are counted.

    With ``keep_repeats`` all stay but rows with the same user, item and time, of which the first does, and where the
    corpus has sessions, those of one session.

    With ``published_split`` the source's own split is kept whole: only training rows that repeat an earlier one of
    training are dropped, and every held-out row stays. What a filter of the source drops is in `Log.seen`. With
    ``moments``, those of a split by time, the log tells eras and when each item first appears.

    The corpus is streamed, a batch of ``parts`` at a time. Memory: 32 bytes a row (40 with sessions), the distinct ids,
    and one shard that is being sorted: users with about so many rows. Neither number changes the result.
    """
    shard_rows = parts.shard
    unread = [*([] if published_split else ["split"]), *([] if keep_repeats else ["session"])]
    interactions = corpus.interactions.drop(unread, strict=False)
    users, items, read = read_codes(interactions, parts.batch, shard_rows)
    for noun, number in (("interactions", len(read.user)), ("users", len(users)), ("items", len(items))):
        audit.count(f"{noun}_read", number)
    count_rows(audit, "read", read.split)
    ids, said = (users, items), corpus.events
    read, aside = _set_aside(read, ids, said, audit, moments)
    read = _tell_sessions(read, audit, moments)
    same = Collapse(keep_repeats) if said is None else Collapse(keep_repeats, said.same_ms, said.ranks)
    rows, repeats = sort_distinct(read, (len(users), len(items)), shard_rows, same)
    audit.count("interactions_dropped_duplicate", len(read.user) - len(rows.user))
    count_rows(audit, "dropped_duplicate", read.split, rows.split)
    time = rows.time.astype(np.int64, copy=False)
    split = None if rows.split is None else rows.split.astype(np.int8, copy=False)
    unseen = _unseen(corpus, items)
    log = Log(users, items, rows.user, rows.item, time, split, repeats=repeats, keeps=keep_repeats, unseen=unseen)
    if rows.event is not None and said is not None:
        log = replace(log, target=said.are("target")[rows.event], event=rows.event.astype(np.int8, copy=False),
                      events=said, rejected=aside.rejected)  # fmt: skip
    if moments is not None:
        log = replace(log, era=eras(time, moments), first=first_times(log))
    if aside.shown is not None:
        log = replace(log, group=_group_of(rows), shown=aside.shown, first=aside.shown.appeared(log.first))
    if not aside.seen:
        return log
    del read, rows  # where many rows are dropped, the pairs take as much memory as these
    log = log.with_used_ids()
    audit.count("users_dropped_row_filter", len(users) - len(log.users))
    audit.count("items_dropped_row_filter", len(items) - len(log.items))
    return replace(log, seen=seen_beside(log.pairs(), users, items, aside.seen, may_be_rows=True))


def _tell_sessions(read: LogRows, audit: Audit, moments: Moments | None) -> LogRows:
    """Count and say what has a session; return the rows, of which a split by time cuts the sessions in parts.

    Else what a user buys after the moment would take the look before it out of what is known then.
    """
    if read.session is None:
        return read
    rows, without = len(read.session), int((read.session < 0).sum())
    text = "Of what a user did with an item in one session, one row stays (data.repeats, data.source.columns.session)."
    if without:
        audit.count("interactions_without_session", without)
        text += (f" {plural(without, 'interaction')} ({without / rows:.1%}) {'has' if without == 1 else 'have'} no "
                 "session: each is by itself.")  # fmt: skip
    note(audit, "sessions", without / max(rows, 1), text)
    if moments is None:
        return read
    parts = read.session * ERAS + eras(read.time, moments)
    return replace(read, session=np.where(read.session < 0, read.session, parts))


def _unseen(corpus: Corpus, items: pl.Series) -> pl.Series | None:
    """Return the items of the table, sorted, that no row names, whatever becomes of the row."""
    if corpus.items is None:
        return None
    ids = corpus.items["item_id"]
    return ids.filter(~ids.is_in(items.implode())).sort()


def _group_of(rows: LogRows) -> Rows:
    """Return the impression of each row: where the source names none, its time, of the same user."""
    return (rows.time if rows.group is None else rows.group).astype(np.int64, copy=False)


def _renumber(used: Mask) -> Codes:
    # The new number of a used code is how many used ones stand before it; the entries of the others are never read.
    return (np.cumsum(used) - 1).astype(np.int32)
