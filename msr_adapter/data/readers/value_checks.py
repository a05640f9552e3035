"""Bad values of a table, each reported with its file, line, column and what would be allowed."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import polars as pl

from msr_adapter.data.readers.parse_errors import FilePlace, places
from msr_adapter.data.readers.table_layout import Table
from msr_adapter.data.readers.table_scan import collect, scan
from msr_adapter.errors import LISTED, Problem, UserError, listed

AN_ID = "an id"

_SHOWN = 60


@dataclass(frozen=True)
class ValueRule:
    """What a column must satisfy; ``bad`` is true, never null, on the rows that do not."""

    column: str
    bad: pl.Expr
    allowed: str


def is_empty(text: pl.Expr) -> pl.Expr:
    """Return whether an id or text is not there; never null."""
    return (text == "").fill_null(True)


def not_empty(column: str, text: pl.Expr) -> ValueRule:
    """Return the rule that an id is there."""
    return ValueRule(column, is_empty(text), AN_ID)


def check_rows(table: Table, rules: Sequence[ValueRule], wanted: Collection[str]) -> None:
    """Raise `UserError` with every row that breaks a rule; a blank line of a delimited file breaks none.

    Two more passes over the file, in constant memory: call it only when some row is known to be bad or blank.
    """
    frame = scan(table, wanted)
    blank = blank_lines(frame) if table.is_delimited else pl.lit(False)
    flags = [(rule.bad & ~blank).alias(f"_bad{i}") for i, rule in enumerate(rules)]
    # First a count, in a stream; rows are named only where there are bad ones, and then only the first of them.
    total = sum(collect(table, frame.select(flag.sum() for flag in flags)).row(0))
    if not total:
        return
    values = [pl.col(rule.column).alias(f"_value{i}") for i, rule in enumerate(rules)]
    rows = frame.select(*flags, *values).with_row_index("_row")
    first = collect(table, rows.filter(pl.any_horizontal(pl.selectors.starts_with("_bad"))).head(LISTED))
    width = len(frame.collect_schema()) if table.is_delimited else None
    problems: list[Problem] = []
    seen = 0
    walk = enumerate(places(table))  # once for all rows, which are ascending
    for row in first.iter_rows(named=True):
        place = next(place for number, place in walk if number == row["_row"])
        broken = [i for i in range(len(rules)) if row[f"_bad{i}"]]
        seen += len(broken)
        problems += _problems(table, place, [(rules[i], row[f"_value{i}"]) for i in broken], width)
    raise UserError(listed(problems, len(problems) + total - seen, str(table.path)))


def blank_lines(frame: pl.LazyFrame) -> pl.Expr:
    """Return whether every field of a row of text is empty."""
    columns = frame.collect_schema().names()
    return pl.all_horizontal(is_empty(pl.col(name).str.strip_chars()) for name in columns)


def _problems(
    table: Table, place: FilePlace, broken: list[tuple[ValueRule, object]], width: int | None
) -> list[Problem]:
    where = f"{table.path}:{place.line}"
    if width is not None and place.fields is not None and place.fields < width:
        return [Problem(where, "", f"{place.fields} columns", f"{width} expected", "Complete or remove the row")]
    return [Problem(where, rule.column, _shown(value), rule.allowed, "Correct the row") for rule, value in broken]


def _shown(value: object) -> str:
    if value is None or value == "":
        return "empty"
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
