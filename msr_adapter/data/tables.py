"""The stage's tables: codes become ids again, in the schemas that all stages share."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from msr_adapter import schema
from msr_adapter.arrays import Codes, Mask, Rows, user_blocks
from msr_adapter.data.examples import Examples
from msr_adapter.data.explicit_negatives import seen_and_rejected
from msr_adapter.data.images.store import ItemImages
from msr_adapter.data.interaction_log import Log
from msr_adapter.data.negatives.candidates import Candidates
from msr_adapter.schema import SPLITS
from msr_adapter.synthetic import SyntheticDataset

_ROWS = 1 << 19
"""Rows of a table that are ids, no longer codes, at the same time."""
_LISTS = 1 << 15
"""Whole logs of users, likewise."""


@dataclass(frozen=True)
class ItemCatalogue:
    """What is known of every item, one entry per item code."""

    ids: Sequence[str]
    titles: Sequence[str]
    texts: Sequence[str]
    categories: Sequence[str | None]


@dataclass(frozen=True)
class ItemRows:
    """Rows of items.parquet, in columns of equal length."""

    items: ItemCatalogue
    images: Sequence[ItemImages]
    popularity: Rows
    in_log: Mask
    listed: bool
    """Whether candidate lists and full rankings may have them."""

    def table(self) -> pa.Table:
        """Return them under ITEMS."""
        columns = {
            "item_id": pa.array(self.items.ids, pa.string()),
            "title": pa.array(self.items.titles, pa.string()),
            # With their type: of nothing but None, Arrow would make a column of type null.
            "image": pa.array([image.path for image in self.images], pa.string()),
            "image_digest": pa.array([image.digest for image in self.images], pa.string()),
            "more_images": pa.array(
                [[{"path": more.path, "digest": more.digest} for more in image.more] or None for image in self.images],
                schema.ITEMS.field("more_images").type,
            ),
            "popularity": self.popularity,
            "text": pa.array(self.items.texts, pa.string()),
            "category": pa.array(self.items.categories, pa.string()),
            "in_log": self.in_log,
            "listed": np.full(len(self.items.ids), self.listed),
        }
        return pa.table(columns).cast(schema.ITEMS)


def write_items(rows: ItemRows, beside: ItemRows, out: Path) -> None:
    """Write items.parquet, sorted by id: the catalogue of the lists, and what is kept ``beside`` it."""
    table = pa.concat_tables([rows.table(), beside.table()])
    schema.write_table(table.sort_by("item_id") if len(beside.images) else table, schema.ITEMS, out / "items.parquet")


def write_interactions(log: Log, training: Mask, out: Path) -> None:
    """Write interactions.parquet: the kept log, sorted by user, time, row; ``training`` is what training may know.

    Of a pair that a published split repeats, the training row is written, or the first where there is none; where
    repeats are kept, all rows are.
    """
    users, items = _ids(log.users), _ids(log.items)
    user, item, time = log.user, log.item, log.time
    if log.repeats and not log.keeps:
        once = _once(log, training)
        user, item, time, training = user[once], item[once], time[once], training[once]
    chunks = (
        pa.table({"user_id": users.take(pa.array(user[rows])), "item_id": items.take(pa.array(item[rows])),
                  "timestamp": time[rows], "training": training[rows]})
        for rows in _chunks(len(user))
    )  # fmt: skip
    schema.write_chunks(chunks, schema.INTERACTIONS, out / "interactions.parquet")


def write_offered(log: Log, out: Path) -> None:
    """Write offered.parquet, when each item first appears, where lists go by that."""
    if log.first is not None:
        table = pa.table({"item_id": _ids(log.items), "first": log.first})
        schema.write_table(table, schema.OFFERED, out / "offered.parquet")


def write_seen(log: Log, out: Path) -> None:
    """Write seen.parquet: what users have seen beside the log, and what they reject, sorted by user and item."""
    chunks: Iterable[pa.Table] = [schema.SEEN.empty_table()]
    seen = seen_and_rejected(log)
    if seen is not None:
        items = _ids(log.items)
        # Of the users, who may be many more than those with a pair, only the ids that are written are looked up.
        chunks = (
            pa.table([_ids(seen.users.gather(seen.user[rows])), items.take(pa.array(seen.item[rows]))],
                     schema=schema.SEEN)
            for rows in _chunks(len(seen))
        )  # fmt: skip
    schema.write_chunks(chunks, schema.SEEN, out / "seen.parquet")


def _once(log: Log, training: Mask) -> Mask:
    """Return one row of each pair, in blocks of users: one that training knows if there is one, else the first."""
    chosen = np.zeros(len(log.user), dtype=bool)
    for block in user_blocks(log.bounds(), _ROWS):
        keys = log.user[block].astype(np.int64) * len(log.items) + log.item[block]
        order = np.argsort(~training[block], kind="stable")
        chosen[block.start + order[np.unique(keys[order], return_index=True)[1]]] = True
    return chosen


def write_examples(log: Log, examples: Examples, out: Path) -> None:
    """Write examples.parquet; histories oldest first."""
    users, items, splits = _ids(log.users), _ids(log.items), pa.array(SPLITS)

    def histories(part: slice) -> pa.ListArray:
        offsets, rows = examples.histories(part)
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), items.take(pa.array(log.item[rows])))

    chunks = (
        pa.table({"example_id": np.arange(rows.start, rows.stop), "split": splits.take(pa.array(examples.split[rows])),
                  "user_id": users.take(pa.array(examples.user[rows])),
                  "history": histories(rows),
                  "timestamp": log.time[examples.target[rows]]})
        for rows in _chunks(len(examples))
    )  # fmt: skip
    schema.write_chunks(chunks, schema.EXAMPLES, out / "examples.parquet")


def write_earlier(log: Log, examples: Examples, out: Path) -> None:
    """Write earlier.parquet: what stands before the histories of validation and test examples."""
    items = _ids(log.items)
    held_out = int(np.searchsorted(examples.split, 1))  # examples are sorted by split

    def earlier(rows: slice) -> pa.Table:
        part = slice(held_out + rows.start, held_out + rows.stop)
        offsets, found = examples.earlier(part)
        lists = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), items.take(pa.array(log.item[found])))
        some = pa.array(np.diff(offsets) > 0)
        return pa.table({"example_id": np.arange(part.start, part.stop), "items": lists}).filter(some)

    chunks = (earlier(rows) for rows in _chunks(len(examples) - held_out, _LISTS))
    schema.write_chunks(chunks, schema.EARLIER, out / "earlier.parquet")


def write_candidates(log: Log, candidates: Candidates, out: Path) -> None:
    """Write candidates.parquet."""
    items = _ids(log.items)
    chunks = (
        pa.table({"example_id": candidates.example[rows], "item_id": items.take(pa.array(candidates.item[rows])),
                  "label": candidates.label[rows]})
        for rows in _chunks(len(candidates.item))
    )  # fmt: skip
    schema.write_chunks(chunks, schema.CANDIDATES, out / "candidates.parquet")


def digest_of_test_lists(log: Log, examples: Examples, candidates: Candidates) -> str:
    """Return the digest of the test lists: the same as that of the rows in candidates.parquet."""
    tested, items = examples.split == SPLITS.index("test"), _ids(log.items)
    columns: dict[str, Codes] = {
        "example_id": candidates.example, "label": candidates.label, "item_id": candidates.item,
    }  # fmt: skip

    def column(name: str) -> Iterator[pa.Array]:
        for rows in _chunks(len(candidates)):
            values = pa.array(columns[name][rows][tested[candidates.example[rows]]])
            yield items.take(values) if name == "item_id" else values

    return schema.candidates_digest(column)


def write_truth(log: Log, examples: Examples, candidates: Candidates, dataset: SyntheticDataset, out: Path) -> None:
    """Write truth.parquet: the true log-odds of every held-out candidate when its target was chosen, in their order."""
    rows = np.flatnonzero(examples.split[candidates.example] > 0)
    example, item = candidates.example[rows], candidates.item[rows]
    users, items = _ids(log.users).take(pa.array(examples.user[example])), _ids(log.items).take(pa.array(item))
    times = log.time[examples.target[example]]
    score = dataset.choice_log_odds(users.to_pylist(), items.to_pylist(), times)
    columns = {"example_id": example.astype(np.int64), "item_id": items, "score": score}
    schema.write_table(pa.table(columns), schema.TRUTH, out / "truth.parquet")


def _chunks(rows: int, step: int = _ROWS) -> Iterator[slice]:
    return (slice(begin, min(begin + step, rows)) for begin in range(0, rows, step))


def _ids(ids: pl.Series) -> pa.StringArray:
    # Polars hands out large strings, whose 64-bit offsets the schemas do not have.
    return ids.to_arrow().cast(pa.string())
