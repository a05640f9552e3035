"""The slow path of reading: only a file that has a fault is walked line by line, to say where.

Python per row, 1 to 3 microseconds each, in constant memory.
"""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import polars as pl

from msr_adapter.data.readers.parquet_parts import parquet_problems
from msr_adapter.data.readers.table_layout import Table
from msr_adapter.errors import Problem
from msr_adapter.text_tables.delimited import DelimitedFile
from msr_adapter.text_tables.dialects import dialect_of
from msr_adapter.text_tables.file_faults import not_utf8, together, wrong_widths
from msr_adapter.text_tables.json_array import array_elements
from msr_adapter.text_tables.json_blocks import JsonBlock, blocks
from msr_adapter.text_tables.json_lines import cleaned
from msr_adapter.text_tables.json_scan import scan_json
from msr_adapter.text_tables.opening import open_text


@dataclass(frozen=True)
class FilePlace:
    """Where a row of a table stands in its file."""

    line: int
    fields: int | None = None
    """Number of fields on a line of a delimited file."""


def places(table: Table) -> Iterator[FilePlace]:
    """Yield the place of every row, in the order in which the reader returns them."""
    if table.rows_of is not None:
        yield from places(table.rows_of)
    elif table.frame is not None or table.layout.kind == "parquet":  # no lines: a row is its number
        yield from map(FilePlace, count(1))
    elif table.is_delimited:
        rows = _delimited(table, strict=False)
        if not table.layout.names:
            next((row for _, row in rows if row), None)  # the header
        for line, row in rows:
            yield FilePlace(line, len(row))
    else:
        yield from (FilePlace(line) for line, _ in json_texts(table.path))


def json_texts(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of every object. `UnicodeDecodeError` on other text than UTF-8."""
    if scan_json(path).is_array:
        yield from array_elements(path)
        return
    with open_text(path) as file:
        yield from ((number, line) for number, line in enumerate(file, 1) if line.strip())


def delimited_file(table: Table) -> DelimitedFile:
    """Return how a file whose separator is one character is read; `UserError` where that cannot be known."""
    layout = table.layout
    dialect = dialect_of(table.path, layout.separator, layout.asked)
    return DelimitedFile(table.path, layout.separator, dialect, layout.names, layout.lossy)


def explain(table: Table, reason: str) -> list[Problem]:
    """Return why a file could not be parsed: what is wrong with it, or ``reason`` when nothing is found.

    A fault that repeats is one problem, with its first lines and their number.
    """
    where = str(table.path)
    if table.rows_of is not None:
        return explain(table.rows_of, reason)
    if table.frame is not None:
        return [Problem(where, "", "cannot be read", _first_line(reason))]
    if table.layout.kind == "parquet":
        return parquet_problems(table.path, _first_line(reason))
    try:
        found = [] if table.layout.lossy else not_utf8(table.path)
        if not found:
            found = _wrong_width(table) if table.is_delimited else together(_bad_json(table.path))
    except (OSError, EOFError) as error:  # a packed file that ends early or is damaged
        found = [Problem(where, "", f"cannot be unpacked ({error})", "a whole file", "Download it again")]
    return found or [Problem(where, "", "cannot be parsed", _first_line(reason))]


def _bad_json(path: Path) -> Iterator[Problem]:
    if scan_json(path).is_array:
        yield from _bad_array(path)
        return
    is_bad = False
    for number, line in json_texts(path):
        for problem in _bad_object(path, number, line):
            is_bad = True
            yield problem
    if not is_bad:
        yield from _refused(path)


def _bad_array(path: Path) -> Iterator[Problem]:
    try:
        for number, text in array_elements(path):
            yield from _bad_object(path, number, text)
    except json.JSONDecodeError as error:
        yield Problem(f"{path}:{error.lineno}", "", f"not JSON ({error.msg})", "an array of JSON objects")


def _bad_object(path: Path, number: int, text: str) -> Iterator[Problem]:
    try:
        value = json.loads(text)
    except ValueError as error:
        yield Problem(f"{path}:{number}", "", f"not JSON ({error})", "one JSON object per line")
    except RecursionError:
        yield Problem(f"{path}:{number}", "", "JSON of too many levels", "one JSON object per line")
    else:
        if not isinstance(value, dict):
            yield Problem(f"{path}:{number}", "", f"a JSON {type(value).__name__}", "one JSON object per line")


def _refused(path: Path) -> Iterator[Problem]:
    """Yield the lines that Python reads as JSON and Polars does not: numbers without bound, a thousand levels."""
    for block in blocks(path):
        if _failure(cleaned(block)):
            for place, line in enumerate(block.data.split(b"\n")):
                if line.strip() and (reason := _failure(cleaned(JsonBlock(line, 1)))):
                    found = f"cannot be read ({reason})"
                    yield Problem(f"{path}:{block.line + place}", "", found, "one JSON object per line")


def _failure(data: bytes) -> str:
    try:
        pl.read_ndjson(io.BytesIO(data), schema={"_": pl.String})
    except pl.exceptions.PolarsError as error:
        return _first_line(str(error)).removeprefix("error parsing line: ")
    return ""


def _wrong_width(table: Table) -> list[Problem]:
    # Polars takes a row with fewer fields, Arrow does not.
    is_exact = len(table.layout.separator) == 1 and delimited_file(table).is_exact
    rows = _delimited(table, strict=True)
    return wrong_widths(table.path, rows, len(table.layout.names) or None, exact=is_exact)


def _delimited(table: Table, strict: bool) -> Iterator[tuple[int, list[str]]]:
    """Yield the first line's number and the fields of every record; where Arrow reads it, blank lines are none."""
    separator = table.layout.separator
    if len(separator) > 1:
        with open_text(table.path) as file:
            yield from ((number, line.rstrip("\r\n").split(separator)) for number, line in enumerate(file, 1))
        return
    file_ = delimited_file(table)
    yield from ((line, row) for line, row in file_.records(strict=strict) if row or not file_.is_exact)


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0] if text.strip() else ""
