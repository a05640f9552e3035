"""Which group of a slice each test user is in."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from msr_adapter.arrays import Integers, Mask
from msr_adapter.evaluate.baselines.training_log import read_queries, repeats_are_kept
from msr_adapter.evaluate.candidates import HeldOut, flat, item_codes, read_items
from msr_adapter.heuristics import has_timestamps
from msr_adapter.schema import EXAMPLES, read_table

BINS = 4
"""Groups that a number is cut into, at its quantiles."""
VALUES = 10
"""Values of a text that are groups of their own; the rest is pooled."""
OTHER, NONE = "(other)", "(none)"
"""Groups that are no value of the data, in brackets because `other` may be one."""

_WHOLE = 10**15
"""Below it, a float tells every whole number from the next."""

Numbers = npt.NDArray[Any]


@dataclass(frozen=True)
class Slice:
    """A partition of the test users."""

    name: str
    values: tuple[str, ...]
    """Names of the groups, in order."""
    group: Integers
    """Each user's index into ``values`` (users,)."""


@dataclass(frozen=True)
class UserFacts:
    """What slices are cut by: one row per test user; the target is the first positive where there are several."""

    history: Integers
    """Items in the history that models see (users,)."""
    time: Integers
    """The target's (users,)."""
    target: Integers
    """Row of ITEMS (users,)."""
    items: pa.Table
    """ITEMS."""
    user_ids: pa.Array
    repeated: Mask | None = None
    """Whether the target is an item that the user had before it (users,); None = none of them."""

    @property
    def popularity(self) -> Integers:
        """Training interactions of every item (items,)."""
        return np.asarray(self.items["popularity"].to_numpy())


def read_facts(held_out: HeldOut, data_dir: Path) -> UserFacts:
    """Read what is known of the test users and their targets. Raises StageError on a target that is no item."""
    examples = read_table(data_dir / "examples.parquet", EXAMPLES)
    test = examples.filter(pc.is_in(examples["example_id"], value_set=pa.array(held_out.example_ids)))
    items = read_items(data_dir)
    positives = np.flatnonzero(held_out.labels)
    first = positives[np.searchsorted(positives, held_out.offsets[:-1])]
    target = item_codes(held_out.items.take(pa.array(first)), flat(items["item_id"]))
    return UserFacts(
        history=pc.list_value_length(flat(test["history"])).to_numpy().astype(np.int64),
        time=test["timestamp"].to_numpy(),
        target=target,
        items=items,
        user_ids=held_out.user_ids,
        repeated=_repeated(held_out, data_dir, target) if repeats_are_kept(data_dir) else None,
    )


def _repeated(held_out: HeldOut, data_dir: Path, target: Integers) -> Mask:
    """Return whose target stands in the whole history before it (users,)."""
    queries = read_queries(held_out, data_dir)
    owner = np.repeat(np.arange(queries.users), np.diff(queries.history_offsets))
    repeated = np.zeros(queries.users, dtype=bool)
    repeated[owner[queries.history == target[owner]]] = True
    return repeated


def by_history(facts: UserFacts) -> Slice:
    """Return the users by the length of their history."""
    return by_number("history length", facts.history)


