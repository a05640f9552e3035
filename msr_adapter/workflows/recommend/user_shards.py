"""Users in parts, as tables that the stages read: histories to be summarised, candidates to be scored.

A group's histories stand in for the examples of a run, a shard for its whole data folder, so that summaries and scores
come from the very functions that training and evaluation use. A part's size bounds the memory, whatever the number of
users.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from msr_adapter import schema
from msr_adapter.arrays import Codes, Mask, Rows, ranges
from msr_adapter.event_schemas import HISTORY_EVENTS
from msr_adapter.history_window import HistoryWindow
from msr_adapter.item_images import with_absolute_images
from msr_adapter.prompts.stage_tables import copy_attributes
from msr_adapter.workflows.recommend.histories import Histories, SeenBeside
from msr_adapter.workflows.recommend.retrieval import Found

GROUP = 4_096
"""Users who are summarised together."""
PAIRS = 65_536
"""Candidates that are scored together, in whole users."""

LISTS = pa.schema(
    [
        pa.field("number", pa.int64(), nullable=False),  # place of the user in the order asked for
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("item", pa.int32(), nullable=False),  # row of ITEMS
        pa.field("retrieval_rank", pa.int64(), nullable=False),
        pa.field("filled", pa.bool_(), nullable=False),  # a popular item where the retrieval fell short
        pa.field("own", pa.bool_(), nullable=False),  # taken from the user's own history
        pa.field("history_items", pa.int64(), nullable=False),
    ]
)
"""The candidates of a shard's users, in order; the model is asked about those of users with a history."""


class IdArray(Sequence[str]):
    """Ids in an Arrow array: as text objects, ten million would take some 700 MB."""

    def __init__(self, ids: pa.Array) -> None:
        self.array = ids

    def __len__(self) -> int:
        return len(self.array)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            places = np.arange(*index.indices(len(self)))
            return [str(one) for one in self.array.take(pa.array(places)).to_pylist()]
        return str(self.array[index].as_py())

    def __iter__(self) -> Iterator[str]:
        for begin in range(0, len(self), PAIRS):
            yield from self.array.slice(begin, PAIRS).to_pylist()


@dataclass(frozen=True)
class ShownHistory:
    """The latest items of a history, as many as prompts show with their images."""

    window: HistoryWindow
    """As training's: what it leaves out was not shown there either."""
    number: int

    def of(self, history: Codes) -> Codes:
        """Return what of one history, oldest item first, is shown."""
        return self.window.of(history)[-self.number :]


@dataclass(frozen=True)
class AskedUsers:
    """Who gets a list, in the order of the lists; a user's number is the place in it."""

    ids: Sequence[str]
    places: Rows
    """Place of each in `Histories.users`; -1 = nothing is known of this user."""
    histories: Histories
    beside: SeenBeside
    """What they have seen beside their histories, by number."""
    shown: "ShownHistory | None" = None
    """What of histories the recommender's prompt shows with images; None = nothing."""

    def latest(self, number: int) -> Codes:
        """Return the items of a user's history that the recommender's prompt shows with their images."""
        history = self.history(number)
        return history[:0] if self.shown is None else self.shown.of(history)

    def history(self, number: int) -> Codes:
        """Return the items that a user has interacted with, oldest first; empty where nothing is known."""
        return self.histories.of(self.places[number])

    def only_seen(self) -> Mask:
        """Return who has no history but has seen something: known, to filters that dropped all of it (users,)."""
        return (self.places < 0) & (self.beside.counts() > 0)

    def lengths(self) -> Rows:
        """Return how long each history is (users,)."""
        known = self.places >= 0
        found = np.zeros(len(self.places), np.int64)
        found[known] = np.diff(self.histories.offsets)[self.places[known]]
        return found

    def items(self) -> Mask:
        """Return which items stand in a history of theirs: (items,)."""
        flags = np.zeros(len(self.histories.items), dtype=bool)
        known = self.places[self.places >= 0]
        for begin in range(0, len(known), PAIRS):
            some = known[begin : begin + PAIRS]
            starts = self.histories.offsets[some]
            flags[self.histories.codes[ranges(starts, self.histories.offsets[some + 1] - starts)]] = True
        return flags

    def only(self, groups: Sequence[int]) -> "AskedUsers":
        """Return the users of some groups, in their order; each but the last one of all is whole."""
        every = [np.arange(group * GROUP, min((group + 1) * GROUP, len(self.ids))) for group in groups]
        numbers = np.concatenate([np.empty(0, np.int64), *every])
        sizes = self.beside.counts()[numbers]
        codes = self.beside.codes[ranges(self.beside.offsets[numbers], sizes)]
        beside = SeenBeside(np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64), codes)
        ids = self.ids.array if isinstance(self.ids, IdArray) else pa.array(self.ids, pa.string())
        taken = IdArray(ids.take(pa.array(numbers)))
        return AskedUsers(taken, self.places[numbers], self.histories, beside, self.shown)

    def groups(self) -> Iterator[range]:
        """Yield the numbers of the users of each group."""
        return (range(begin, min(begin + GROUP, len(self.ids))) for begin in range(0, len(self.ids), GROUP))


