"""Baselines that are one pass over the tables: nothing is fitted."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from msr_adapter import heuristics
from msr_adapter.arrays import Floats
from msr_adapter.errors import StageError, plural
from msr_adapter.evaluate.baselines.training_log import BaselineInputs, repeats_are_kept
from msr_adapter.evaluate.candidates import HeldOut, flat, item_codes
from msr_adapter.schema import EXAMPLES, TRUTH, read_table


def random_scores(inputs: BaselineInputs) -> Floats:
    """Score candidates (n,) by random numbers, drawn from the seed."""
    # The seed alone draws the signs of tests: with 1 beside it, this is another stream.
    return np.asarray(np.random.default_rng((inputs.seed, 1)).random(inputs.held_out.table.num_rows))


def popularity_scores(inputs: BaselineInputs) -> Floats:
    """Score candidates (n,) by the training interactions of the item."""
    codes = item_codes(inputs.held_out.items, flat(inputs.items["item_id"]))
    return heuristics.popularity(codes, inputs.items["popularity"].to_numpy())


def repeat_scores(inputs: BaselineInputs) -> Floats | None:
    """Score candidates (n,) by how often the user had the item, then how lately; the others by popularity.

    None unless repeats are kept: then every target is new, and this is popularity.
    """
    if not repeats_are_kept(inputs.data_dir):
        return None
    queries, counts = inputs.queries, inputs.items["popularity"].to_numpy()
    scores, _ = heuristics.repeat_scores(
        queries.candidates, queries.offsets, queries.history, queries.history_offsets, counts
    )
    return scores


def recency_scores(inputs: BaselineInputs) -> Floats | None:
    """Score candidates (n,) by how shortly before the target's time training last saw the item.

    None when the log has no times that two users share: then an item's last time says nothing.
    """
    log, held_out = inputs.log, inputs.held_out
    if not heuristics.has_timestamps(log.time):
        return None
    examples = read_table(inputs.data_dir / "examples.parquet", EXAMPLES)
    test = examples.filter(pc.is_in(examples["example_id"], value_set=pa.array(held_out.example_ids)))
    times = np.repeat(test["timestamp"].to_numpy(), np.diff(held_out.offsets))
    known = heuristics.TrainingLog(log.item, log.time, log.items)
    return heuristics.recency(inputs.queries.candidates, times, known)


def title_overlap_scores(inputs: BaselineInputs) -> Floats:
    """Score candidates (n,) by the cosine of the title with the titles of the history."""
    queries, titles = inputs.queries, heuristics.title_vectors(inputs.items["title"].to_pylist())
    return heuristics.title_overlap(
        titles, queries.candidates, queries.offsets, queries.history, queries.history_offsets
    )


def oracle_scores(inputs: BaselineInputs) -> Floats | None:
    """Score candidates (n,) by how probably each is its list's target; None where the truth is not known.

    The log of the softmax, within the list, of the synthetic dataset's true log-odds. Within a list that is the order
    of the true preferences; across lists it is what no scorer's pooled AUC is better than, which preferences themselves
    are not: of two users' favourites, the one with a rival in its list is chosen less often.
    """
    path, held_out = inputs.data_dir / "truth.parquet", inputs.held_out
    if not path.exists():
        return None
    truth = read_table(path, TRUTH)
    items = held_out.items.unique()
    known = _pair_codes(held_out, flat(truth["example_id"]), flat(truth["item_id"]), items)
    asked = _pair_codes(held_out, flat(held_out.table["example_id"]), held_out.items, items)
    rows = pc.index_in(asked, value_set=known)
    if rows.null_count:
        count = rows.null_count
        have = "has" if count == 1 else "have"
        raise StageError(
            f"{plural(count, 'candidate')} {have} no true score", next_step="run again with `--force data`"
        )
    odds = np.asarray(truth["score"].to_numpy()[rows.to_numpy()])
    starts, sizes = held_out.offsets[:-1], np.diff(held_out.offsets)
    odds = odds - np.repeat(np.maximum.reduceat(odds, starts), sizes)
    return np.asarray(odds - np.repeat(np.log(np.add.reduceat(np.exp(odds), starts)), sizes))


def _pair_codes(held_out: HeldOut, examples: pa.Array, items: pa.Array, catalogue: pa.Array) -> pa.Array:
    """Number (example, item) pairs; a pair that no test example or candidate is part of becomes -1."""
    example = pc.index_in(examples, value_set=pa.array(held_out.example_ids)).cast(pa.int64())
    item = pc.index_in(items, value_set=catalogue).cast(pa.int64())
    return pc.add(pc.multiply(example, len(catalogue)), item).fill_null(-1)
