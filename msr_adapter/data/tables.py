"""The stage's tables: codes become ids again, in the schemas that all stages share."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from msr_adapter import schema
from msr_adapter.data.candidates import Candidates
from msr_adapter.data.corpus import Log, Mask, Rows
from msr_adapter.data.images import Stored
from msr_adapter.data.split import SPLITS, Examples
from msr_adapter.shop import Shop

Numbers = NDArray[np.integer]


@dataclass(frozen=True)
class Catalogue:
    """What is known of every item, one entry per item code."""

    ids: Sequence[str]
    titles: Sequence[str]
    texts: Sequence[str]
    categories: Sequence[str | None]


def write_items(items: Catalogue, images: Sequence[Stored], popularity: Rows, out: Path) -> None:
    """Write items.parquet: one row per item of the catalogue, sorted by id."""
    columns = {
        "item_id": list(items.ids),
        "title": list(items.titles),
        "image": pa.array([image.path for image in images], pa.string()),
        "image_digest": pa.array([image.digest for image in images], pa.string()),
        "popularity": popularity,
        "text": list(items.texts),
        "category": pa.array(items.categories, pa.string()),
    }
    schema.write_table(pa.table(columns), schema.ITEMS, out / "items.parquet")


def write_interactions(log: Log, training: Mask, out: Path) -> None:
    """Write interactions.parquet: the kept log, sorted by user, time, row; ``training`` is what training may know."""
    columns = {
        "user_id": _users(log, log.user),
        "item_id": _items(log, log.item),
        "timestamp": log.time,
        "training": training,
    }
    schema.write_table(pa.table(columns), schema.INTERACTIONS, out / "interactions.parquet")


def write_examples(log: Log, examples: Examples, out: Path) -> None:
    """Write examples.parquet; histories oldest first."""
    columns = {
        "example_id": np.arange(len(examples)),
        "split": pa.array(SPLITS).take(pa.array(examples.split)),
        "user_id": _users(log, examples.user),
        "history": _histories(log, examples),
        "timestamp": log.time[examples.target],
    }
    schema.write_table(pa.table(columns), schema.EXAMPLES, out / "examples.parquet")


def write_candidates(log: Log, candidates: Candidates, out: Path) -> None:
    """Write candidates.parquet."""
    columns = {
        "example_id": candidates.example,
        "item_id": _items(log, candidates.item),
        "label": candidates.label,
    }
    schema.write_table(pa.table(columns), schema.CANDIDATES, out / "candidates.parquet")


def write_truth(log: Log, examples: Examples, candidates: Candidates, shop: Shop, out: Path) -> None:
    """Write truth.parquet: the true taste of every distinct candidate pair, sorted by user and item."""
    pairs = np.unique(examples.user[candidates.example] * len(log.items) + candidates.item)
    users, items = _users(log, pairs // len(log.items)), _items(log, pairs % len(log.items))
    score = shop.taste(users.to_pylist(), items.to_pylist())
    schema.write_table(
        pa.table({"user_id": users, "item_id": items, "score": score}), schema.TRUTH, out / "truth.parquet"
    )


def _histories(log: Log, examples: Examples) -> pa.ListArray:
    lengths = examples.target - examples.start
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    rows = np.repeat(examples.start - offsets[:-1], lengths) + np.arange(offsets[-1])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), _items(log, log.item[rows]))


def _users(log: Log, codes: Numbers) -> pa.Array:
    return pa.array(log.users.to_list(), pa.string()).take(pa.array(codes))


def _items(log: Log, codes: Numbers) -> pa.Array:
    return pa.array(log.items.to_list(), pa.string()).take(pa.array(codes))