def write_histories(folder: Path, asked: AskedUsers, numbers: Sequence[int], window: HistoryWindow | None) -> int:
    """Write EXAMPLES with the history of each user who has one, or what its ``window`` has; return their number.

    The number of a user is its example.
    """
    known = [number for number in numbers if len(asked.history(number))]
    whole = [asked.history(number) for number in known]
    histories = whole if window is None else list(map(window.of, whole))
    _write_examples(folder, asked, known, histories, "train")
    if asked.histories.events is not None:
        _write_events(folder, asked, known, [len(history) for history in histories])
    return len(known)


def _write_events(folder: Path, asked: AskedUsers, numbers: Sequence[int], lengths: Sequence[int]) -> None:
    """Write HISTORY_EVENTS of histories that are the latest so many items of each user."""
    found = [asked.histories.events_of(int(asked.places[number])) for number in numbers]
    latest = [
        events[len(events) - length :] for events, length in zip(found, lengths, strict=True) if events is not None
    ]
    offsets = pa.array(np.cumsum([0, *map(len, latest)]), pa.int32())
    values = pa.array(np.concatenate([np.empty(0, np.int8), *latest]), pa.int8())
    nothing = pa.ListArray.from_arrays(pa.array(np.zeros(len(latest) + 1, np.int32)), values[:0])
    columns = [pa.array(numbers, pa.int64()), pa.ListArray.from_arrays(offsets, values), nothing]
    table = pa.table(columns, schema=HISTORY_EVENTS)
    schema.write_table(table, HISTORY_EVENTS, folder / "history_events.parquet")


def write_items_to_describe(folder: Path, items: Sequence[str]) -> None:
    """Write EXAMPLES of one history, which holds ``items``."""
    columns = [[0], ["train"], [""], [list(items)], [0]]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema.EXAMPLES, strict=True)]
    folder.mkdir(parents=True, exist_ok=True)
    schema.write_table(pa.table(arrays, schema=schema.EXAMPLES), schema.EXAMPLES, folder / "examples.parquet")


def cut_shards(numbers: Sequence[int], found: Sequence[Found]) -> Iterator[slice]:
    """Cut users into shards of about `PAIRS` candidates, at least one user each."""
    begin = pairs = 0
    for place in range(len(numbers)):
        pairs += len(found[place].items)
        if place > begin and pairs > PAIRS:
            yield slice(begin, place)
            begin, pairs = place, len(found[place].items)
    if len(numbers):
        yield slice(begin, len(numbers))


def read_items(data_dir: Path) -> pa.Table:
    """Return ITEMS with absolute paths of images, so that a part of them can lie in any folder."""
    return with_absolute_images(schema.read_table(data_dir / "items.parquet", schema.ITEMS), data_dir)


