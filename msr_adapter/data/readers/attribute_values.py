"""Columns of items and users for the templates: what type their values are of, and which of them are missing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from msr_adapter.config.schema import AttributeType
from msr_adapter.data.id_forms import is_null_word
from msr_adapter.data.readers.table_layout import Table
from msr_adapter.errors import Problem, closest, raise_if_any
from msr_adapter.prompts import neutralise

ATTRIBUTE = "attribute "
"""What the columns of attributes are called behind, in the tables of items that readers return."""
_WHOLE = r"^[+-]?(?:0|[1-9][0-9]{0,17})$"
_NUMBER = r"^[+-]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?$"
"""Not `007`: what has leading zeros is a code."""
_DAY = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
_MOMENT = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]+)?)?Z?$"
_BOOLEANS = ("true", "false")
_SAID_BOOLEANS = {"true": True, "false": False, "yes": True, "no": False, "1": True, "0": False, "t": True, "f": False,
                  "y": True, "n": False}  # fmt: skip
"""What a column may say that is declared to be boolean."""
_TEXT = r'"(?:[^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u00[0-9a-fA-F]{2})*"'
_LIST = rf"^\[\s*(?:{_TEXT}(?:\s*,\s*{_TEXT})*)?\s*\]$"
_TEXT_LIMIT = 1_000
"""Characters kept of a text."""
_LISTED = 100
"""Elements kept of a list."""
_EXAMPLE = 60
_BAD = 3
"""Values that are shown of those that a declared type cannot have."""


@dataclass(frozen=True)
class AttributeValues:
    """One attribute of many items or users."""

    kind: AttributeType
    values: pl.Series
    """Int64, Float64, String, List(String), Boolean, Date or Datetime; null = none. Texts are neutralised."""
    words: int = 0
    """Values that are a word for nothing (`nan`, `NULL`), and count as missing."""
    cut: int = 0
    """Texts and lists that were shortened."""

    @property
    def missing(self) -> float:
        """The share of values that are missing."""
        return self.values.null_count() / max(1, len(self.values))

    @property
    def example(self) -> str:
        """A value as text, the first there is; empty where there is none."""
        known = self.values.drop_nulls()
        if not len(known):
            return ""
        value = known[0]
        text = ", ".join(value) if isinstance(value, pl.Series) else str(value)
        return text if len(text) <= _EXAMPLE else f"{text[: _EXAMPLE - 1]}…"


def require_columns(table: Table, header: Sequence[str], columns: Mapping[str, str], setting: str) -> None:
    """Raise `UserError` with the columns that a table lacks."""
    raise_if_any(_absent(table, header, column, setting) for column in columns.values() if column not in header)


def _absent(table: Table, header: Sequence[str], column: str, setting: str) -> Problem:
    near = closest(column, header)
    found = f"{', '.join(header[:30])}{f' and {len(header) - 30:,} more' if len(header) > 30 else ''}"
    hint = f"did you mean {near[0]!r}? " if near else ""
    return Problem(
        str(table.path), setting, f"no column {column!r}", f"{hint}columns found: {found}", "Correct the name"
    )


def typed(name: str, column: pl.Series, declared: AttributeType | None, where: str) -> AttributeValues:
    """Return a column's values with their type: as ``declared``, else as the values tell it.

    Text that says numbers is numbers, unless some have leading zeros. `UserError` where a value is not of the declared
    type, or a column is of no type that a prompt could show; ``where`` is the file.
    """
    dtype = column.dtype
    if isinstance(dtype, pl.Struct | pl.Binary | pl.Object) or (
        isinstance(dtype, pl.List | pl.Array) and isinstance(dtype.inner, pl.Struct | pl.List | pl.Binary)
    ):
        found = f"a column of type {dtype}"
        step = "Name another column, or write this one as plain values"
        raise_if_any([Problem(where, name, found, "numbers, text, lists of text, true and false, or dates", step)])
    if isinstance(dtype, pl.List | pl.Array):
        values, words = column.cast(pl.List(pl.String)), 0
        found_kind: AttributeType = "list"
    elif dtype == pl.Boolean:
        values, words, found_kind = column, 0, "boolean"
    elif isinstance(dtype, pl.Date | pl.Datetime):
        values, words, found_kind = _moments(column), 0, "date"
    elif dtype.is_numeric():
        values, words, found_kind = _numbers(column), 0, "number"
    else:
        values, words = _texts(column)
        found_kind = _told(values)
    if declared is not None and declared != found_kind and declared != "text":
        values = _as_text(values)
    kind = declared or found_kind
    made = _converted(name, values, kind, where)
    made, cut = _neutral(made)
    return AttributeValues(kind, made, words, cut)


def _texts(column: pl.Series) -> tuple[pl.Series, int]:
    """Return stripped text, null where it is empty or a word for nothing, and how many are such words."""
    text = column.cast(pl.String).str.strip_chars()
    frame = pl.DataFrame({"text": text}).select(
        "text", empty=(pl.col("text") == "").fill_null(True), word=is_null_word(pl.col("text")).fill_null(False)
    )
    words = int((frame["word"] & ~frame["empty"]).sum())
    return frame.select(pl.when(~pl.col("empty") & ~pl.col("word")).then("text")).to_series(), words


def _told(text: pl.Series) -> AttributeType:
    """Return the type that the values of a column of text have."""
    known = text.drop_nulls()
    if not len(known):
        return "text"
    if known.str.contains(_NUMBER).all():
        return "number"
    if known.str.to_lowercase().is_in(_BOOLEANS).all():
        return "boolean"
    if known.str.contains(_DAY).all() or known.str.contains(_MOMENT).all():
        dates = known.str.slice(0, 10).str.to_date("%Y-%m-%d", strict=False)
        return "text" if dates.null_count() else "date"
    return "list" if known.str.contains(_LIST).all() else "text"


def _converted(name: str, values: pl.Series, kind: AttributeType, where: str) -> pl.Series:
    """Return values of the type ``kind``; `UserError` with those that are not of it."""
    if kind == "text":
        return _as_text(values)
    if values.dtype != pl.String:
        return values
    if kind == "number":
        whole = values.drop_nulls().str.contains(_WHOLE).all()
        made: pl.Series = values.cast(pl.Int64 if whole else pl.Float64, strict=False)
        made = _numbers(made)
    elif kind == "boolean":
        made = values.str.to_lowercase().replace_strict(_SAID_BOOLEANS, default=None, return_dtype=pl.Boolean)
    elif kind == "date":
        made = values.str.to_date("%Y-%m-%d", strict=False)
        if not values.drop_nulls().str.contains(_DAY).all():
            plain = values.str.strip_chars_end("Z").str.replace("T", " ", literal=True)
            made = plain.str.to_datetime(strict=False, time_unit="ms")
            days = values.str.to_date("%Y-%m-%d", strict=False).cast(pl.Datetime("ms"))
            made = made.fill_null(days)
    else:
        made = _lists(values)
    bad = values.filter(made.is_null() & values.is_not_null())
    if len(bad):
        shown = ", ".join(repr(value[:_EXAMPLE]) for value in bad.unique(maintain_order=True)[:_BAD])
        found = f"{len(bad):,} of {len(values):,} values are no {kind}: {shown}"
        step = f"Correct them, or set types: {{{name}: text}}"
        raise_if_any([Problem(where, name, found, _SAID[kind], step)])
    return made


_SAID = {
    "number": "numbers with a point (12.50), or nothing",
    "boolean": "true and false, yes and no, or 1 and 0",
    "date": "dates as 2024-06-30 or 2024-06-30 12:00:00",
    "list": 'JSON lists of text ["a", "b"], or texts between | or ,',
}


def _lists(values: pl.Series) -> pl.Series:
    """Return lists of JSON, or what stands between bars, else between commas."""
    frame = pl.DataFrame({"text": values})
    text = pl.col("text")
    listed = pl.when(text.str.contains(_LIST)).then(text)
    bars = pl.when(text.str.contains("|", literal=True)).then(text.str.split("|")).otherwise(text.str.split(","))
    decoded = listed.str.json_decode(pl.List(pl.String))
    made = pl.when(listed.is_not_null()).then(decoded).otherwise(bars.list.eval(pl.element().str.strip_chars()))
    return frame.select(pl.when(text.is_not_null()).then(made)).to_series()


def _as_text(values: pl.Series) -> pl.Series:
    if isinstance(values.dtype, pl.List):
        return values.list.join(", ", ignore_nulls=True)
    if values.dtype == pl.Boolean:
        return values.cast(pl.String).str.to_lowercase()
    return values.cast(pl.String)


def _numbers(column: pl.Series) -> pl.Series:
    if column.dtype.is_integer() and column.dtype != pl.UInt64:
        return column.cast(pl.Int64)
    values = column.cast(pl.Float64)
    return pl.DataFrame({"x": values}).select(pl.when(pl.col("x").is_finite()).then("x")).to_series()


def _moments(column: pl.Series) -> pl.Series:
    if column.dtype == pl.Date:
        return column
    zoned = getattr(column.dtype, "time_zone", None)
    plain = column.dt.convert_time_zone("UTC").dt.replace_time_zone(None) if zoned else column
    return plain.cast(pl.Datetime("ms"))


def _neutral(values: pl.Series) -> tuple[pl.Series, int]:
    """Return texts that cannot change a prompt, and how many were shortened; values of other types as they are."""
    cut = 0
    known: dict[str, str | None] = {}

    def plain(text: str) -> str | None:
        if text not in known:
            known[text] = neutralise(text, _TEXT_LIMIT) or None
        return known[text]

    if values.dtype == pl.String:
        texts = values.to_list()
        cut = sum(1 for text in texts if text and len(text) > _TEXT_LIMIT)
        return pl.Series(values.name, [text and plain(text) for text in texts], dtype=pl.String), cut
    if isinstance(values.dtype, pl.List):
        lists: list[list[str] | None] = []
        for one in values.to_list():
            elements = [told for text in one if text and (told := plain(text))] if one else []
            cut += len(elements) > _LISTED
            lists.append(elements[:_LISTED] or None)
        return pl.Series(values.name, lists, dtype=pl.List(pl.String)), cut
    return values, cut
