"""The items of any table: one row per item, text as written, held in memory as columns."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import polars as pl

from msr_adapter.data.audit.recognition import Recognition
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.id_forms import is_null_word
from msr_adapter.data.readers.attribute_values import ATTRIBUTE, require_columns
from msr_adapter.data.readers.id_columns import as_text, rounded, tell_rounded
from msr_adapter.data.readers.table_layout import Table
from msr_adapter.data.readers.table_scan import (
    collect,
    column_names,
    scan,
    schema_of,
    tell_reading,
    type_problems,
    whole_lines,
)
from msr_adapter.data.readers.value_checks import CORRECT, OR_LEAVE_OUT, check_rows, is_empty, not_empty
from msr_adapter.errors import Problem, UserError, raise_if_any

FURTHER_IMAGE = "image "
"""What the columns of `data.images.columns` are called behind, in the tables of items that readers return."""
_TEXT = r'"(?:[^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u00[0-9a-fA-F]{2})*"|null'
_JSON_TEXTS = rf"^\[\s*(?:(?:{_TEXT})(?:\s*,\s*(?:{_TEXT}))*)?\s*\]$"
"""A JSON list of texts and nulls, which a title like `[Used] Game` is not."""


@dataclass(frozen=True)
class ItemColumns:
    """Which columns of a table of items are read: that of the ids, and how the others are made."""

    item: str
    title: str | pl.Expr | None
    """A column, an expression that gives text, or None: the table has none."""
    more: Mapping[str, str | pl.Expr] = field(default_factory=dict)
    """text, category, image."""
    reads: tuple[str, ...] = ()
    """The columns that the expressions read."""
    unused: tuple[str, ...] | None = None
    """Columns of the table that are not read; None = those of the frame."""
    passed_over: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Field -> columns that have a usual name of it too."""
    drop_without_id: bool | None = None
    """Whether rows that lack an id are left out, and not refused; None = refused, and nobody can ask otherwise."""


def read_items(table: Table, fields: ItemColumns, audit: Audit) -> pl.DataFrame:
    """Return item_id, title and what else there is; of a repeated item the first row stays, the others are counted.

    Columns, no Python objects: as much memory as the texts. `UserError` with the rows that have no id.
    """
    columns = {"title": fields.title, **fields.more}
    named = [column for column in columns.values() if isinstance(column, str)]
    more = audit.attributes
    if more:
        require_columns(table, column_names(table), more, "data.items.attributes")
    further = dict(enumerate(audit.several_images or ()))
    if further:
        columns_of_images = {f"image {number + 2}": column for number, column in further.items()}
        require_columns(table, column_names(table), columns_of_images, "data.images.columns")
    wanted = list(dict.fromkeys((fields.item, *named, *fields.reads, *more.values(), *further.values())))
    source = scan(table, wanted)
    schema = schema_of(table, source)
    nested = (pl.List, pl.Struct, pl.Binary)  # lists are joined, and images may be structs or bytes
    texts = [name for name in (*named, *further.values()) if not isinstance(schema[name], nested)]
    raise_if_any(type_problems(table, schema, [fields.item, *dict.fromkeys(texts)]))
    facts = whole_lines(table)
    if schema[fields.item].is_float():
        facts["whole"] = (pl.col(fields.item) == pl.col(fields.item).round()).all()
        facts["rounded"] = rounded(pl.col(fields.item), schema[fields.item]).sum()
    # Not skipped for ids that are text: `whole_lines` fails here where a line has too many fields.
    told = collect(table, source.select(**facts)).row(0, named=True) if facts else {}
    if told.get("rounded"):
        tell_rounded(table, source, fields.item, "items of the table", audit)
    item = as_text(fields.item, schema[fields.item], bool(told.get("whole", True)))
    several = audit.several_images is not None
    made = {name: _made(column, name, schema, several=several) for name, column in columns.items()}
    made |= {f"{FURTHER_IMAGE}{place}": _image(column, schema[column], several=True)
             for place, column in further.items()}  # fmt: skip
    made |= {f"{ATTRIBUTE}{name}": pl.col(column) for name, column in more.items()}
    frame = collect(table, source.select(item_id=item, **made))
    tell_reading(table, audit, frame.height)
    empty = frame["item_id"].is_null() | (frame["item_id"] == "").fill_null(True)
    if fields.drop_without_id:
        empty |= frame.select(is_null_word(pl.col("item_id"))).to_series()
        audit.count("titles_dropped_no_id", int(empty.sum()))
        frame = frame.filter(~empty)
    elif empty.any():
        step = CORRECT if fields.drop_without_id is None else OR_LEAVE_OUT
        check_rows(table, [not_empty(fields.item, item, step)], wanted)
        frame = frame.filter(~empty)
    if not frame.height:
        raise UserError(Problem(str(table.path), "", "no items", "at least one row below the header"))
    unused = fields.unused if fields.unused is not None else tuple(name for name in schema if name not in wanted)
    unused = tuple(name for name in unused if name not in {*more.values(), *further.values()})
    taken = {
        "item": fields.item,
        **{name: _columns_of(column) for name, column in columns.items() if column is not None},
    }
    audit.recognise(
        Recognition(table.path.name, taken, frame.height, unused=unused, passed_over=dict(fields.passed_over))
    )
    return first_rows(frame, audit)


