"""The log of any table: its columns are looked at in one streaming pass, its rows checked, the result is lazy."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import polars as pl

from msr_adapter.data.audit.report import Audit, Severity
from msr_adapter.data.readers.table_layout import Table
from msr_adapter.data.readers.table_scan import collect, scan, schema_of, tell_reading, type_problems, whole_lines
from msr_adapter.data.readers.timestamps import (
    ALLOWED,
    TimeFormat,
    count_too_small,
    is_midnight,
    milliseconds,
    time_format,
    time_statistics,
)
from msr_adapter.data.readers.value_checks import AN_ID, ValueRule, check_rows, is_empty
from msr_adapter.errors import Problem, UserError, plural, raise_if_any

SPLIT_NAMES = {
    "train": "train", "training": "train", "0": "train",
    "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation", "1": "validation",
    "test": "test", "testing": "test", "2": "test",
}  # fmt: skip
"""What a split column may hold, in any case; the numbers are those of MMRec's `x_label`."""

_TIME = "time_"
"""What the names of the statistics of the times begin with."""


@dataclass(frozen=True)
class LogColumns:
    """Which columns of a table are its log, and how strictly they are read."""

    names: Mapping[str, str]
    """Field (user, item, timestamp, split, rating) -> column; all but user and item may be absent."""
    least: float | None = None
    """Rows whose `rating` is lower are dropped, though known as seen."""
    untimed: Literal["refused", "dropped"] = "refused"
    """What becomes of a row whose time is empty."""
    may_be_empty: bool = False
    """Whether all rows may be dropped: what is added to a log need not hold anything that is liked."""
    split: Literal["asked for", "found"] = "found"
    """A split column that is merely found is ignored when it holds anything but names of splits."""


@dataclass(frozen=True)
class _Expressions:
    """The columns of a log as expressions, once their statistics have told how to read them."""

    user: pl.Expr
    item: pl.Expr
    no_user: pl.Expr
    no_item: pl.Expr
    time: pl.Expr | None
    """None = the table has no times."""
    within_a_day: pl.Expr | None
    """Whether a time is not midnight; None for plain numbers, whose midnights say nothing."""
    split: pl.Expr | None
    rating: pl.Expr | None
    low: pl.Expr
    """Whether a row is rated too low."""
    untimed: pl.Expr
    """Whether a row without a time is dropped."""


def read_log(table: Table, wanted: LogColumns, audit: Audit) -> pl.LazyFrame:
    """Return user_id, item_id, timestamp (ms, or the row number) and maybe split, in the order of the file.

    Where rows are dropped, the column `filtered` says which and why, as in `Corpus`. Two streaming passes look at the
    columns and check the rows, in constant memory; the result is lazy: whoever collects it reads the file once more.
    `UserError` with the bad rows.
    """
    names, source = dict(wanted.names), scan(table, wanted.names.values())
    schema = schema_of(table, source)
    raise_if_any(type_problems(table, schema, list(dict.fromkeys(names.values()))))
    facts = collect(table, source.select(**_statistics(names, schema), **whole_lines(table))).row(0, named=True)
    time = None
    if "timestamp" in names:
        of_times = {name.removeprefix(_TIME): value for name, value in facts.items() if name.startswith(_TIME)}
        time = time_format(schema[names["timestamp"]], of_times)
        if few := count_too_small(of_times, time):
            audit.find("warning", f"{table.path.name} has {plural(few, 'time')} before March 1973 in the unit of the "
                       "others: written in another unit, or missing? Correct or remove such rows.")  # fmt: skip
    if facts.get("split_unknown") and wanted.split == "found":
        ignored = names.pop("split")
        severity: Severity = (
            "warning" if facts["split_known"] else "info"
        )  # most of a published split, or another matter
        audit.find(severity, f"The column {ignored} of {table.path.name} is ignored: it holds more than "
                   "train, validation and test. Name it in data.source.columns.split to use it.")  # fmt: skip
    columns = _expressions(names, schema, facts, time, wanted)
    rules = _rules(names, columns)
    bad = pl.any_horizontal(rule.bad for rule in rules)
    counted = _count(table, source, columns, bad)
    tell_reading(table, audit, counted["rows"])
    if counted["bad"]:
        check_rows(table, rules, names.values())
    _tell(table, wanted, counted, audit, has_times=time is not None)
    dropped = counted["low"] + counted["untimed"] > 0
    return _result(source.filter(~bad) if counted["bad"] else source, columns, dropped=dropped)


def as_text(name: str, dtype: pl.DataType, whole: bool) -> pl.Expr:
    """Return ids as stripped text; whole floats (a column that once had gaps) lose their `.0`."""
    column = pl.col(name)
    if dtype.is_float() and whole:
        column = column.cast(pl.Int64, strict=False)
    return column.cast(pl.String).str.strip_chars()


def _statistics(names: Mapping[str, str], schema: pl.Schema) -> dict[str, pl.Expr]:
    """Return the aggregates that decide how the columns are read."""
    facts: dict[str, pl.Expr] = {"rows": pl.len()}
    for field in ("user", "item"):
        column = pl.col(names[field])
        if schema[names[field]].is_float():
            facts[f"{field}_whole"] = (column == column.round()).all()
    if "timestamp" in names:
        of_times = time_statistics(pl.col(names["timestamp"]), schema[names["timestamp"]])
        facts |= {f"{_TIME}{name}": aggregate for name, aggregate in of_times.items()}
    if "split" in names:
        facts["split_unknown"] = (_split(names["split"]).is_null() & pl.col(names["user"]).is_not_null()).sum()
        facts["split_known"] = _split(names["split"]).is_not_null().sum()
    return facts


