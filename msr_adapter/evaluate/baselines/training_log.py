"""What a baseline learns from and what it is asked: the training log, and histories to rank candidates for."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from msr_adapter.arrays import Floats, Integers, ranges
from msr_adapter.config.schema import EvaluateConfig
from msr_adapter.errors import StageError
from msr_adapter.evaluate.candidates import HeldOut, flat, item_codes, read_items
from msr_adapter.event_schemas import EVENT_WORDS, EVENTS, HISTORY_EVENTS
from msr_adapter.files import read_json_object
from msr_adapter.progress import Advance
from msr_adapter.schema import EARLIER, EXAMPLES, INTERACTIONS, read_table

_BLOCK = 2**23
"""Scores of the whole catalogue that are held at a time."""


@dataclass(frozen=True)
class BaselineLog:
    """The interactions that training may know, in integer codes, by user and oldest first: n rows."""

    user: Integers
    """(n,), 0..users-1."""
    item: Integers
    """(n,), row of ITEMS."""
    time: Integers
    """(n,), milliseconds, or positions when the source has no times."""
    users: int
    items: int
    """Size of the catalogue; items that training never saw have no row here."""
    weight: Floats | None = None
    """What each row counts (n,); None = 1."""

    def pairs(self) -> tuple[Integers, Integers]:
        """Return user and item of every distinct pair, by user; all rows, unless `data.repeats` is keep."""
        keys = self.user * self.items + self.item
        first = np.sort(np.unique(keys, return_index=True)[1])
        return self.user[first], self.item[first]

    def pair_weights(self) -> Floats | None:
        """Return what each of `pairs` counts: the heaviest of its rows; None = 1."""
        if self.weight is None:
            return None
        keys = self.user * self.items + self.item
        _, first, pair = np.unique(keys, return_index=True, return_inverse=True)
        heaviest = np.zeros(len(first))
        np.maximum.at(heaviest, pair, self.weight)
        return np.asarray(heaviest[np.argsort(first, kind="stable")])

    def popularity(self) -> Integers | None:
        """Return what the rows of each item count (items,), in thousandths; None = 1 each."""
        if self.weight is None:
            return None
        thousandths = np.round(1000 * self.weight)
        return np.bincount(self.item, thousandths, minlength=self.items).astype(np.int64)

    def trained(self) -> Integers:
        """Return the items that have a row, as rows of ITEMS: all that a fit may know of the catalogue."""
        return np.flatnonzero(np.bincount(self.item, minlength=self.items))

    def matrix(self) -> Any:
        """Return the log as a sparse (users, items): how often each user interacted with each item, weighed."""
        from scipy.sparse import csr_matrix

        counts = np.ones(len(self.user), np.float32) if self.weight is None else self.weight.astype(np.float32)
        return csr_matrix((counts, (self.user, self.item)), shape=(self.users, self.items))


@dataclass(frozen=True)
class Queries:
    """Users to rank candidates for, as rows of ITEMS."""

    history: Integers
    """All that each user interacted with before the target, one user after the other, oldest first."""
    history_offsets: Integers
    """(users + 1,)"""
    candidates: Integers
    """(n,), in the order of CANDIDATES."""
    offsets: Integers
    """(users + 1,)"""
    history_weight: Floats | None = None
    """What each interaction of the histories counts; None = 1."""

    @property
    def users(self) -> int:
        """Number of users."""
        return len(self.offsets) - 1

    def histories(self, items: int, first: int, last: int) -> Any:
        """Return the histories of users first..last-1 as a sparse (last - first, items): how often each has each.

        Where interactions are weighed, what they count.
        """
        from scipy.sparse import csr_matrix

        bounds = self.history_offsets[first : last + 1]
        found = self.history[bounds[0] : bounds[-1]]
        weights = self.history_weight
        counts = np.ones(len(found)) if weights is None else weights[bounds[0] : bounds[-1]]
        matrix = csr_matrix((counts, found, bounds - bounds[0]), shape=(last - first, items))
        owner = np.repeat(np.arange(last - first), np.diff(bounds))
        if len(np.unique(owner * items + found)) < len(found):  # else the order of the history is kept, bit for bit
            matrix.sum_duplicates()
        return matrix


CatalogueScorer = Callable[[Queries, int, int], Floats]
"""(queries, first, last) -> a score of every item for each of the users first..last-1, (last - first, items)."""


@dataclass(frozen=True)
class Fit:
    """What a baseline is fitted to."""

    log: BaselineLog
    seed: int
    advance: Advance = lambda _: None
    """Called after every step of the fit."""
    judge: Callable[[CatalogueScorer], float] | None = None
    """Tells what a fit is worth so far, on validation users, higher is better; None = nothing is to be chosen."""


@dataclass
class BaselineInputs:
    """What every baseline may read; each table is read once, when a baseline first needs it."""

    held_out: HeldOut
    data_dir: Path
    """Folder of the data stage."""
    config: EvaluateConfig
    seed: int

    @cached_property
    def log(self) -> BaselineLog:
        """The training log."""
        return read_training_log(self.data_dir)

    @cached_property
    def queries(self) -> Queries:
        """The test users' histories and candidates."""
        return read_queries(self.held_out, self.data_dir)

    @cached_property
    def items(self) -> pa.Table:
        """ITEMS, the catalogue."""
        return read_items(self.data_dir)


