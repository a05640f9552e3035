"""Tables as lazy frames: text files as text, Parquet as it is typed; every failure to parse names its lines."""

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import polars as pl

from msr_adapter.data.audit.report import Audit
from msr_adapter.data.readers.parquet_parts import PANIC, parquet_parts
from msr_adapter.data.readers.parse_errors import delimited_file, explain
from msr_adapter.data.readers.table_layout import LAYOUTS, TOLD_BY_CONTENT, Layout, Table
from msr_adapter.errors import Problem, UserError, plural, raise_if_any
from msr_adapter.filesystem import absent, files_below
from msr_adapter.text_tables.dialects import dialect_of, without_keys
from msr_adapter.text_tables.file_faults import not_utf8
from msr_adapter.text_tables.json_lines import scan_json_lines
from msr_adapter.text_tables.json_scan import scan_json
from msr_adapter.text_tables.opening import plain_suffix

_FAILURES = (pl.exceptions.PolarsError, UnicodeDecodeError, OSError, EOFError, ValueError)
GENERIC = (*LAYOUTS, *TOLD_BY_CONTENT)
"""The suffixes of tables of a user's own."""
# Polars panics at a zone that it has no rules for, such as `+05:30`; what is stored is UTC, whatever zone is shown.
os.environ.setdefault("POLARS_IGNORE_TIMEZONE_PARSE_ERROR", "1")


def file_problems(path: Path, field: str, suffixes: Collection[str] = GENERIC) -> list[Problem]:
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
    """Return the names of a table's columns; of JSON lines, all keys of all objects. `UserError` if unreadable."""
    if table.frame is None and table.layout.kind == "jsonl":
        with explaining(table):
            found = scan_json(table.path)
            keys = list(found.keys)
        if not keys or found.is_broken:
            raise UserError(explain(table, "no JSON object in it"))
        return keys
    names = schema_of(table, scan(table, ())).names()
    header = "".join(names)
    if table.is_delimited and not table.layout.lossy and "\ufffd" in header and not header.startswith("\ufffd\ufffd"):
        # Polars replaces what is no text in a header, and nowhere else; UTF-16 is told by its zero bytes.
        with explaining(table):
            raise_if_any(not_utf8(table.path))
    return names


def scan(table: Table, wanted: Collection[str]) -> pl.LazyFrame:
    """Return a table as a lazy frame with at least the ``wanted`` columns, its rows in the order of the file.

    The columns of text files are String, so that leading zeros survive; nested JSON comes as its text. `UserError`
    where it cannot be known how the file is meant, or a part of a folder is no Parquet.
    """
    if table.frame is not None:
        return _in_utc(table.frame)
    path, layout = table.path, table.layout
    if layout.kind == "parquet":
        return _in_utc(pl.scan_parquet(parquet_parts(path), glob=False))
    with explaining(table):
        if layout.kind == "jsonl":
            return scan_json_lines(path, scan_json(path), wanted)
        if len(layout.separator) > 1:
            return split_lines(pl.scan_lines(path, name="line", glob=False), layout)
        return delimited_file(table).scan()


@contextmanager
def explaining(table: Table) -> Iterator[None]:
    """Turn whatever a library raises over ``table`` inside into a `UserError` with the file and its bad lines."""
    try:
        yield
    except _FAILURES as error:
        raise UserError(explain(table, str(error))) from error
    except BaseException as error:
        if type(error).__name__ != PANIC:
            raise
        raise UserError(explain(table, f"Polars gave up on it: {error}")) from error


def tell_reading(table: Table, audit: Audit, rows: int | None = None) -> None:
    """Say how a file is read where that is not as its name says or as RFC 4180 and JSON are, and what was passed over.

    ``rows`` are those that were read: another number than the lines of the file is told.
    """
    if table.rows_of is not None:
        tell_reading(table.rows_of, audit, rows)
    if table.frame is not None:
        return
    name, said, lines, least = table.path.name, [table.layout.told], 0, 0
    if table.is_delimited and len(table.layout.separator) == 1:
        found = dialect_of(table.path, table.layout.separator, table.layout.asked)
        headers = 0 if table.layout.names else 1
        lines = found.records and found.records - headers
        least = max(lines - found.blank, 0)
        short = ", ".join(f"{line:,}" for line in found.short[:3])
        if found.short and not table.layout.names:
            have = "has" if found.n_short == 1 else "have"
            fewer = f"{plural(found.n_short, 'row')} of {name} {have} fewer columns than the header"
            said.append(f"{fewer} (line {short}), which are empty there.")
        said.append(found.told)
    elif table.layout.kind == "jsonl":
        found_json = scan_json(table.path)
        lines = least = found_json.lines
        said += found_json.told(name)
    if rows is not None and lines and not least <= rows <= lines:
        said.append(f"{plural(rows, 'row')} were read of {name}, which has {lines:,} below its header: look at its "
                    "quotation marks and line ends.")  # fmt: skip
    for text in said:
        if text:
            audit.find("warning", text)


def _in_utc(frame: pl.LazyFrame) -> pl.LazyFrame:
    """Return a frame whose times say UTC where they have a zone: the moments are the same, and any zone is read."""
    try:
        kinds = frame.collect_schema()
    except _FAILURES:  # told by whoever reads it
        return frame
    zoned = {name: kind for name, kind in kinds.items() if isinstance(kind, pl.Datetime) and kind.time_zone}
    return frame.with_columns(pl.col(name).cast(pl.Datetime(kind.time_unit, "UTC")) for name, kind in zoned.items())


def of_a_side_file(problem: Problem, setting: str, step: str) -> Problem:
    """Return a problem of a table as one of the file that ``setting`` names, whose dialect no key can settle."""
    problem = without_keys(problem, step)
    return problem if problem.field else replace(problem, field=setting, found=f"cannot be read: {problem.found}")


def collect(table: Table, frame: pl.LazyFrame) -> pl.DataFrame:
    """Run a query on ``table`` in a stream; `UserError` with the bad lines when the file cannot be parsed."""
    with explaining(table):
        return frame.collect(engine="streaming")


def whole_lines(table: Table) -> dict[str, pl.Expr]:
    """Return an aggregate that makes a query on ``table`` fail on lines with too many fields; nothing where none can.

    Polars stops at the last column that is asked for: a title with an unquoted comma would be cut without a word.
    """
    if not table.is_delimited or table.frame is not None:
        return {}
    return {"fields": pl.sum_horizontal(pl.all().count())}


def schema_of(table: Table, frame: pl.LazyFrame) -> pl.Schema:
    """Return the types of a frame on ``table``; `UserError` when the file cannot be parsed."""
    with explaining(table):
        return frame.collect_schema()


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