def _split(name: str) -> pl.Expr:
    # A numbered column with gaps may come as floats, whose text is `1.0`.
    text = pl.col(name).cast(pl.String).str.strip_chars().str.to_lowercase().str.strip_suffix(".0")
    return text.replace_strict(SPLIT_NAMES, default=None, return_dtype=pl.String)


def _expressions(
    names: Mapping[str, str], schema: pl.Schema, facts: Mapping[str, int], time: TimeFormat | None, wanted: LogColumns
) -> _Expressions:
    user, item = (
        as_text(names[field], schema[names[field]], bool(facts.get(f"{field}_whole", True)))
        for field in ("user", "item")
    )
    moment = within_a_day = rating = None
    untimed = low = pl.lit(False)
    if time is not None:
        column = pl.col(names["timestamp"])
        moment = milliseconds(column, schema[names["timestamp"]], time)
        within_a_day = ~is_midnight(moment) if time.form in ("iso", "moment") else None
        if wanted.untimed == "dropped":
            untimed = is_empty(column.cast(pl.String).str.strip_chars())
    if wanted.least is not None:
        rating = pl.col(names["rating"]).cast(pl.Float64, strict=False)
        low = (rating < wanted.least).fill_null(False)
    split = _split(names["split"]) if "split" in names else None
    no_user, no_item = (_lacks(pl.col(names[field]), schema[names[field]]) for field in ("user", "item"))
    return _Expressions(user, item, no_user, no_item, moment, within_a_day, split, rating, low, untimed)


def _lacks(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Return whether an id is not there; numbers are not written out as text only to learn that."""
    if not dtype.is_numeric():
        return is_empty(column.cast(pl.String).str.strip_chars())
    # To Polars NaN is no null. Of a null, `is_nan` is null, and true | null is true: the result never is null.
    return column.is_null() | column.is_nan() if dtype.is_float() else column.is_null()


def _rules(names: Mapping[str, str], columns: _Expressions) -> list[ValueRule]:
    rules = [ValueRule(names["user"], columns.no_user, AN_ID), ValueRule(names["item"], columns.no_item, AN_ID)]
    if columns.time is not None:
        rules.append(ValueRule(names["timestamp"], columns.time.is_null() & ~columns.untimed, ALLOWED))
    if columns.split is not None:
        rules.append(ValueRule(names["split"], columns.split.is_null(), "train, validation or test"))
    if columns.rating is not None:
        rules.append(ValueRule(names["rating"], columns.rating.is_null() | columns.rating.is_nan(), "a number"))
    return rules


def _count(table: Table, source: pl.LazyFrame, columns: _Expressions, bad: pl.Expr) -> dict[str, int]:
    """Count the rows that are bad (or blank), rated too low, without time, and those within a day."""
    counts = {
        "rows": pl.len(),
        "bad": bad.sum(),
        "low": (~bad & columns.low).sum(),
        "untimed": (~bad & ~columns.low & columns.untimed).sum(),
    }
    if columns.within_a_day is not None:
        counts["within_a_day"] = columns.within_a_day.sum()
    return collect(table, source.select(**counts)).row(0, named=True)


def _tell(table: Table, wanted: LogColumns, counted: Mapping[str, int], audit: Audit, *, has_times: bool) -> None:
    """Count and say what is dropped and how time is told; `UserError` when no row is left."""
    name, left = table.path.name, counted["rows"] - counted["bad"]
    if not left:
        raise UserError(Problem(str(table.path), "", "no interactions", "at least one row below the header"))
    if wanted.least is not None and counted["low"]:
        audit.find("info", f"{plural(counted['low'], 'interaction')} of {name} rated below {wanted.least:g}: no "
                   "history and no target, but known as seen, so that the item is never a negative of that user and "
                   "never recommended.")  # fmt: skip
    if counted["untimed"]:
        audit.find("warning", f"Dropped {plural(counted['untimed'], 'interaction')} of {name} without a time: "
                   "the place in a history would be a guess. The items count as seen.")  # fmt: skip
    if left == counted["low"] + counted["untimed"] and not wanted.may_be_empty:
        why = f"{counted['low']:,} are rated too low, {counted['untimed']:,} untimed"
        found = f"none of {plural(left, 'row')} is left: {why}"
        raise UserError(Problem(str(table.path), "", found, "", "Lower the least rating that is kept"))
    if not has_times:
        audit.find("info", f"{name} has no time: each user's interactions are in the order of the rows.")
    elif counted.get("within_a_day") == 0:
        audit.find("info", f"The times of {name} are whole days: within a day, a user's interactions are in the order "
                   "of the rows.")  # fmt: skip


def _result(rows: pl.LazyFrame, columns: _Expressions, *, dropped: bool) -> pl.LazyFrame:
    if columns.time is None:
        rows = rows.with_row_index("_row")  # before rows are dropped: only the order of the numbers counts
    time = pl.col("_row").cast(pl.Int64) if columns.time is None else columns.time
    more = [] if columns.split is None else [columns.split.alias("split")]
    if dropped:
        time = time.fill_null(0)  # of a row without a time, which is dropped
        reason = pl.when(columns.low).then(pl.lit("low_rating")).when(columns.untimed).then(pl.lit("no_time"))
        more.append(reason.alias("filtered"))
    return rows.select(columns.user.alias("user_id"), columns.item.alias("item_id"), time.alias("timestamp"), *more)
