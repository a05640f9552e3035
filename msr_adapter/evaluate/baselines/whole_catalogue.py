"""The heuristics over the whole catalogue, block by block: exact, as every item is scored for every user."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from msr_adapter import heuristics
from msr_adapter.arrays import Floats, Integers
from msr_adapter.evaluate.baselines.training_log import BaselineInputs, CatalogueScorer, Queries, repeats_are_kept
from msr_adapter.evaluate.catalogue_ranking import Blocks
from msr_adapter.schema import EXAMPLES, read_table


def fitted_blocks(scorer: CatalogueScorer, queries: Queries) -> Blocks:
    """Return the blocks of a fitted baseline."""

    def blocks(step: int) -> Iterator[tuple[Integers, Floats]]:
        for users in _in_order(queries.users, step):
            yield users, np.require(scorer(queries, int(users[0]), int(users[-1]) + 1), requirements="W")

    return blocks


def popularity_blocks(inputs: BaselineInputs) -> Blocks:
    """Return blocks of the items' training interactions."""
    scores = inputs.items["popularity"].to_numpy().astype(np.float64)

    def blocks(step: int) -> Iterator[tuple[Integers, Floats]]:
        for users in _in_order(len(inputs.held_out.example_ids), step):
            yield users, np.tile(scores, (len(users), 1))

    return blocks


def recency_blocks(inputs: BaselineInputs) -> Blocks | None:
    """Return blocks of when training last saw each item before the target's time; None without times in common.

    Users come in the order of their targets' times, so that one pass over the log serves all.
    """
    log = inputs.log
    if not heuristics.has_timestamps(log.time):
        return None
    examples = read_table(inputs.data_dir / "examples.parquet", EXAMPLES, ["example_id", "timestamp"])
    test = examples.filter(pc.is_in(examples["example_id"], value_set=pa.array(inputs.held_out.example_ids)))
    moments = test["timestamp"].to_numpy()
    by_time = np.argsort(log.time, kind="stable")
    items, times = log.item[by_time], log.time[by_time]
    order = np.argsort(moments, kind="stable")
    ends = np.searchsorted(times, moments, side="left")  # strictly earlier rows alone

    def blocks(step: int) -> Iterator[tuple[Integers, Floats]]:
        last, done = np.full(log.items, times[0] - 1.0), 0  # below every item that was seen
        for first in range(0, len(order), step):
            users = order[first : first + step]
            scores = np.empty((len(users), log.items))
            for row, end in enumerate(ends[users].tolist()):
                last[items[done:end]] = times[done:end]  # of an item that comes twice, the later one stays
                scores[row], done = last, end
            yield users, scores

    return blocks


def repeat_blocks(inputs: BaselineInputs) -> Blocks | None:
    """Return blocks of how often the user had each item; None unless repeats are kept."""
    if not repeats_are_kept(inputs.data_dir):
        return None
    queries, counts = inputs.queries, inputs.items["popularity"].to_numpy()

    def blocks(step: int) -> Iterator[tuple[Integers, Floats]]:
        for users in _in_order(queries.users, step):
            bounds = queries.history_offsets[users[0] : users[-1] + 2]
            history, every = queries.history[bounds[0] : bounds[-1]], np.tile(np.arange(len(counts)), len(users))
            ends = len(counts) * np.arange(len(users) + 1)
            scores, _ = heuristics.repeat_scores(every, ends, history, bounds - bounds[0], counts)
            yield users, scores.reshape(len(users), len(counts))

    return blocks


def title_overlap_blocks(inputs: BaselineInputs) -> Blocks:
    """Return blocks of the cosines of titles with the titles of the history."""
    queries, titles = inputs.queries, heuristics.title_vectors(inputs.items["title"].to_pylist())
    index = heuristics.title_index(titles)

    def blocks(step: int) -> Iterator[tuple[Integers, Floats]]:
        for users in _in_order(queries.users, step):
            bounds = queries.history_offsets[users[0] : users[-1] + 2]
            history = queries.history[bounds[0] : bounds[-1]]
            yield users, heuristics.title_overlap_with_all(titles, index, history, bounds - bounds[0])

    return blocks


def _in_order(users: int, step: int) -> Iterator[Integers]:
    return (np.arange(first, min(first + step, users)) for first in range(0, users, step))