def by_popularity(facts: UserFacts) -> Slice:
    """Return the users by their target: head, mid and tail items each have a third of the training interactions."""
    counts = facts.popularity
    order = np.argsort(-counts, kind="stable")
    before = np.concatenate([[0], np.cumsum(counts[order])[:-1]])  # interactions of more popular items
    part = np.empty(len(counts), np.int64)
    part[order] = np.minimum(before * 3 // max(int(counts.sum()), 1), 2)
    part[counts == 0] = 2  # also where nothing has an interaction, and the first third would begin at once
    return used("item popularity", ("head", "mid", "tail"), part[facts.target])


def by_cold(facts: UserFacts) -> Slice:
    """Return the users by whether training saw their target."""
    seen = facts.popularity[facts.target] > 0
    return used("cold items", ("seen in training", "unseen in training"), np.where(seen, 0, 1))


def by_repeat(facts: UserFacts) -> Slice:
    """Return the users by whether they had their target before."""
    repeated = np.zeros(len(facts.target), dtype=bool) if facts.repeated is None else facts.repeated
    return used("repeat", ("had before", "new to the user"), np.where(repeated, 0, 1))


def by_image(facts: UserFacts) -> Slice:
    """Return the users by whether their target has an image."""
    has = facts.items["image"].is_valid().to_numpy()
    return used("image", ("with image", "without image"), np.where(has[facts.target], 0, 1))


def by_category(facts: UserFacts) -> Slice:
    """Return the users by the category of their target."""
    return by_text("category", facts.items["category"].take(pa.array(facts.target)).to_pylist())


def by_time(facts: UserFacts) -> Slice:
    """Return the users by the period of their target; one group where times are positions."""
    if not has_timestamps(facts.time):
        return used("time", ("no time",), np.zeros(len(facts.time), np.int64))
    return by_day("time", facts.time // 86_400_000)


GROUPINGS: dict[str, Callable[[UserFacts], Slice]] = {
    "history": by_history,
    "popularity": by_popularity,
    "cold": by_cold,
    "repeat": by_repeat,
    "image": by_image,
    "category": by_category,
    "time": by_time,
}


def _plain(value: float) -> str:
    """Write whole numbers in full, whatever their length: 20240115 is no 2.02401e+07, which three days would share."""
    return f"{value:.0f}" if float(value).is_integer() and abs(value) < _WHOLE else f"{value:g}"


def by_number(name: str, values: Numbers, write: Callable[[float], str] = _plain) -> Slice:
    """Cut numbers (users,) at their quartiles into groups ``low-high``; NaN is a group of its own at the end.

    Equal numbers stay together, so that there may be fewer groups than `BINS`, of unequal size.
    """
    known = ~np.isnan(values) if np.issubdtype(values.dtype, np.floating) else np.ones(len(values), dtype=bool)
    distinct = np.unique(values[known])
    if len(distinct) > BINS:
        # "lower": an edge is a number that occurs, with which equal ones fall on one side.
        edges = np.unique(np.quantile(values[known], np.arange(1, BINS) / BINS, method="lower"))
    else:
        edges = distinct[:-1]
    group = np.where(known, np.searchsorted(edges, values, side="left"), len(edges) + 1)
    parts = [values[group == number] for number in range(len(edges) + 1)]
    names = []
    for part in parts:
        low, high = (write(part.min()), write(part.max())) if len(part) else ("", "")
        between = "-" if low.isdigit() and high.isdigit() else " to "  # 1-5, but 2024-01-01 to 2024-02-01
        names.append(low if low == high else f"{low}{between}{high}")
    return used(name, [*names, NONE], group)


def by_day(name: str, days: Numbers) -> Slice:
    """Cut days since 1970 (users,) at their quartiles into periods; NaN is a group of its own."""
    return by_number(name, days, write=lambda day: datetime.fromtimestamp(day * 86_400, UTC).date().isoformat())


def by_text(name: str, values: Sequence[str | None]) -> Slice:
    """Group users by a text (users,): the most frequent `VALUES` by name, the others pooled, null as `NONE`.

    Where there are more, a value that one user has is pooled too: names and ids are no groups.
    """
    counts = Counter(value for value in values if value is not None)
    kept = sorted(counts, key=lambda value: (-counts[value], value))[:VALUES]
    kept = [value for value in kept if counts[value] > 1 or len(counts) <= VALUES]
    rows = {value: row for row, value in enumerate(kept)}
    group = [len(kept) + 1 if value is None else rows.get(value, len(kept)) for value in values]
    return used(name, [*kept, OTHER, NONE], np.array(group, np.int64))


def used(name: str, values: Sequence[str], group: Numbers) -> Slice:
    """Return the slice without the groups that nobody is in; ``group`` (users,) counts ``values``."""
    present, compact = np.unique(group, return_inverse=True)
    return Slice(name, tuple(values[number] for number in present), compact.astype(np.int64))
