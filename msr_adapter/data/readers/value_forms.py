"""How values are written as text where the pipeline says it: times by directives, numbers with a comma, places."""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from msr_adapter.data.readers.timestamps import DAY
from msr_adapter.data.readers.value_checks import ValueRule
from msr_adapter.errors import Problem


@dataclass(frozen=True)
class ValueForms:
    """How the values of a log are written."""

    time: str = ""
    """Of times, in directives; empty = told by the values."""
    decimal: str = "."
    """What separates the fraction of a number."""


AS_USUAL = ValueForms()


def number_of(name: str, schema: pl.Schema, written: ValueForms) -> pl.Expr:
    """Return a column as numbers, null where it holds none."""
    column = pl.col(name)
    if schema[name] == pl.String and written.decimal != ".":
        column = column.str.strip_chars().str.replace(written.decimal, ".", literal=True)
    return column.cast(pl.Float64, strict=False)


def within_a_day(name: str, place: pl.Expr) -> ValueRule:
    """Return the rule that what is added to a time as milliseconds is there and leads to no other day."""
    inside = place.is_between(0, DAY, closed="left").fill_null(False)
    return ValueRule(name, ~inside, f"a number from 0, below {DAY:,}")


def order_without_time(path: Path, name: str) -> Problem:
    """Return what is wrong with a column that puts rows of one time in order, where there is no time."""
    step = "Name a column of times as data.source.columns.timestamp, or this one, if it alone says the order"
    return Problem(str(path), name, "puts rows of one time in order, and there is no time", "a column of times", step)
