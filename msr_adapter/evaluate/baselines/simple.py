"""Baselines that are one pass over the tables: nothing is fitted."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from msr_adapter import heuristics
from msr_adapter.arrays import Floats
from msr_adapter.errors import StageError
from msr_adapter.evaluate.baselines.training_log import item_codes, read_items, read_queries, read_training_log
from msr_adapter.evaluate.candidates import HeldOut, flat
from msr_adapter.schema import EXAMPLES, TRUTH, read_table


def random_scores(held_out: HeldOut, data_dir: Path, seed: int) -> Floats:
    """Score candidates (n,) by a seeded coin."""
    return np.asarray(np.random.default_rng((seed, 1)).random(held_out.table.num_rows))


def popularity_scores(held_out: HeldOut, data_dir: Path, seed: int) -> Floats:
    """Score candidates (n,) by how often training users took the item."""
    items = read_items(data_dir)
    codes = item_codes(held_out.items, flat(items["item_id"]))
    return heuristics.popularity(codes, items["popularity"].to_numpy())


def recency_scores(held_out: HeldOut, data_dir: Path, seed: int) -> Floats | None:
    """Score candidates (n,) by how shortly before the target's time training last saw the item.

    None when the log has no times that two users share: then an item's last time says nothing.
    """
    log = read_training_log(data_dir)
    if not heuristics.has_timestamps(log.time):
        return None
    examples = read_table(data_dir / "examples.parquet", EXAMPLES)
    test = examples.filter(pc.is_in(examples["example_id"], value_set=pa.array(held_out.example_ids)))
    times = np.repeat(test["timestamp"].to_numpy(), np.diff(held_out.offsets))
    codes = read_queries(held_out, data_dir).candidates
    return heuristics.recency(codes, times, heuristics.TrainingLog(log.item, log.time, log.items))


def title_overlap_scores(held_out: HeldOut, data_dir: Path, seed: int) -> Floats:
    """Score candidates (n,) by the cosine of the title with the titles of the history."""
    queries = read_queries(held_out, data_dir)
    titles = heuristics.title_vectors(read_items(data_dir)["title"].to_pylist())
    return heuristics.title_overlap(
        titles, queries.candidates, queries.offsets, queries.history, queries.history_offsets
    )


SIMPLE: dict[str, Callable[[HeldOut, Path, int], Floats | None]] = {
    "popularity": popularity_scores,
    "recency": recency_scores,
    "title-overlap": title_overlap_scores,
    "random": random_scores,
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