def first_rows(items: pl.DataFrame, audit: Audit) -> pl.DataFrame:
    """Return the first row of every item and count the rows."""
    kept = items.unique("item_id", keep="first", maintain_order=True)
    audit.count("titles_read", items.height)
    audit.count("titles_dropped_duplicate", items.height - kept.height)
    return kept


def words(name: str, dtype: pl.DataType, separator: str = " ") -> pl.Expr:
    """Return a column as text, null where it is empty: lists are joined, those that JSON wrote as text too."""
    column = pl.col(name)
    if isinstance(dtype, pl.List):
        text = column.cast(pl.List(pl.String)).list.join(separator, ignore_nulls=True)
    elif dtype == pl.String:
        # Only text that is a list for sure is decoded: one malformed value would fail the whole column.
        listed = pl.when(column.str.contains(_JSON_TEXTS)).then(column)
        joined = listed.str.json_decode(pl.List(pl.String)).list.join(separator, ignore_nulls=True)
        text = pl.when(listed.is_not_null()).then(joined).otherwise(column)
    else:
        text = column.cast(pl.String)
    return pl.when(~is_empty(text.str.strip_chars())).then(text)


def _columns_of(column: str | pl.Expr) -> str:
    """Return a column, or those that an expression is made of."""
    return column if isinstance(column, str) else " + ".join(dict.fromkeys(column.meta.root_names()))


def _made(column: str | pl.Expr | None, name: str, schema: pl.Schema, *, several: bool) -> pl.Expr:
    if column is None:
        return pl.lit(None, dtype=pl.String)
    if isinstance(column, pl.Expr):
        return column
    dtype = schema[column]
    if name == "image":
        return _image(column, dtype, several=several)
    return words(column, dtype, " > " if name == "category" else " ")


def _image(name: str, dtype: pl.DataType, *, several: bool) -> pl.Expr:
    """Return a path or URL as text, or the bytes: of a list the first, of an image struct its bytes.

    With ``several``, lists stay whole, as lists or as the text that was written.
    """
    column = pl.col(name)
    if several and isinstance(dtype, pl.List | pl.Array):
        return column
    if isinstance(dtype, pl.Struct):
        kinds = {part.name: part.dtype for part in dtype.fields}
        return column.struct.field("bytes" if kinds.get("bytes") == pl.Binary else "path")
    if isinstance(dtype, pl.List):
        return column.list.first().cast(pl.String)
    if dtype == pl.Binary:
        return column
    text = column.cast(pl.String).str.strip_chars()
    if not several:
        text = pl.coalesce(pl.when(text.str.contains(_JSON_TEXTS)).then(text).str.json_path_match("$[0]"), text)
    return pl.when(~is_empty(text) & (text != "[]")).then(text)
