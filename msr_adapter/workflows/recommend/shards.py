"""Users in parts, as tables that the stages read: histories to be summarised, candidates to be scored.

Each part is a small data folder, so that summaries and scores come from the very functions that training and
evaluation use. A part's size bounds the memory, whatever the number of users.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from msr_adapter import schema
from msr_adapter.arrays import Codes, Rows
from msr_adapter.workflows.recommend.histories import Histories
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
        pa.field("history_items", pa.int64(), nullable=False),
    ]
)
"""The candidates of a shard's users, in order; the model is asked about those of users with a history."""


@dataclass(frozen=True)
class AskedUsers:
    """Who gets a list, in the order of the lists."""

    ids: Sequence[str]
    places: Rows
    """Place of each in `Histories.users`; -1 = nothing is known of this user."""

    def groups(self) -> Iterator[range]:
        """Yield the numbers of the users of each group."""
        return (range(begin, min(begin + GROUP, len(self.ids))) for begin in range(0, len(self.ids), GROUP))


def write_histories(
    folder: Path, data_dir: Path, asked: AskedUsers, numbers: Sequence[int], histories: Histories, longest: int | None
) -> int:
    """Write a data folder with the history of each user who has one, its ``longest`` latest items; return their number.

    The number of a user is its example.
    """
    known = [number for number in numbers if len(histories.of(asked.places[number]))]
    taken = [histories.of(asked.places[number])[-(longest or 0) :] for number in known]
    examples = _examples([(number, asked.ids[number]) for number in known], taken, histories, "train")
    _link(data_dir, folder, "items.parquet", "images")
    schema.write_table(examples, schema.EXAMPLES, folder / "examples.parquet")
    return len(known)


def write_items_to_describe(folder: Path, data_dir: Path, items: Sequence[str]) -> None:
    """Write a data folder in which one history holds ``items``."""
    columns = [[0], ["train"], [""], [list(items)], [0]]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema.EXAMPLES, strict=True)]
    _link(data_dir, folder, "items.parquet", "images")
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


def write_shard(
    folder: Path, data_dir: Path, items: pa.Table, asked: AskedUsers, numbers: Sequence[int], found: Sequence[Found],
    histories: Histories,
) -> int:  # fmt: skip
    """Write LISTS and the data folder of one shard; return how many candidates the model is asked about."""
    sizes = np.array([len(one.items) for one in found], dtype=np.int64)
    owner = np.repeat(np.arange(len(numbers)), sizes)
    place = np.arange(len(owner)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    codes = np.concatenate([np.empty(0, np.int32), *(one.items for one in found)])
    lengths = np.array([len(histories.of(asked.places[number])) for number in numbers], dtype=np.int64)
    filled = place >= np.array([one.filled_from for one in found], dtype=np.int64)[owner]
    ids = pa.array([asked.ids[number] for number in numbers], pa.string())
    number = np.asarray(numbers, np.int64)[owner]
    columns = [number, ids.take(pa.array(owner)), codes, place + 1, filled, lengths[owner]]
    schema.write_table(pa.table(columns, schema=LISTS), LISTS, folder / "lists.parquet")
    scored = lengths[owner] > 0
    _write_candidates(folder, data_dir, items, number[scored], codes[scored])
    known = [(number, asked.ids[number]) for number, length in zip(numbers, lengths, strict=True) if length]
    empty = [codes[:0]] * len(known)  # the preference text says it all: scoring reads no history
    schema.write_table(_examples(known, empty, histories, "test"), schema.EXAMPLES, folder / "examples.parquet")
    return int(scored.sum())


def _write_candidates(folder: Path, data_dir: Path, items: pa.Table, numbers: Rows, codes: Codes) -> None:
    used = np.unique(codes)
    candidates = pa.table(
        {"example_id": numbers, "item_id": items["item_id"].take(pa.array(codes)),
         "label": np.zeros(len(codes), np.int8)}
    )  # fmt: skip
    schema.write_table(candidates, schema.CANDIDATES, folder / "candidates.parquet")
    schema.write_table(items.take(pa.array(used)), schema.ITEMS, folder / "items.parquet")
    _link(data_dir, folder, "images")


def _examples(users: Sequence[tuple[int, str]], taken: Sequence[Codes], histories: Histories, split: str) -> pa.Table:
    offsets = np.cumsum([0, *map(len, taken)])
    values = histories.items.take(pa.array(np.concatenate([np.empty(0, np.int32), *taken])))
    columns = [
        pa.array([number for number, _ in users], pa.int64()), pa.array([split] * len(users), pa.string()),
        pa.array([user for _, user in users], pa.string()),
        pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values), pa.array([0] * len(users), pa.int64()),
    ]  # fmt: skip
    return pa.table(columns, schema=schema.EXAMPLES)


def _link(data_dir: Path, folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        if not (folder / name).exists() and (data_dir / name).exists():
            (folder / name).symlink_to((data_dir / name).resolve())
