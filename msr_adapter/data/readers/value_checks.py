"""Bad values of a table, each reported with its file, line, column and what would be allowed."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import polars as pl

from msr_adapter.data.readers.parse_errors import FilePlace, places
from msr_adapter.data.readers.table_layout import Table
from msr_adapter.data.readers.table_scan import collect, scan
from msr_adapter.errors import LISTED, Problem, UserError
from msr_adapter.text_tables.file_faults import repeated

AN_ID = "an id"
CORRECT = "Correct the row"
OR_LEAVE_OUT = f"{CORRECT}, or leave such rows out by data.source.drop_without_id: true"
"""What to do about a row without an id, where the kind of source has that key."""

_SHOWN = 60
_NAMED = 4
"""Rows that are named where many break a rule."""
_LOOKED_AT = 50
"""Rows that tell which kinds of faults there are."""


@dataclass(frozen=True)
class ValueRule:
    """What a column must satisfy; ``bad`` is true, never null, on the rows that do not."""

    column: str
    bad: pl.Expr
    allowed: str
    step: str = CORRECT


def is_empty(text: pl.Expr) -> pl.Expr:
    """Return whether an id or text is not there; never null."""
    return (text == "").fill_null(True)


def not_empty(column: str, text: pl.Expr, step: str = CORRECT) -> ValueRule:
    """Return the rule that an id is there."""
    return ValueRule(column, is_empty(text), AN_ID, step)


def check_rows(table: Table, rules: Sequence[ValueRule], wanted: Collection[str]) -> None:
    """Raise `UserError` if a row breaks a rule, one problem per rule; a blank line of a delimited file breaks none.

    More passes over the file, in constant memory: call it only when some row is known to be bad or blank.
    """
    frame = scan(table, wanted)
    blank = blank_lines(frame) if table.is_delimited else pl.lit(False)
    flags = [(rule.bad & ~blank).alias(f"_bad{i}") for i, rule in enumerate(rules)]
    # First a count, in a stream; rows are named only where there are bad ones, and then only the first of them.
    totals = collect(table, frame.select(flag.sum() for flag in flags)).row(0)
    if not any(totals):
        return
    numbered = frame.select(*flags, pl.all()).with_row_index("_row")
    first = {
        i: collect(table, numbered.filter(f"_bad{i}").select("_row", value=rules[i].column).head(_LOOKED_AT)).rows()
        for i, total in enumerate(totals)
        if total
    }
    rows = sorted({row for found in first.values() for row, _ in found})
    walk = enumerate(places(table))  # once for all rows, which are ascending
    at = {row: next(place for number, place in walk if number == row) for row in rows}
    width = len(frame.collect_schema()) if table.is_delimited and table.frame is None else None
    told: dict[int, list[Problem]] = {}
    short: set[int] = set()
    for i, found in first.items():
        bad = [_problem(table, at[row], rules[i], value, width) for row, value in found]
        lacking = [row for (row, _), one in zip(found, bad, strict=True) if not one.field]
        # A row that ends too early lacks several fields, which is one fault.
        kinds = [[n for n, one in enumerate(bad) if bool(one.field) is is_value] for is_value in (True, False)]
        for places_ in kinds if not short.issuperset(lacking) else kinds[:1]:
            if places_:
                rest = totals[i] - len(bad) if places_[0] == 0 else 0
                others = [str(at[found[n][0]].line) for n in places_[1:_NAMED]]
                line = at[found[places_[0]][0]].line
                told.setdefault(line, []).append(repeated(bad[places_[0]], len(places_) + rest, others))
        short |= set(lacking)
    raise UserError(problem for line in sorted(told) for problem in told[line])


def first_rows_with(
    table: Table, flag: pl.Expr, column: str, wanted: Collection[str]
) -> tuple[list[tuple[int, str]], list[Problem]]:
    """Return line and value, as it is shown, of the first rows that ``flag`` says, at most `LISTED`.

    Those that lack fields come apart, as problems: their values are not empty, but cut off. A pass over the file, and a
    walk to the last of these rows.
    """
    frame = scan(table, wanted)
    width = len(frame.collect_schema()) if table.is_delimited and table.frame is None else None
    rows = frame.select(flag.alias("_flag"), pl.col(column).alias("_value")).with_row_index("_row")
    first = collect(table, rows.filter(pl.col("_flag")).head(LISTED))
    walk = enumerate(places(table))
    found, short = list[tuple[int, str]](), list[Problem]()
    for row in first.iter_rows(named=True):
        place = next(place for number, place in walk if number == row["_row"])
        if problem := _too_short(table, place, width):
            short.append(problem)
        else:
            found.append((place.line, _shown(row["_value"])))
    return found, short


def blank_lines(frame: pl.LazyFrame) -> pl.Expr:
    """Return whether every field of a row of text is empty."""
    columns = frame.collect_schema().names()
    return pl.all_horizontal(is_empty(pl.col(name).str.strip_chars()) for name in columns)


def _problem(table: Table, place: FilePlace, rule: ValueRule, value: object, width: int | None) -> Problem:
    if short := _too_short(table, place, width):
        return short
    return Problem(f"{table.path}:{place.line}", rule.column, _shown(value), rule.allowed, rule.step)


def _too_short(table: Table, place: FilePlace, width: int | None) -> Problem | None:
    if width is None or place.fields is None or place.fields >= width:
        return None
    found = f"{place.fields} columns"
    return Problem(f"{table.path}:{place.line}", "", found, f"{width} expected", "Complete or remove the row")


def _shown(value: object) -> str:
    if value is None or value == "":
        return "empty"
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
