"""All items that every user has interacted with: the log of the data stage, and what came later; and what is only seen.

Nothing is held out here: a recommendation may use all that is known. What a filter drops, such as rows rated too low,
is no history, but the user has seen it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from msr_adapter import schema
from msr_adapter.arrays import Codes, Labels, Mask, Rows
from msr_adapter.event_schemas import EVENT_WORDS, EVENTS
from msr_adapter.heuristics import has_timestamps


@dataclass(frozen=True)
class Histories:
    """Each user's items, oldest first, as rows of ITEMS; distinct, unless `data.repeats` is keep.

    Memory: 4 bytes an interaction, and the ids.
    """

    users: pa.Array
    """Ids of all users with an interaction."""
    items: pa.Array
    """Ids of the catalogue."""
    offsets: Rows
    """(users + 1,)"""
    codes: Codes
    events: Labels | None = None
    """What was done with each, by its number; None = the source has no events."""
    units: Rows | None = None
    """What each event counts in the popularity of an item; None = 1."""

    def events_of(self, place: int) -> Labels | None:
        """Return what was done with each item of `of`; None = the source has no events."""
        none = slice(0, 0)
        rows = slice(self.offsets[place], self.offsets[place + 1]) if place >= 0 else none
        return None if self.events is None else self.events[rows]

    def of(self, place: int) -> Codes:
        """Return the history of a user, by place in ``users``; -1 is a user without one."""
        return self.codes[self.offsets[place] : self.offsets[place + 1]] if place >= 0 else self.codes[:0]

    def places(self, ids: pa.Array) -> Rows:
        """Return the place of each id in ``users``; -1 = none."""
        found = pc.fill_null(pc.index_in(ids, value_set=self.users), -1)
        return np.asarray(found.to_numpy(zero_copy_only=False), dtype=np.int64)

    def popularity(self) -> Rows:
        """Return how many interactions each item has, or the units that they weigh (items,)."""
        weights = None if self.events is None or self.units is None else self.units[self.events]
        return np.bincount(self.codes, weights, minlength=len(self.items)).astype(np.int64)


@dataclass(frozen=True)
class NewInteractions:
    """What became of interactions that came after those of the data stage."""

    rows: int
    added: int
    users: int
    """Users who got something new."""
    new_users: int
    repeated: int
    """The user had the item already (at that time, where repeats are kept)."""
    unknown: Sequence[str]
    """Distinct items that the catalogue lacks; their rows are left out."""
    unknown_rows: int
    before: int
    """Rows older than something the data stage knows of their user: they are sorted in."""
    filtered: pl.DataFrame
    """Rows (user_id, code) of the catalogue that a filter drops, as that of the source does: seen, but no history."""


@dataclass(frozen=True)
class SeenBeside:
    """What users have seen beside their histories, as rows of ITEMS: those of user n are codes[offsets[n]:...]."""

    offsets: Rows
    """(users + 1,)"""
    codes: Codes

    def of(self, number: int) -> Codes:
        """Return what a user has seen, by number."""
        return self.codes[self.offsets[number] : self.offsets[number + 1]]

    def counts(self) -> Rows:
        """Return how much each user has seen (users,)."""
        return np.diff(self.offsets)


def read_histories(data_dir: Path, more: Sequence[str] = ()) -> Histories:
    """Read the kept log of a data stage as codes; it is streamed. ``more``: items behind those of the catalogue."""
    items = _flat(schema.read_table(data_dir / "items.parquet", schema.ITEMS, ["item_id"])["item_id"])
    items = pa.concat_arrays([items, pa.array(more, pa.string())])
    users, ends, codes = [_flat(pa.chunked_array([], pa.string()))], [np.zeros(1, np.int64)], [np.empty(0, np.int32)]
    rows = 0
    for chunk in schema.read_chunks(data_dir / "interactions.parquet", schema.INTERACTIONS):
        runs = pc.run_end_encode(_flat(chunk["user_id"]))
        names, run_ends = runs.values, runs.run_ends.to_numpy().astype(np.int64) + rows
        if len(names) and len(users[-1]) and users[-1][-1] == names[0]:  # a user whose rows are in two chunks
            users[-1], ends[-1] = users[-1][:-1], ends[-1][:-1]
        users.append(names)
        ends.append(run_ends)
        codes.append(pc.index_in(_flat(chunk["item_id"]), value_set=items).to_numpy().astype(np.int32))
        rows += len(chunk)
    known = Histories(pa.concat_arrays(users), items, np.concatenate(ends), np.concatenate(codes))
    return known if (events := read_events(data_dir)) is None else _of_events(known, events)


@dataclass(frozen=True)
class LogEvents:
    """The events of the rows of a log, and what they mean."""

    event: Labels
    rejected: Mask
    """Whether the row is of an item that its user has come to reject: no history from now on."""
    units: Rows
    """What each event counts, by its number."""
    negative: Mask
    """Which say no."""


def read_events(data_dir: Path) -> LogEvents | None:
    """Read the events of a data stage; None where its source has none."""
    path = data_dir / "event_words.parquet"
    if not path.is_file():
        return None
    words = schema.read_table(path, EVENT_WORDS)
    rows = schema.read_table(data_dir / "events.parquet", EVENTS)
    units, negative = words["units"].to_numpy(), words["negative"].to_numpy()
    return LogEvents(rows["event"].to_numpy(), rows["rejected"].to_numpy(), units, negative)


def _of_events(known: Histories, events: LogEvents) -> Histories:
    """Return histories with their events, without what their users have come to reject."""
    stays = ~events.rejected
    offsets = np.concatenate([[0], np.cumsum(stays)])[known.offsets]
    # Of whom nothing is left, nothing is known but what they have seen.
    there = np.diff(offsets) > 0
    ends = np.concatenate([[0], offsets[1:][there]]).astype(np.int64)
    units = events.units if (events.units[~events.negative] != 1).any() else None
    users = known.users.filter(pa.array(there))
    return Histories(users, known.items, ends, known.codes[stays], events.event[stays], units)


def extend(
    known: Histories, data_dir: Path, later: pl.DataFrame, *, keep_repeats: bool = False
) -> tuple[Histories, NewInteractions]:
    """Add interactions (user_id, item_id, timestamp, maybe filtered) to what is known, each user's in order of time.

    Where either log has no timestamps (positions instead), what is later comes last, in its own order. Of a
    repeated pair the earliest stays, as in the data stage, or with ``keep_repeats`` all but rows of the same time;
    rows that are filtered stay out.
    """
    coded = later.with_columns(
        code=pl.Series(pc.index_in(later["item_id"].to_arrow().cast(pa.string()), value_set=known.items))
    )
    foreign, mine = coded.filter(pl.col("code").is_null()), coded.filter(pl.col("code").is_not_null())
    if "filtered" in mine.columns:  # what was only shown is not even seen
        mine = mine.filter(pl.col("filtered").ne_missing("not_clicked"))
    dropped = pl.col("filtered").is_not_null() if "filtered" in mine.columns else pl.lit(False)
    filtered, mine = mine.filter(dropped), mine.filter(~dropped)
    events = read_events(data_dir)
    if "event" not in mine.columns:
        mine = mine.with_columns(event=pl.lit(0, pl.Int8))  # without words, all rows count as what can be a target
    active = mine["user_id"].unique(maintain_order=True)
    old, timed = _times(known, data_dir, active)
    timed = timed and has_timestamps(mine["timestamp"].to_numpy())
    no = pl.col("event").is_in([] if events is None else np.flatnonzero(events.negative).tolist())
    negative, mine = mine.filter(no), mine.filter(~no)
    new = mine.select("user_id", "code", "timestamp", "event", is_new=pl.lit(True))
    if negative.height:
        filtered = pl.concat([filtered.select("user_id", "code"), negative.select("user_id", "code")])
        if not keep_repeats:
            old, new = (_not_rejected(one, negative, new, timed=timed) for one in (old, new))
    latest = old.group_by("user_id").agg(latest=pl.col("timestamp").max())
    before = 0
    if timed:
        joined = new.join(latest, on="user_id", how="inner")
        before = joined.filter(pl.col("timestamp") < pl.col("latest")).height
    distinct = joined_in_order(old, new, timed=timed, keep_repeats=keep_repeats)
    added = int(distinct["is_new"].sum())
    grown = distinct.filter(pl.col("is_new"))["user_id"].unique(maintain_order=True)
    histories = distinct.group_by("user_id", maintain_order=True).agg("code", "event")
    merged: dict[str, tuple[Codes, Codes]] = {
        user: (np.asarray(codes, np.int32), np.asarray(events, np.int8))
        for user, codes, events in histories.iter_rows()
    }
    bare = active.filter(~active.is_in(histories["user_id"].implode()))  # all that they had is rejected now
    had = known.places(bare.to_arrow().cast(pa.string())) >= 0
    merged |= {user: (np.empty(0, np.int32), np.empty(0, np.int8)) for user in bare.filter(pl.Series(had)).to_list()}
    whole = _spliced(known, merged)
    unknown = foreign["item_id"].unique(maintain_order=True).to_list()
    return whole, NewInteractions(
        later.height, added, len(grown), len(whole.users) - len(known.users), mine.height - added, unknown,
        foreign.height, before, filtered.select("user_id", "code"),
    )  # fmt: skip


def _not_rejected(rows: pl.DataFrame, negative: pl.DataFrame, new: pl.DataFrame, *, timed: bool) -> pl.DataFrame:
    """Return the ``rows`` without those that a later negative word takes back which no ``new`` row follows."""
    pair = ["user_id", "code"]
    last = negative.group_by(pair).agg(said=pl.col("timestamp").max())
    again = new.group_by(pair).agg(again=pl.col("timestamp").max())
    gone = last.join(again, on=pair, how="left").filter(pl.col("again").is_null() | (pl.col("again") <= pl.col("said")))
    found = rows.join(gone, on=pair, how="left", maintain_order="left")
    # Without times, what came later than the log's rows is later, and of one file its order is the time.
    after = pl.col("timestamp") > pl.col("said") if timed else pl.lit(False)
    return found.filter(pl.col("said").is_null() | after).select(rows.columns)


def joined_in_order(old: pl.DataFrame, new: pl.DataFrame, *, timed: bool, keep_repeats: bool) -> pl.DataFrame:
    """Return the rows (user_id, code, timestamp, is_new) of both that make the histories, in the order of `extend`.

    ``timed``: both have timestamps.
    """
    both = pl.concat([old, new], how="vertical_relaxed").with_row_index("row")
    ordered = both.sort("timestamp", "row") if timed else both.sort("is_new", "row")
    same = ["user_id", "code", *(["timestamp"] if keep_repeats else [])]
    # Positions are no times: two logs have the same ones, and each row is an interaction of its own.
    whole_rows = keep_repeats and not timed
    return ordered if whole_rows else ordered.unique(same, keep="first", maintain_order=True)


def read_seen(data_dir: Path, asked: pa.Array, items: pa.Array, later: pl.DataFrame | None = None) -> SeenBeside:
    """Read what each user of ``asked`` (ids, each once) has seen beside the log, and in ``later`` (user_id, code).

    The table is streamed: O(its users log asked); memory is 16 bytes a pair of these users while it is read, then 4.
    """
    table = data_dir / "seen.parquet"
    if later is None and not schema.count_rows(table, schema.SEEN):  # else millions of ids would be sorted for nothing
        return SeenBeside(np.zeros(len(asked) + 1, np.int64), np.empty(0, np.int32))
    ids = pl.Series(asked, dtype=pl.String)
    order = ids.arg_sort().to_numpy()
    ordered = ids.sort()
    numbers, codes = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for chunk in schema.read_chunks(table, schema.SEEN):
        runs = pc.run_end_encode(_flat(chunk["user_id"]))
        of_run = sorted_places(ordered, pl.Series(runs.values, dtype=pl.String))
        place = np.repeat(of_run, np.diff(runs.run_ends.to_numpy().astype(np.int64), prepend=0))
        mine = place >= 0
        if mine.any():
            numbers.append(order[place[mine]].astype(np.int64))
            found = pc.index_in(_flat(chunk["item_id"]).filter(pa.array(mine)), value_set=items)
            codes.append(found.to_numpy().astype(np.int64))
    if later is not None:
        place = sorted_places(ordered, later["user_id"])
        numbers.append(order[place[place >= 0]].astype(np.int64))
        codes.append(later["code"].to_numpy()[place >= 0].astype(np.int64))
    pairs = np.unique(np.concatenate(numbers) * len(items) + np.concatenate(codes))
    counts = np.bincount(pairs // len(items), minlength=len(ids))
    return SeenBeside(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), (pairs % len(items)).astype(np.int32))


def sorted_places(ordered: pl.Series, ids: pl.Series) -> Rows:
    """Return the place of each id in the sorted ``ordered``; -1 = none."""
    if not len(ordered):
        return np.full(len(ids), -1, dtype=np.int64)
    place = np.minimum(np.asarray(ordered.search_sorted(ids).to_numpy(), dtype=np.int64), len(ordered) - 1)
    found: Rows = np.where((ordered.gather(place) == ids).to_numpy(), place, -1)
    return found


def _times(known: Histories, data_dir: Path, users: pl.Series) -> tuple[pl.DataFrame, bool]:
    """Return the known rows of ``users`` with their times, in order, and whether the log has timestamps."""
    wanted = users.to_arrow().cast(pa.string())
    types = {"user_id": pl.String, "code": pl.Int32, "timestamp": pl.Int64, "event": pl.Int8, "is_new": pl.Boolean}
    parts, timed, rows, events = [pl.DataFrame(schema=types)], False, 0, read_events(data_dir)
    for chunk in schema.read_chunks(data_dir / "interactions.parquet", schema.INTERACTIONS):
        timed = timed or has_timestamps(chunk["timestamp"].to_numpy())
        of_chunk = slice(rows, rows + len(chunk))
        rows += len(chunk)
        event = np.zeros(len(chunk), np.int8) if events is None else events.event[of_chunk]
        stays = pc.is_in(chunk["user_id"], value_set=wanted)
        if events is not None:
            stays = pc.and_(stays, pa.array(~events.rejected[of_chunk]))
        mine = chunk.append_column("event", pa.array(event)).filter(stays)
        code = pc.index_in(mine["item_id"], value_set=known.items)
        table = pa.table({"user_id": mine["user_id"], "code": code, "timestamp": mine["timestamp"],
                          "event": mine["event"]})  # fmt: skip
        frame = pl.from_arrow(table)
        assert isinstance(frame, pl.DataFrame)
        parts.append(frame.with_columns(is_new=pl.lit(False)))
    return pl.concat(parts, how="vertical_relaxed"), timed


def _spliced(known: Histories, merged: dict[str, tuple[Codes, Codes]]) -> Histories:
    """Put the histories ``merged`` in the place of the known ones; those of new users come last."""
    # Whole stretches of unchanged users are copied at once: a few changed users must not cost a walk over millions.
    ids = list(merged)
    places = known.places(pa.array(ids, pa.string()))
    old = sorted((place, user) for place, user in zip(places.tolist(), ids, strict=True) if place >= 0)
    fresh = [user for place, user in zip(places.tolist(), ids, strict=True) if place < 0]
    lengths = np.diff(known.offsets)
    before = np.empty(0, np.int8) if known.events is None else known.events
    pieces: list[Codes] = []
    events: list[Codes] = []
    begin = 0
    for place, user in old:
        between = slice(known.offsets[begin], known.offsets[place])
        pieces += [known.codes[between], merged[user][0]]
        events += [before[between], merged[user][1]]
        lengths[place] = len(merged[user][0])
        begin = place + 1
    pieces += [known.codes[known.offsets[begin] :], *(merged[user][0] for user in fresh)]
    events += [before[known.offsets[begin] :], *(merged[user][1] for user in fresh)]
    sizes = np.concatenate([lengths, np.array([len(merged[user][0]) for user in fresh], np.int64)])
    users = pa.concat_arrays([known.users, pa.array(fresh, pa.string())])
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    done = None if known.events is None else np.concatenate(events).astype(np.int8)
    return Histories(users, known.items, offsets, np.concatenate(pieces), done, known.units)


def _flat(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
