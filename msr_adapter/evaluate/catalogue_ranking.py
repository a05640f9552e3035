"""Rankings of the whole catalogue, block by block: where targets stand, and which items stand first.

A user's choices are the catalogue without what the user has seen, as in the lists of the protocol `full-ranking`:
nothing that the user interacted with in any split, nor what a filter dropped, and under a split by time nothing that
appears later, but the targets are among them. Memory is a block of (users, items), however many users there are.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from msr_adapter.arrays import Floats, Integers, Rows, contains, ranges
from msr_adapter.errors import StageError, plural
from msr_adapter.evaluate.candidates import HeldOut, flat, item_codes, read_items
from msr_adapter.metrics import TargetRanks
from msr_adapter.schema import (
    CANDIDATES,
    EXAMPLES,
    FULL_RANKS,
    INTERACTIONS,
    OFFERED,
    SEEN,
    read_chunks,
    read_table,
    write_table,
)

BLOCK = 2**23
"""Scores of the whole catalogue that are held at a time."""
MOST_ITEMS = 1_000_000
"""Items from which on a catalogue is not ranked unasked."""

Blocks = Callable[[int], Iterator[tuple[Integers, Floats]]]
"""``blocks(step)`` yields all users, in any order, at most ``step`` at a time, with a score of every item for each of
them: (users,), and (users, items), an array that may be changed."""


@dataclass(frozen=True)
class CatalogueChoices:
    """What each user's targets are ranked among."""

    items: int
    """Size of the catalogue."""
    targets: Integers
    """Rows of ITEMS (targets,), by user."""
    target_offsets: Rows
    """(users + 1,)"""
    hidden: Integers
    """What the users have seen, their targets left out: rows of ITEMS, by user."""
    hidden_offsets: Rows
    """(users + 1,)"""
    first: Integers | None = None
    """When each item appears (items,); None where all are on offer all the time."""
    times: Integers | None = None
    """When each user's targets are (users,)."""

    @property
    def users(self) -> int:
        """Number of users."""
        return len(self.target_offsets) - 1

    @property
    def owners(self) -> Integers:
        """The user of each target (targets,)."""
        return np.repeat(np.arange(self.users), np.diff(self.target_offsets))

    @cached_property
    def sizes(self) -> Integers:
        """Items that each user's ranking has (users,)."""
        if self.first is None or self.times is None:
            return self.items - np.diff(self.hidden_offsets)
        offered = np.searchsorted(np.sort(self.first), self.times, side="right")
        owner = np.repeat(np.arange(self.users), np.diff(self.hidden_offsets))
        there = self.first[self.hidden] <= self.times[owner]
        return np.asarray(offered - np.bincount(owner[there], minlength=self.users))

    @property
    def step(self) -> int:
        """Users whose scores make one block."""
        return max(1, BLOCK // self.items)

    def hide(self, users: Integers, scores: Floats) -> None:
        """Put what is no choice of ``users`` at the end of their ``scores`` (users, items), in place."""
        lengths = self.hidden_offsets[users + 1] - self.hidden_offsets[users]
        rows = np.repeat(np.arange(len(users)), lengths)
        scores[rows, self.hidden[ranges(self.hidden_offsets[users], lengths)]] = -np.inf
        if self.first is not None and self.times is not None:
            scores[self.first > self.times[users][:, None]] = -np.inf


def read_choices(held_out: HeldOut, data_dir: Path, exclude: str | None = "seen") -> CatalogueChoices:
    """Read what each user of ``held_out`` may be shown; what is seen is a choice too where ``exclude`` is `target`.

    O(rows of the log) time; memory is the rows of these users.
    """
    items = flat(read_items(data_dir)["item_id"])
    positive = np.flatnonzero(held_out.labels)
    owner = np.searchsorted(held_out.offsets, positive, side="right") - 1
    targets = item_codes(held_out.items.take(pa.array(positive)), items)
    counts = np.bincount(owner, minlength=len(held_out.example_ids))
    user, item = _seen_pairs(held_out, data_dir, items) if exclude != "target" else (owner[:0], targets[:0])
    own = contains(np.sort(owner * len(items) + targets), user * len(items) + item)
    user, item = user[~own], item[~own]
    hidden = np.bincount(user, minlength=len(held_out.example_ids))
    first, times = _offers(held_out, data_dir)
    return CatalogueChoices(len(items), targets, _offsets(counts), item, _offsets(hidden), first, times)


def _offers(held_out: HeldOut, data_dir: Path) -> tuple[Integers | None, Integers | None]:
    """Return when items appear and when targets are; None where all items are on offer all the time."""
    path = data_dir / "offered.parquet"
    if not path.exists():
        return None, None
    examples = read_table(data_dir / "examples.parquet", EXAMPLES, ["example_id", "timestamp"])
    mine = examples.filter(pc.is_in(examples["example_id"], value_set=pa.array(held_out.example_ids)))
    return read_table(path, OFFERED)["first"].to_numpy(), mine["timestamp"].to_numpy()


def _seen_pairs(held_out: HeldOut, data_dir: Path, items: pa.Array) -> tuple[Integers, Integers]:
    """Return the distinct pairs of a user's number in ``held_out`` and an item that the user has seen, by user."""
    people = held_out.user_ids.dictionary_encode()
    named = people.indices.to_numpy().astype(np.int64)
    users, seen = [np.empty(0, np.int64)], [pa.array([], pa.string())]
    for name, schema in (("interactions.parquet", INTERACTIONS), ("seen.parquet", SEEN)):
        for chunk in read_chunks(data_dir / name, schema):
            found = pc.index_in(flat(chunk["user_id"]), value_set=people.dictionary)
            users.append(found.drop_null().to_numpy().astype(np.int64))
            seen.append(flat(chunk["item_id"]).filter(found.is_valid()))
    keys = np.unique(np.concatenate(users) * len(items) + item_codes(pa.concat_arrays(seen), items))
    who, what = keys // len(items), keys % len(items)
    bounds = np.searchsorted(who, np.arange(len(people.dictionary) + 1))
    # A user with several examples has seen the same before each.
    lengths = np.diff(bounds)[named]
    return np.repeat(np.arange(len(named)), lengths), what[ranges(bounds[:-1][named], lengths)]


def _offsets(counts: Integers) -> Rows:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def is_ranked_whole(items: int) -> bool:
    """Return whether so many items are ranked for every user whatever was asked for."""
    return items < MOST_ITEMS


def rank_targets(choices: CatalogueChoices, blocks: Blocks, name: str) -> TargetRanks:
    """Return where the targets stand by the scores of ``blocks``. O(users x items x targets of a user) time.

    Raises StageError, with the count, on scores that are no numbers; ``name`` says whose they are.
    """
    ranking = _Ranking(choices)
    for users, scores in blocks(choices.step):
        _require_finite(scores, name)
        choices.hide(users, scores)
        ranking.add(users, scores)
    return TargetRanks(choices.owners, ranking.above, ranking.tied, choices.sizes)


class _Ranking:
    """Counts of what stands above and beside each target, filled block by block."""

    def __init__(self, choices: CatalogueChoices) -> None:
        self.above, self.tied = (np.zeros(len(choices.targets), np.int64) for _ in range(2))
        self._choices = choices

    def add(self, users: Integers, scores: Floats) -> None:
        """Count among ``scores`` (users, items), in which what is no choice stands last."""
        first, end = self._choices.target_offsets[users], self._choices.target_offsets[users + 1]
        for place in range(int((end - first).max())):
            rows = np.flatnonzero(first + place < end)
            targets = first[rows] + place
            some = scores if len(rows) == len(users) else scores[rows]
            own = scores[rows, self._choices.targets[targets]][:, None]
            self.above[targets] = np.count_nonzero(some > own, axis=1)
            self.tied[targets] = np.count_nonzero(some == own, axis=1)


def _require_finite(scores: Floats, name: str) -> None:
    if broken := scores.size - int(np.count_nonzero(np.isfinite(scores))):
        are_not = "is not a number" if broken == 1 else "are not numbers"
        found = f"{plural(broken, 'score')} of {name} over the whole catalogue {are_not}"
        raise StageError(found, "the fit diverged", "change its settings, or leave it out of evaluate.baselines")


def top_items(choices: CatalogueChoices, blocks: Blocks, popularity: Integers, top: int) -> tuple[Rows, Integers]:
    """Return the ``top`` choices of each user, best first: offsets (users + 1,) and rows of ITEMS.

    Of equally scored items the more popular ones come first, then those whose id does: which is the target plays no
    part. A user with fewer choices has them all. O(users x items) time.
    """
    order = np.argsort(-popularity, kind="stable")
    owners, found = [np.empty(0, np.int64)], [order[:0]]
    for users, scores in blocks(choices.step):
        choices.hide(users, scores)
        row, place = _best(scores[:, order], top)
        owners.append(users[row])
        found.append(order[place])
    owner = np.concatenate(owners)
    # Blocks may come in any order of users; within a user the order stays.
    return _offsets(np.bincount(owner, minlength=choices.users)), np.concatenate(found)[
        np.argsort(owner, kind="stable")
    ]


def _best(scores: Floats, top: int) -> tuple[Integers, Integers]:
    """Return row and column of the ``top`` highest numbers of each row, highest first; of equal ones the first."""
    if top < scores.shape[1]:
        last = np.partition(scores, -top, axis=1)[:, -top][:, None]
        above, level = scores > last, scores == last
        taken = above | (level & (np.cumsum(level, axis=1) <= top - np.count_nonzero(above, axis=1)[:, None]))
    else:
        taken = np.ones(scores.shape, dtype=bool)
    row, column = np.nonzero(taken & np.isfinite(scores))
    sorted_ = np.lexsort((column, -scores[row, column], row))
    return row[sorted_], column[sorted_]


def retrieved_candidates(
    held_out: HeldOut, choices: CatalogueChoices, blocks: Blocks, items: pa.Table, top: int
) -> pa.Table:
    """Return CANDIDATES: the ``top`` choices of each user of ``held_out``, best first; ``items`` is ITEMS."""
    return as_candidates(held_out, choices, top_items(choices, blocks, items["popularity"].to_numpy(), top), items)


def as_candidates(
    held_out: HeldOut, choices: CatalogueChoices, lists: tuple[Rows, Integers], items: pa.Table
) -> pa.Table:
    """Return CANDIDATES of ``lists``, as `top_items` returns them; ``items`` is ITEMS."""
    offsets, found = lists
    owner = np.repeat(np.arange(choices.users), np.diff(offsets))
    own = np.sort(choices.owners * choices.items + choices.targets)
    label = contains(own, owner * choices.items + found).astype(np.int8)
    names = items["item_id"].take(pa.array(found))
    return pa.table({"example_id": held_out.example_ids[owner], "item_id": names, "label": label}, schema=CANDIDATES)


def targets_of(held_out: HeldOut) -> pa.Table:
    """Return example_id and item_id of every target, in the order of CANDIDATES."""
    return held_out.table.filter(pa.array(held_out.labels == 1)).select(["example_id", "item_id"])


def write_ranks(held_out: HeldOut, ranks: TargetRanks, path: Path) -> None:
    """Write FULL_RANKS."""
    table = targets_of(held_out).append_column("above", pa.array(ranks.above))
    write_table(table.append_column("tied", pa.array(ranks.tied)), FULL_RANKS, path)


def read_ranks(held_out: HeldOut, choices: CatalogueChoices, path: Path) -> TargetRanks:
    """Read FULL_RANKS. Raises StageError where they are absent or belong to other targets."""
    step = "run again with `--force baselines`"
    if not path.exists():
        raise StageError(f"no full ranking of {path.name.partition('.')[0]}", next_step=step)
    table, wanted = read_table(path, FULL_RANKS), targets_of(held_out)
    if not all(table[key].equals(wanted[key]) for key in wanted.column_names):
        cause = "it belongs to other candidates, or a file was changed by hand"
        raise StageError(f"{path.name} does not fit the test targets", cause, step)
    return TargetRanks(choices.owners, table["above"].to_numpy(), table["tied"].to_numpy(), choices.sizes)
