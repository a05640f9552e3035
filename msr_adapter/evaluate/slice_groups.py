"""Which group of a slice each test user is in."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from msr_adapter.arrays import Integers
from msr_adapter.config.schema import SliceTablesConfig
from msr_adapter.errors import Problem, UserError
from msr_adapter.evaluate.candidates import HeldOut, flat, item_codes
from msr_adapter.heuristics import has_timestamps
from msr_adapter.schema import EXAMPLES, ITEMS, read_table

BINS = 4
"""Groups that a number is cut into, at its quantiles."""
VALUES = 10
"""Values of a text that are groups of their own; the rest is pooled."""
OTHER, NONE = "(other)", "(none)"
"""Groups that are no value of the data, in brackets because `other` may be one."""

_WHOLE = 10**15

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

    @property
    def popularity(self) -> Integers:
        """Training interactions of every item (items,)."""
        return np.asarray(self.items["popularity"].to_numpy())


def read_facts(held_out: HeldOut, data_dir: Path) -> UserFacts:
    """Read what is known of the test users and their targets. Raises StageError on a target that is no item."""
    examples = read_table(data_dir / "examples.parquet", EXAMPLES)
    test = examples.filter(pc.is_in(examples["example_id"], value_set=pa.array(held_out.example_ids)))
    items = read_table(data_dir / "items.parquet", ITEMS)
    positives = np.flatnonzero(held_out.labels)
    first = positives[np.searchsorted(positives, held_out.offsets[:-1])]
    target = item_codes(held_out.items.take(pa.array(first)), flat(items["item_id"]))
    return UserFacts(
        history=pc.list_value_length(flat(test["history"])).to_numpy().astype(np.int64),
        time=test["timestamp"].to_numpy(),
        target=target,
        items=items,
        user_ids=held_out.user_ids,
    )


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
    part[counts == 0] = 2
    return used("item popularity", ("head", "mid", "tail"), part[facts.target])


def by_cold(facts: UserFacts) -> Slice:
    """Return the users by whether training saw their target."""
    seen = facts.popularity[facts.target] > 0
    return used("cold items", ("seen in training", "unseen in training"), np.where(seen, 0, 1))


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
        edges = np.unique(np.quantile(values[known], np.arange(1, BINS) / BINS, method="lower"))
    else:
        edges = distinct[:-1]
    group = np.where(known, np.searchsorted(edges, values, side="left"), len(edges) + 1)
    parts = [values[group == number] for number in range(len(edges) + 1)]
    names = [_span(write(part.min()), write(part.max())) if len(part) else "" for part in parts]
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


def _span(low: str, high: str) -> str:
    return low if low == high else f"{low}-{high}" if high.isdigit() and low.isdigit() else f"{low} to {high}"


def used(name: str, values: Sequence[str], group: Numbers) -> Slice:
    """Return the slice without the groups that nobody is in; ``group`` (users,) counts ``values``."""
    present, compact = np.unique(group, return_inverse=True)
    return Slice(name, tuple(values[number] for number in present), compact.astype(np.int64))


# Slices by the columns of the user's own tables of items and users.

_ID_COLUMNS = {"items": ("item_id", "item"), "users": ("user_id", "user")}
_GROUPED = (pl.String, pl.Categorical, pl.Enum, pl.Boolean, pl.Date, pl.Datetime, pl.Null)
_TEXT: Any = {"infer_schema_length": None, "try_parse_dates": True, "null_values": ["nan", "NaN"]}
_READERS: dict[str, Callable[[Path], pl.LazyFrame]] = {
    ".csv": lambda path: pl.scan_csv(path, **_TEXT),
    ".tsv": lambda path: pl.scan_csv(path, separator="\t", **_TEXT),
    ".parquet": pl.scan_parquet,
}


def check_tables(tables: SliceTablesConfig, where: str) -> list[Problem]:
    """Return every problem with the tables that their headers show."""
    return [problem for kind, path in _given(tables) if (problem := _check(kind, path, where))]


def table_slices(tables: SliceTablesConfig, facts: UserFacts) -> list[Slice]:
    """Return one slice per column: numbers and dates cut at quartiles, texts by value; an id without a row is `NONE`.

    Columns of lists, bytes and the like give none. Raises UserError when an id has two rows.
    """
    found = []
    for kind, path in _given(tables):
        frame, key = _read(kind, path)
        joined = _ids(kind, key, facts).join(frame, on=key, how="left", maintain_order="left")
        names = [name for name in frame.columns if name != key and _can_group(frame[name])]
        found += [_slice(f"{kind}: {name}", joined[name]) for name in names]
    return found


def table_findings(tables: SliceTablesConfig, facts: UserFacts) -> list[dict[str, str]]:
    """Return what the tables could not be used for, as {severity, text}: ids that are not theirs, odd columns."""
    found = []
    for kind, path in _given(tables):
        frame, key = _read(kind, path)
        asked, known = _ids(kind, key, facts)[key].to_list(), frame[key].drop_nulls().to_list()
        if not set(asked) & set(known):
            whose = "any test user" if kind == "users" else "any test user's target"
            text = f"{path.name} has no row of {whose}, so it gives no slices: its {key} is {_first(known)}, "
            found.append({"severity": "warning", "text": f"{text}the data's {_first(asked)}."})
        if odd := [name for name in frame.columns if not _can_group(frame[name])]:
            text = f"No slice by {', '.join(odd)} of {path.name}: neither numbers nor dates nor texts."
            found.append({"severity": "info", "text": text})
    return found


def _ids(kind: str, key: str, facts: UserFacts) -> pl.DataFrame:
    """Return each test user's id in the table: the target's, or the user's own (users,)."""
    ids = facts.items["item_id"].take(facts.target) if kind == "items" else facts.user_ids
    return pl.DataFrame({key: pl.Series(ids.to_pylist(), dtype=pl.String)})