def write_shard(
    data_dir: Path, folder: Path, items: pa.Table, asked: AskedUsers, numbers: Sequence[int], found: Sequence[Found]
) -> int:
    """Write LISTS and the data folder of one shard; return how many candidates the model is asked about.

    ``items`` are those of `read_items`, ``found`` the candidates of each of the users ``numbers``, ``data_dir`` the
    folder of the run's data.
    """
    sizes = np.array([len(one.items) for one in found], dtype=np.int64)
    owner = np.repeat(np.arange(len(numbers)), sizes)
    place = np.arange(len(owner)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    codes = np.concatenate([np.empty(0, np.int32), *(one.items for one in found)])
    lengths = np.array([len(asked.history(number)) for number in numbers], dtype=np.int64)
    filled = place >= np.array([one.filled_from for one in found], dtype=np.int64)[owner]
    own = place < np.array([one.own for one in found], dtype=np.int64)[owner]
    ids = pa.array([asked.ids[number] for number in numbers], pa.string())
    number = np.asarray(numbers, np.int64)[owner]
    columns = [number, ids.take(pa.array(owner)), codes, place + 1, filled, own, lengths[owner]]
    folder.mkdir(parents=True, exist_ok=True)
    schema.write_table(pa.table(columns, schema=LISTS), LISTS, folder / "lists.parquet")
    scored = lengths[owner] > 0
    known = [number for number, length in zip(numbers, lengths, strict=True) if length]
    # Beside the images of the latest items, the user summary says it all: scoring reads no more of the history.
    latest = [asked.latest(number) for number in known]
    _write_examples(folder, asked, known, latest, "test")
    rows = np.union1d(codes[scored], _rows_of(items, asked, latest))
    _write_candidates(folder, items, number[scored], codes[scored], rows)
    shown = items["item_id"].take(pa.array(rows))
    copy_attributes(data_dir, folder, shown.to_pylist(), [asked.ids[number] for number in known])
    return int(scored.sum())


def write_pairs(
    folder: Path, items: pa.Table, numbers: Rows, codes: Codes, user_ids: Sequence[str] | None = None
) -> None:
    """Write the data folder of a shard of pairs, which may be any: ``numbers`` ascending, ``codes`` rows of ``items``.

    The number of a user is the example; the user summary says all of it, unless templates say attributes of the users
    ``user_ids``, one for each number, ascending.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _write_candidates(folder, items, numbers, codes)
    users = np.unique(numbers)
    nothing = pa.ListArray.from_arrays(pa.array(np.zeros(len(users) + 1, np.int32)), items["item_id"].chunk(0)[:0])
    columns = [users, ["test"] * len(users), user_ids or [""] * len(users), nothing, np.zeros(len(users), np.int64)]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema.EXAMPLES, strict=True)]
    schema.write_table(pa.table(arrays, schema=schema.EXAMPLES), schema.EXAMPLES, folder / "examples.parquet")


def _rows_of(items: pa.Table, asked: AskedUsers, latest: Sequence[Codes]) -> Codes:
    """Return the rows of ``items`` that are the ``latest`` items of some histories."""
    codes = np.unique(np.concatenate([np.empty(0, np.int32), *latest]))
    if not len(codes):
        return codes
    ids = asked.histories.items.take(pa.array(codes)).cast(pa.string())
    rows: Codes = pc.index_in(ids, value_set=items["item_id"].combine_chunks()).to_numpy()
    return rows


def _write_candidates(folder: Path, items: pa.Table, numbers: Rows, codes: Codes, rows: Codes | None = None) -> None:
    """Write candidates, and the ``rows`` of items that prompts show: theirs unless given."""
    candidates = pa.table(
        {"example_id": numbers, "item_id": items["item_id"].take(pa.array(codes)),
         "label": np.zeros(len(codes), np.int8)}
    )  # fmt: skip
    schema.write_table(candidates, schema.CANDIDATES, folder / "candidates.parquet")
    shown = np.unique(codes) if rows is None else rows
    schema.write_table(items.take(pa.array(shown)), schema.ITEMS, folder / "items.parquet")


def _write_examples(
    folder: Path, asked: AskedUsers, numbers: Sequence[int], histories: Sequence[Codes], split: str
) -> None:
    """Write EXAMPLES of the users ``numbers`` with ``histories``; a user's number is the example's id."""
    offsets = np.cumsum([0, *map(len, histories)])
    values = asked.histories.items.take(pa.array(np.concatenate([np.empty(0, np.int32), *histories])))
    columns = [
        pa.array(numbers, pa.int64()), pa.array([split] * len(numbers), pa.string()),
        pa.array([asked.ids[number] for number in numbers], pa.string()),
        pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values), pa.array([0] * len(numbers), pa.int64()),
    ]  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    schema.write_table(pa.table(columns, schema=schema.EXAMPLES), schema.EXAMPLES, folder / "examples.parquet")
