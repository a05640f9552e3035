"""Columns of ids: rows without one are left out where that is asked for, and floats too large to be ids are told."""

from collections.abc import Mapping

import polars as pl

from msr_adapter.data.audit.ids import rounded_text
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.id_forms import is_null_word
from msr_adapter.data.readers.table_layout import Table
from msr_adapter.data.readers.table_scan import collect
from msr_adapter.data.readers.value_checks import blank_lines, is_empty
from msr_adapter.errors import plural

NO_ID = "interactions_dropped_no_id"
_NAMED = 3


def as_text(name: str, dtype: pl.DataType, whole: bool) -> pl.Expr:
    """Return ids as stripped text; whole floats (a column that once had gaps) lose their `.0`, up to 64 bits."""
    column = pl.col(name)
    text = column.cast(pl.String).str.strip_chars()
    if dtype.is_float() and whole:
        return pl.coalesce(column.cast(pl.Int64, strict=False).cast(pl.String), text)
    return text


def lacks_id(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Return whether an id is not there; never null. Numbers are not written out as text only to learn that."""
    if not dtype.is_numeric():
        return is_empty(column.cast(pl.String).str.strip_chars())
    # To Polars NaN is no null. Of a null, `is_nan` is null, and true | null is true: the result never is null.
    return column.is_null() | column.is_nan() if dtype.is_float() else column.is_null()


def id_text(name: str, dtype: pl.DataType) -> pl.Expr:
    """Return ids of a file beside the log as stripped text; whole floats (a column with gaps) lose their `.0`."""
    column = pl.col(name)
    text = column.cast(pl.String).str.strip_chars()
    if not dtype.is_float():
        return text
    whole = pl.when(column == column.round()).then(column).cast(pl.Int64, strict=False)
    return pl.coalesce(whole.cast(pl.String), text)


def lacks_any(names: Mapping[str, str], schema: pl.Schema) -> pl.Expr:
    """Return whether a user or an item is not there, or is a word for nothing."""
    return pl.any_horizontal(
        lacks_id(pl.col(name), schema[name])
        | (pl.lit(False) if schema[name].is_numeric() else is_null_word(pl.col(name).cast(pl.String).str.strip_chars()))
        for name in (names[field] for field in ("user", "item") if field in names)
    )


def leave_out(table: Table, source: pl.LazyFrame, lacking: pl.Expr, audit: Audit) -> tuple[pl.LazyFrame, int]:
    """Return the rows that do not lack an id, and how many others there are, blank lines apart; counted and told."""
    blank = blank_lines(source) if table.is_delimited else pl.lit(False)
    number = int(collect(table, source.select((lacking & ~blank).sum())).item())
    audit.count("interactions_read", number)  # the others are counted when they arrive
    audit.count(NO_ID, number)
    if number:
        audit.find("warning", f"Dropped {plural(number, 'interaction')} of {table.path.name} whose user or item is "
                   "empty or a word for nothing (data.source.drop_without_id).", "null-ids")  # fmt: skip
    return source.filter(~lacking), number


def rounded(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Return whether a float is so large that the numbers beside it are the same float; null where it is null."""
    return column.abs() >= (2.0**24 if dtype == pl.Float32 else 2.0**53)


def tell_rounded(table: Table, source: pl.LazyFrame, name: str, noun: str, audit: Audit) -> None:
    """Say that a column of floats holds ids which several numbers may have become; one more pass, for the first."""
    dtype = source.collect_schema()[name]
    ids = source.filter(rounded(pl.col(name), dtype)).select(pl.col(name)).unique(maintain_order=True)
    found = collect(table, ids).to_series()
    first = found.head(_NAMED).cast(pl.Int64, strict=False).cast(pl.String)
    audit.count(f"{noun}_rounded", len(found))
    text = f"The column {name} of {table.path.name} is of floats. {rounded_text(noun, len(found), first)}"
    audit.find("warning", text, "lossy-ids")