def _first(ids: Sequence[str]) -> str:
    return f"{ids[0]} .." if len(ids) > 1 else "".join(ids) or "empty"


def _can_group(column: pl.Series) -> bool:
    return column.dtype.is_numeric() or column.dtype in _GROUPED


def _given(tables: SliceTablesConfig) -> list[tuple[str, Path]]:
    return [(kind, path) for kind, path in (("items", tables.items), ("users", tables.users)) if path is not None]


def _check(kind: str, path: Path, where: str) -> Problem | None:
    field = f"evaluate.tables.{kind}"
    if path.suffix not in _READERS:
        found = f"{path}: a file called *{path.suffix}" if path.suffix else f"{path}: a file without a suffix"
        return Problem(where, field, found, f"one of {', '.join(_READERS)}", "Save the table as one of these")
    try:
        names = _READERS[path.suffix](path).collect_schema().names()
    except (OSError, pl.exceptions.PolarsError) as error:
        return Problem(where, field, f"{path} cannot be read ({str(error).splitlines()[0]})", next_step="Correct it")
    if not set(names) & set(_ID_COLUMNS[kind]):
        return Problem(where, field, f"{path} has the columns {', '.join(names)}",
                       f"one of them called {' or '.join(_ID_COLUMNS[kind])}", "Rename the column of ids")  # fmt: skip
    return None


def _read(kind: str, path: Path) -> tuple[pl.DataFrame, str]:
    """Return the table and the name of its column of ids, which is text: leading zeros survive."""
    lazy = _READERS[path.suffix](path)
    key = next(name for name in _ID_COLUMNS[kind] if name in lazy.collect_schema().names())
    if path.suffix != ".parquet":
        separator = "\t" if path.suffix == ".tsv" else ","
        lazy = pl.scan_csv(path, separator=separator, schema_overrides={key: pl.String}, **_TEXT)
    frame = lazy.with_columns(pl.col(key).cast(pl.String)).collect()
    twice = frame.filter(pl.col(key).is_duplicated())
    if len(twice):
        first = twice[key][0]
        found = f"{twice[key].n_unique():,} ids have several rows, e.g. {first}"
        raise UserError(Problem(str(path), key, found, "one row per id", "Keep one row of each"))
    return frame, key


def _slice(name: str, column: pl.Series) -> Slice:
    if column.dtype in (pl.Date, pl.Datetime):
        return by_day(name, column.dt.epoch("d").cast(pl.Float64).to_numpy())
    if column.dtype.is_numeric():
        return by_number(name, column.cast(pl.Float64).to_numpy())
    return by_text(name, column.cast(pl.String).to_list())
