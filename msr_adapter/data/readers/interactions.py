"""The log of any table: its columns are looked at in one streaming pass, its rows checked, the result is lazy."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import polars as pl

from msr_adapter.config.schema.sources import MissingTimes
from msr_adapter.data.audit.recognition import Recognition
from msr_adapter.data.audit.report import Audit, Severity
from msr_adapter.data.audit.thresholds import note
from msr_adapter.data.readers.clicks import ALLOWED as CLICKED
from msr_adapter.data.readers.clicks import clicked, together
from msr_adapter.data.readers.events import EventRules
from msr_adapter.data.readers.id_columns import as_text, lacks_any, lacks_id, leave_out, rounded, tell_rounded
from msr_adapter.data.readers.log_times import (
    NOTHING_COUNTED,
    CountedRows,
    LogTimes,
    RowFlags,
    count_rows,
    kinds_of_missing,
    tell_times,
    told_format,
)
from msr_adapter.data.readers.table_layout import Table
from msr_adapter.data.readers.table_scan import collect, scan, schema_of, tell_reading, type_problems, whole_lines
from msr_adapter.data.readers.timestamps import ALLOWED, time_numbers, time_statistics
from msr_adapter.data.readers.value_checks import AN_ID, CORRECT, OR_LEAVE_OUT, ValueRule, check_rows, first_rows_with
from msr_adapter.data.readers.value_forms import AS_USUAL, ValueForms, number_of, order_without_time, within_a_day
from msr_adapter.errors import Problem, UserError, collecting, plural, raise_if_any

SPLIT_NAMES = {
    "train": "train", "training": "train", "0": "train",
    "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation", "1": "validation",
    "test": "test", "testing": "test", "2": "test",
}  # fmt: skip
"""What a split column may hold, in any case; the numbers are those of MMRec's `x_label`."""

_TIME, _NUMBER = "time_", "_number"
"""What the names of the statistics of the times begin with, and the column of their numbers."""
_NAMED = 4
"""Lines without a time that are named."""
MISSING_STEP = "Correct them, or set data.source.missing_times to drop (such rows are left out) or first (put first)"


