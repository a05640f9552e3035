"""Scorers that every trained model must be seen beside; each scores the very same candidates."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from msr_adapter.errors import StageError
from msr_adapter.evaluate.candidates import HeldOut, flat
from msr_adapter.schema import ITEMS, TRUTH, read_table

Floats = npt.NDArray[np.float64]


def random_scores(held_out: HeldOut, data_dir: Path, seed: int) -> Floats:
    """Score candidates (n,) by a seeded coin."""
    return np.asarray(np.random.default_rng((seed, 1)).random(held_out.table.num_rows))


def popularity_scores(held_out: HeldOut, data_dir: Path, seed: int) -> Floats:
    """Score candidates (n,) by how often training users took the item."""
    items = read_table(data_dir / "items.parquet", ITEMS)
    rows = pc.index_in(held_out.items, value_set=flat(items["item_id"]))
    if rows.null_count:
        raise StageError(f"{rows.null_count} candidates are no known item", next_step="run again with `--force data`")
    popularity = items["popularity"].to_numpy().astype(np.float64)
    return np.asarray(popularity[rows.to_numpy()])


BASELINES: dict[str, Callable[[HeldOut, Path, int], Floats]] = {
    "random": random_scores,
    "popularity": popularity_scores,
}


def oracle_scores(held_out: HeldOut, data_dir: Path) -> Floats | None:
    """Score candidates (n,) by the generated shop's true tastes; None where the truth is not known."""
    path = data_dir / "truth.parquet"
    if not path.exists():
        return None
    truth = read_table(path, TRUTH)
    items = held_out.items.unique()
    owners = held_out.user_ids.take(pa.array(np.repeat(np.arange(len(held_out.user_ids)), np.diff(held_out.offsets))))
    known = _pair_codes(held_out, flat(truth["user_id"]), flat(truth["item_id"]), items)
    rows = pc.index_in(_pair_codes(held_out, owners, held_out.items, items), value_set=known)
    if rows.null_count:
        raise StageError(f"{rows.null_count} candidates have no true score", next_step="run again with `--force data`")
    return np.asarray(truth["score"].to_numpy()[rows.to_numpy()])


def _pair_codes(held_out: HeldOut, users: pa.Array, items: pa.Array, catalogue: pa.Array) -> pa.Array:
    """Number (user, item) pairs; a pair that no test user or candidate is part of becomes -1."""
    user = pc.index_in(users, value_set=held_out.user_ids).cast(pa.int64())
    item = pc.index_in(items, value_set=catalogue).cast(pa.int64())
    return pc.add(pc.multiply(user, len(catalogue)), item).fill_null(-1)