def read_training_log(data_dir: Path) -> BaselineLog:
    """Read what training may know of `interactions.parquet`; nothing held out is in it. O(rows)."""
    table = read_table(data_dir / "interactions.parquet", INTERACTIONS)
    known = table.filter(table["training"])
    if not known.num_rows:
        raise StageError("training may know no interaction", "the split leaves none", "check split and data.limit")
    users = flat(known["user_id"]).dictionary_encode()
    items = flat(read_items(data_dir)["item_id"])
    return BaselineLog(
        user=users.indices.to_numpy().astype(np.int64),
        item=item_codes(flat(known["item_id"]), items),
        time=known["timestamp"].to_numpy(),
        users=len(users.dictionary),
        items=len(items),
        weight=_weights_of_log(data_dir, known_rows=table["training"]),
    )


def _weights(data_dir: Path) -> Floats | None:
    """Return what each event counts, by its number; None where all count 1."""
    path = data_dir / "event_words.parquet"
    if not path.exists():
        return None
    weights: Floats = read_table(path, EVENT_WORDS)["weight"].to_numpy()
    return weights if (weights != 1).any() else None


def _weights_of_log(data_dir: Path, known_rows: pa.ChunkedArray) -> Floats | None:
    weights = _weights(data_dir)
    if weights is None:
        return None
    events = read_table(data_dir / "events.parquet", EVENTS)["event"].filter(known_rows)
    return np.asarray(weights[events.to_numpy()])


def _weights_of_histories(data_dir: Path, wanted: pa.Array) -> Floats | None:
    """Return what the interactions of whole histories count, as `read_queries` orders them."""
    weights = _weights(data_dir)
    if weights is None:
        return None
    table = read_table(data_dir / "history_events.parquet", HISTORY_EVENTS)
    table = table.filter(pc.is_in(table["example_id"], value_set=wanted))
    (early, some), (late, more) = _lists(table["earlier"]), _lists(table["history"])
    found, ends = np.empty(len(early) + len(late)), np.cumsum(some + more)
    begin = ends - some - more
    found[ranges(begin, some)] = weights[early.to_numpy()]
    found[ranges(begin + some, more)] = weights[late.to_numpy()]
    return found


def read_queries(held_out: HeldOut, data_dir: Path) -> Queries:
    """Read the histories of ``held_out``'s users, whole: `split.max_history` is a limit of prompts.

    The target is no part of them: it is known by its label alone.
    """
    items = flat(read_items(data_dir)["item_id"])
    wanted = pa.array(held_out.example_ids)
    examples = read_table(data_dir / "examples.parquet", EXAMPLES)
    shown = examples.filter(pc.is_in(examples["example_id"], value_set=wanted))
    before = read_table(data_dir / "earlier.parquet", EARLIER)
    before = before.filter(pc.is_in(before["example_id"], value_set=wanted))
    late, late_lengths = _lists(shown["history"])
    early, some_lengths = _lists(before["items"])
    early_lengths = np.zeros(len(held_out.example_ids), np.int64)
    early_lengths[np.searchsorted(held_out.example_ids, before["example_id"].to_numpy())] = some_lengths
    offsets = np.concatenate([[0], np.cumsum(early_lengths + late_lengths)]).astype(np.int64)
    history = np.empty(offsets[-1], np.int64)
    history[ranges(offsets[:-1], early_lengths)] = item_codes(early, items)
    history[ranges(offsets[:-1] + early_lengths, late_lengths)] = item_codes(late, items)
    weights = _weights_of_histories(data_dir, wanted)
    return Queries(history, offsets, item_codes(held_out.items, items), held_out.offsets, weights)


def repeats_are_kept(data_dir: Path) -> bool:
    """Tell whether the next item may be one that the user had before: the audit measures repeats only then."""
    path = data_dir / "audit.json"
    return path.exists() and bool(read_json_object(path).get("statistics", {}).get("repeats"))


def _lists(column: pa.ChunkedArray) -> tuple[pa.Array, Integers]:
    """Return the entries of all lists, and the length of each."""
    lists = flat(column)
    return lists.flatten(), pc.list_value_length(lists).to_numpy().astype(np.int64)


def candidate_scores(scorer: CatalogueScorer, queries: Queries, items: int) -> Floats:
    """Return the scores of the candidates (n,)."""
    return gather(queries, items, partial(scorer, queries))


def gather(queries: Queries, items: int, score: Callable[[int, int], Floats]) -> Floats:
    """Return the candidates' scores (n,): ``score(first, last)`` ranks the whole catalogue for some of the users.

    Memory is a block of (users, items); a user costs one row of it, however many candidates there are.
    """
    step = max(1, _BLOCK // items)
    found = np.empty(len(queries.candidates))
    for first in range(0, queries.users, step):
        last = min(first + step, queries.users)
        bounds = queries.offsets[first : last + 1]
        owner = np.repeat(np.arange(last - first), np.diff(bounds))
        rows = slice(bounds[0], bounds[-1])
        found[rows] = score(first, last)[owner, queries.candidates[rows]]
    return found