@dataclass(frozen=True)
class LogColumns:
    """Which columns of a table are its log, and how strictly they are read."""

    names: Mapping[str, str]
    """Field (user, item, timestamp, order, split, rating, clicked, impression, session) -> column; only user and item
    must be there."""
    least: float | None = None
    """Rows whose `rating` is lower are dropped, though known as seen."""
    missing_times: MissingTimes = "error"
    """What becomes of a row without a time."""
    drop_without_id: bool | None = None
    """Whether rows that lack a user or an item are left out, and not refused; None = refused, as ever."""
    may_be_empty: bool = False
    """Whether all rows may be dropped: what is added to a log need not hold anything that is liked."""
    events: EventRules | None = None
    """What the words of the column `event` mean; None = every row is an interaction."""
    split: Literal["asked for", "found"] = "found"
    """A split column that is merely found is ignored when it holds anything but names of splits."""
    written: ValueForms = AS_USUAL
    unused: tuple[str, ...] | None = None
    """Columns of the table that are not read; None = those of the frame."""
    passed_over: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Field -> columns that have a usual name of it too."""


@dataclass(frozen=True)
class _Expressions:
    """The columns of a log as expressions, once their statistics have told how to read them."""

    user: pl.Expr
    item: pl.Expr
    no_user: pl.Expr
    no_item: pl.Expr
    times: LogTimes | None
    """None = the table has no times."""
    split: pl.Expr | None
    rating: pl.Expr | None
    low: pl.Expr
    """Whether a row is rated too low."""
    clicked: pl.Expr | None = None
    """Whether a row was clicked, not merely shown; null = it says neither. None = every row is an interaction."""
    shown: int = 0
    """Rows that were not clicked."""
    lacking: pl.Expr | None = None
    """Whether a row lacks a user or an item, where such rows are left out."""
    order: pl.Expr | None = None
    """Milliseconds that are added to the time; null = the column holds no number."""


@dataclass(frozen=True)
class _LookedAt:
    """A log of which all is known that two passes tell."""

    table: Table
    source: pl.LazyFrame
    wanted: LogColumns
    names: Mapping[str, str]
    """Field -> column, of what is read."""
    columns: _Expressions
    counted: CountedRows

    @property
    def rules(self) -> list[ValueRule]:
        """What each row must satisfy."""
        return _rules(self.names, self.columns, CORRECT if self.wanted.drop_without_id is None else OR_LEAVE_OUT)

    @property
    def bad(self) -> pl.Expr:
        """Whether a row breaks a rule; never null."""
        return pl.any_horizontal(rule.bad for rule in self.rules)

    @property
    def columns_read(self) -> list[str]:
        """The columns that the file is asked for."""
        return list(self.wanted.names.values())


def read_log(table: Table, wanted: LogColumns, audit: Audit) -> pl.LazyFrame:
    """Return user_id, item_id, timestamp (ms, or the row number) and maybe split, in the order of the file.

    Where rows are dropped, the column `filtered` says which and why, as in `Corpus`. Two streaming passes look at the
    columns and check the rows (one or two more where times are missing or oddly written), in constant memory; the
    result is lazy: whoever collects it reads the file once more. `UserError` with the bad rows.
    """
    names, source = dict(wanted.names), scan(table, wanted.names.values())
    schema = schema_of(table, source)
    raise_if_any(type_problems(table, schema, list(dict.fromkeys(names.values()))))
    lacking, left_out = None, 0
    if wanted.drop_without_id:
        lacking = lacks_any(names, schema)
        source, left_out = leave_out(table, source, lacking, audit)
    if wanted.events is not None:
        wanted.events.tell(table, source, audit, may_be_empty=wanted.may_be_empty)
    facts = _facts(table, source, names, schema)
    for of in ("user", "item", "session"):
        if facts.get(f"{of}_rounded"):
            tell_rounded(table, source, names[of], f"{of}s", audit)
    if facts.get("split_unknown") and wanted.split == "found":
        ignored = names.pop("split")
        severity: Severity = (
            "warning" if facts["split_known"] else "info"
        )  # most of a published split, or another matter
        audit.find(severity, f"The column {ignored} of {table.path.name} is ignored: it holds more than "
                   "train, validation and test. Name it in data.source.columns.split to use it.")  # fmt: skip
    times = None
    if "timestamp" in names:
        of_times = {name.removeprefix(_TIME): value for name, value in facts.items() if name.startswith(_TIME)}
        times = told_format(table, source, names["timestamp"], of_times, wanted.written.time)
    elif "order" in names:
        raise UserError(order_without_time(table.path, names["order"]))
    columns = replace(_expressions(names, schema, facts, times, wanted), lacking=lacking)
    log = _LookedAt(table, source, wanted, names, columns, NOTHING_COUNTED)
    log = _settled(replace(log, counted=count_rows(table, source, RowFlags(log.bad, columns.low), times)))
    tell_reading(table, audit, log.counted.rows + left_out)
    _refuse(log)
    _tell(log, audit)
    audit.recognise(_recognition(log, schema))
    return _result(log)


def _settled(log: _LookedAt) -> _LookedAt:
    """Return a log whose times are told for good: with rarer forms of text, and with what stands for missing ones."""
    while (times := log.columns.times) is not None and (again := times.looked_at_again(log.counted)) != times:
        log = replace(log, columns=replace(log.columns, times=again))
        if again.changes_the_count(times, log.counted):
            counted = count_rows(log.table, log.source, RowFlags(log.bad, log.columns.low), again)
            log = replace(log, counted=counted)
            if again.ranges is not None:
                break
    return log


def _facts(table: Table, source: pl.LazyFrame, names: Mapping[str, str], schema: pl.Schema) -> dict[str, int]:
    """Return the aggregates that decide how the columns are read, of one pass."""
    facts: dict[str, pl.Expr] = {"rows": pl.len()}
    for of in (one for one in ("user", "item", "session") if one in names):
        column = pl.col(names[of])
        if schema[names[of]].is_float():
            facts[f"{of}_whole"] = (column == column.round()).all()
            facts[f"{of}_rounded"] = rounded(column, schema[names[of]]).sum()
    if "split" in names:
        facts["split_unknown"] = (_split(names["split"]).is_null() & pl.col(names["user"]).is_not_null()).sum()
        facts["split_known"] = _split(names["split"]).is_not_null().sum()
    if "clicked" in names:
        facts["shown"] = (~clicked(names["clicked"])).sum()
    looked = source
    if "timestamp" in names:
        time, dtype = pl.col(names["timestamp"]), schema[names["timestamp"]]
        if (number := time_numbers(time, dtype)) is not None:
            looked = source.with_columns(number.alias(_NUMBER))  # once, for all the statistics
            of_times = time_statistics(time, dtype, pl.col(_NUMBER))
            facts |= {f"{_TIME}{name}": aggregate for name, aggregate in of_times.items()}
    return collect(table, looked.select(**facts, **whole_lines(table))).row(0, named=True)


def _split(name: str) -> pl.Expr:
    # A numbered column with gaps may come as floats, whose text is `1.0`.
    text = pl.col(name).cast(pl.String).str.strip_chars().str.to_lowercase().str.strip_suffix(".0")
    return text.replace_strict(SPLIT_NAMES, default=None, return_dtype=pl.String)


def _expressions(
    names: Mapping[str, str], schema: pl.Schema, facts: Mapping[str, int], times: LogTimes | None, wanted: LogColumns
) -> _Expressions:
    user, item = (
        as_text(names[field], schema[names[field]], bool(facts.get(f"{field}_whole", True)))
        for field in ("user", "item")
    )
    rating, low = None, pl.lit(False)
    if wanted.least is not None:
        rating = number_of(names["rating"], schema, wanted.written)
        low = (rating < wanted.least).fill_null(False)
    was_clicked = clicked(names["clicked"]) if "clicked" in names else None
    if was_clicked is not None:  # what was not clicked is no interaction, whatever its rating
        low &= was_clicked.fill_null(True)
    split = _split(names["split"]) if "split" in names else None
    order = number_of(names["order"], schema, wanted.written) if "order" in names else None
    no_user, no_item = (lacks_id(pl.col(names[field]), schema[names[field]]) for field in ("user", "item"))
    return _Expressions(
        user, item, no_user, no_item, times, split, rating, low, was_clicked, facts.get("shown") or 0, order=order
    )  # fmt: skip


def _rules(names: Mapping[str, str], columns: _Expressions, without_id: str) -> list[ValueRule]:
    lacking = {"user": columns.no_user, "item": columns.no_item}
    rules = [ValueRule(names[field], bad, AN_ID, without_id) for field, bad in lacking.items()]
    if (times := columns.times) is not None:
        allowed = times.format.said if times.format.form == "given" else ALLOWED
        rules.append(ValueRule(times.column, times.unreadable, allowed))
        rules.append(ValueRule(times.column, times.in_another_unit, f"{times.format.said}, as the others"))
    if columns.split is not None:
        rules.append(ValueRule(names["split"], columns.split.is_null(), "train, validation or test"))
    if columns.rating is not None:
        rules.append(ValueRule(names["rating"], columns.rating.is_null() | columns.rating.is_nan(), "a number"))
    if columns.order is not None:
        rules.append(within_a_day(names["order"], columns.order))
    if columns.clicked is not None:
        rules.append(ValueRule(names["clicked"], columns.clicked.is_null(), CLICKED))
    if columns.lacking is not None:  # such rows are still in the file, in which bad ones are looked for
        rules = [replace(rule, bad=rule.bad & ~columns.lacking) for rule in rules]
    return rules


def _refuse(log: _LookedAt) -> None:
    """Raise one `UserError` with the bad rows, and with those without a time where they are not allowed."""
    problems: list[Problem] = []
    if log.counted.bad:
        with collecting(problems):
            check_rows(log.table, log.rules, log.columns_read)
    where = str(log.table.path)
    if log.counted.rows == log.counted.bad and not problems:
        raise UserError(Problem(where, "", "no interactions", "at least one row below the header"))
    times = log.columns.times
    if log.wanted.missing_times == "error" and times is not None and log.counted.missing:
        flag = times.missing & ~log.bad & ~log.columns.low
        flag = flag if log.columns.lacking is None else flag & ~log.columns.lacking
        rows, short = first_rows_with(log.table, flag, times.column, log.columns_read)
        problems = sorted([*problems, *short], key=_line)
        if rows:
            (line, value), others = rows[0], [str(line) for line, _ in rows[1:_NAMED]]
            more = f" (lines {', '.join(others)}{', ...' if len(rows) > _NAMED else ''} too)" if others else ""
            found = (f"{value} is not a time{more}: {log.counted.missing:,} of {plural(log.counted.rows, 'row')} "
                     f"without one, {kinds_of_missing(times, log.counted)}")  # fmt: skip
            problems.append(Problem(f"{where}:{line}", times.column, found, "a time in each row", MISSING_STEP))
    raise_if_any(problems)


def _line(problem: Problem) -> float:
    """Return the line of a problem, the last of all for what counts the others."""
    line = problem.where.rpartition(":")[2]
    return int(line) if line.isdecimal() else math.inf


def _tell(log: _LookedAt, audit: Audit) -> None:
    """Count and say what is dropped and how time is told; `UserError` when no row is left."""
    name, counted, wanted, times = log.table.path.name, log.counted, log.wanted, log.columns.times
    left, untimed = counted.rows - counted.bad, counted.missing if wanted.missing_times == "drop" else 0
    if wanted.least is not None and counted.low:
        audit.find("info", f"{plural(counted.low, 'interaction')} of {name} rated below {wanted.least:g}: no "
                   "history and no target, but known as seen, so that the item is never a negative of that user and "
                   "never recommended.")  # fmt: skip
    if counted.missing and times is not None:
        share, kinds = counted.missing / max(left, 1), kinds_of_missing(times, counted)
        rows = f"{plural(counted.missing, 'interaction')} of {name} without a time ({share:.1%} of the rows: {kinds})"
        if untimed:
            text = f"Dropped {rows}: the place in a history would be a guess. The items count as seen."
        else:
            audit.count("interactions_without_time_put_first", counted.missing)
            text = f"Put {rows} before the others of their users: where they belong is not known."
        step = "data.source.missing_times says what becomes of such rows."
        note(audit, "missing-times", share, f"{text} {step}")
    shown = log.columns.shown
    if left == counted.low + untimed + shown and not wanted.may_be_empty:
        why = f"{counted.low:,} are rated too low, {untimed:,} untimed" + (f", {shown:,} not clicked" if shown else "")
        found = f"none of {plural(left, 'row')} is left: {why}"
        step = "Lower the least rating that is kept" if counted.low else "Set data.source.missing_times: first"
        raise UserError(Problem(str(log.table.path), "", found, "", step))
    if times is None:
        audit.find(*no_time(name))
    else:
        tell_times(name, times, counted, audit)


def no_time(name: str) -> tuple[Literal["info"], str]:
    """Return the finding on a log without a column of times."""
    return "info", f"{name} has no time: each user's interactions are in the order of the rows."


def _recognition(log: _LookedAt, schema: pl.Schema) -> Recognition:
    times, wanted = log.columns.times, log.wanted
    first, last = (times.days if times else None) or (None, None)
    unused = wanted.unused if wanted.unused is not None else tuple(n for n in schema if n not in log.columns_read)
    return Recognition(
        log.table.path.name, {field: name for field, name in wanted.names.items() if field in log.names},
        log.counted.rows, times.said if times else "", first, last, unused, wanted.passed_over,
    )  # fmt: skip


def _result(log: _LookedAt) -> pl.LazyFrame:
    columns, times = log.columns, log.columns.times
    rows = log.source.filter(~log.bad) if log.counted.bad else log.source
    if times is None:
        rows = rows.with_row_index("_row")  # before rows are dropped: only the order of the numbers counts
        time, missing = pl.col("_row").cast(pl.Int64), pl.lit(False)
    elif log.counted.missing or log.counted.low:  # those rated too low may lack a time too
        time, missing = times.moment_or_first, times.missing
    else:
        time, missing = times.moment, pl.lit(False)
    if columns.order is not None:
        time += columns.order.floor().cast(pl.Int64)
    more = [] if columns.split is None else [columns.split.alias("split")]
    events = log.wanted.events
    more += together(log.names, shown=columns.clicked is not None or bool(events and events.said.shown))
    if events or columns.shown or log.counted.low or (log.counted.missing and log.wanted.missing_times == "drop"):
        untimed = missing if log.wanted.missing_times == "drop" else pl.lit(False)
        reason: pl.Expr = pl.when(columns.low).then(pl.lit("low_rating")).when(untimed).then(pl.lit("no_time"))
        if columns.clicked is not None:
            reason = pl.when(~columns.clicked).then(pl.lit("not_clicked")).otherwise(reason)
        more += [reason.alias("filtered")] if events is None else [
            pl.coalesce(reason, events.reason).alias("filtered"), events.event]  # fmt: skip
    return rows.select(columns.user.alias("user_id"), columns.item.alias("item_id"), time.alias("timestamp"), *more)
