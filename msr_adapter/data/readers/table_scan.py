"""Tables as lazy frames: text files as text, Parquet as it is typed; every failure to parse names its lines."""

import glob
from collections.abc import Collection
from pathlib import Path

import polars as pl

from msr_adapter.data.readers.compressed import plain_suffix
from msr_adapter.data.readers.parse_errors import explain, first_json_keys
from msr_adapter.data.readers.table_layout import LAYOUTS, Layout, Table
from msr_adapter.errors import Problem, UserError
from msr_adapter.filesystem import absent, files_below

_KEYS_FROM_LINES = 1000
"""Lines of a .jsonl file that tell its columns."""
_FAILURES = (pl.exceptions.PolarsError, UnicodeDecodeError, OSError, EOFError)


def file_problems(path: Path, field: str, suffixes: Collection[str] = tuple(LAYOUTS)) -> list[Problem]:
    """Return what is wrong with a file before it is opened as a table: absent, a folder, unreadable, empty, unknown."""
    if not path.exists():
        near = sorted(other.name for other in path.parent.glob("*") if plain_suffix(other) in suffixes)
        here = f"files there: {', '.join(near[:5])}" if near else ""
        return [Problem(str(path), field, absent(path), here, f"Correct {field}; paths are relative to the YAML")]
    if (
        ".parquet" in suffixes
        and path.is_dir()
        and any(entry.name.endswith(".parquet") for entry, _ in files_below(path))
    ):
        return []
    if not path.is_file():
        return [Problem(str(path), field, "not a file", f"one of {', '.join(suffixes)}")]
    # Parquet compresses within the file and is read from any place of it, so a gzip around it cannot be read through.
    if plain_suffix(path) not in suffixes or path.name.lower().endswith(".parquet.gz"):
        return [Problem(str(path), field, f"unknown kind of file {path.suffix!r}", f"one of {', '.join(suffixes)}")]
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        return [Problem(str(path), field, f"cannot be read ({error.strerror})")]
    return [Problem(str(path), field, "the file is empty", "a header and rows")] if empty else []


def column_names(table: Table) -> list[str]:
    """Return the names of a table's columns; of jsonl, the keys of the first lines. `UserError` if unreadable."""
    if table.frame is None and table.layout.kind == "jsonl":
        try:
            keys = first_json_keys(table.path, _KEYS_FROM_LINES)
        except _FAILURES as error:
            raise UserError(explain(table, str(error))) from error
        if not keys:
            raise UserError(explain(table, "no JSON object in it"))
        return keys
    return schema_of(table, scan(table, ())).names()


def scan(table: Table, wanted: Collection[str]) -> pl.LazyFrame:
    """Return a table as a lazy frame with at least the ``wanted`` columns, its rows in the order of the file.

    The columns of text files are String, so that leading zeros survive; nested JSON comes as its text.
    """
    if table.frame is not None:
        return table.frame
    path, layout = table.path, table.layout
    if layout.kind == "parquet":
        if path.is_dir():
            return pl.scan_parquet(f"{glob.escape(str(path))}/**/*.parquet")
        return pl.scan_parquet(path, glob=False)
    if layout.kind == "jsonl":  # with a schema, since Polars would guess it from the first rows and fail on the others
        return pl.scan_ndjson(glob.escape(str(path)), schema=dict.fromkeys(wanted, pl.String))
    if len(layout.separator) > 1:
        return split_lines(pl.scan_lines(path, name="line", glob=False), layout)
    return pl.scan_csv(
        path,
        separator=layout.separator,
        quote_char='"' if layout.quoted else None,
        has_header=not layout.names,
        schema=dict.fromkeys(layout.names, pl.String) if layout.names else None,
        missing_columns="insert" if layout.names else "raise",
        infer_schema=False,  # everything stays text, so that the id 007 is not the number 7
        glob=False,  # `[` and `*` in the name of a file are themselves
        encoding="utf8-lossy" if layout.lossy else "utf8",
    )


def collect(table: Table, frame: pl.LazyFrame) -> pl.DataFrame:
    """Run a query on ``table`` in a stream; `UserError` with the bad lines when the file cannot be parsed."""
    try:
        return frame.collect(engine="streaming")
    except _FAILURES as error:
        raise UserError(explain(table, str(error))) from error


def whole_lines(table: Table) -> dict[str, pl.Expr]:
    """Return an aggregate that makes a query on ``table`` fail on lines with too many fields; nothing where none can.

    Polars stops at the last column that is asked for: a title with an unquoted comma would be cut without a word.
    """
    if not table.is_delimited or table.frame is not None:
        return {}
    return {"fields": pl.sum_horizontal(pl.all().count())}


def schema_of(table: Table, frame: pl.LazyFrame) -> pl.Schema:
    """Return the types of a frame on ``table``; `UserError` when the file cannot be parsed."""
    try:
        return frame.collect_schema()
    except _FAILURES as error:
        raise UserError(explain(table, str(error))) from error


def type_problems(table: Table, schema: pl.Schema, columns: Collection[str]) -> list[Problem]:
    """Return a problem for each of ``columns`` that is nested or binary."""
    simple = (pl.String, pl.Categorical, pl.Enum, pl.Date, pl.Datetime, pl.Null)
    # A class of types stands for all of its instances: `pl.Datetime` is equal to one of any unit and zone.
    found = {name: schema[name] for name in columns if not schema[name].is_numeric() and schema[name] not in simple}
    allowed = "text, numbers or dates"
    return [Problem(str(table.path), name, f"a column of type {dtype}", allowed) for name, dtype in found.items()]


def split_lines(lines: pl.LazyFrame, layout: Layout) -> pl.LazyFrame:
    """Cut the column `line` into the fields of a layout without header or quotation marks; short lines give nulls.

    What is too much for a line stays in its last field.
    """
    fields = pl.col("line").str.strip_chars_end("\r").str.splitn(layout.separator, len(layout.names))
    return lines.select(fields.struct.rename_fields(layout.names).struct.unnest())
