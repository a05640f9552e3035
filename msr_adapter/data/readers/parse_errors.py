"""The slow path of reading: only a file that has a fault is walked line by line, to say where.

Python per row, 1 to 3 microseconds each, in constant memory.
"""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Literal

from msr_adapter.data.readers.compressed import open_plain
from msr_adapter.data.readers.table_layout import Table, open_text
from msr_adapter.errors import LISTED, Problem, listed


@dataclass(frozen=True)
class FilePlace:
    """Where a row of a table stands in its file."""

    line: int
    fields: int | None = None
    """Number of fields on a line of a delimited file."""


def places(table: Table) -> Iterator[FilePlace]:
    """Yield the place of every row, in the order in which the reader returns them."""
    if table.frame is not None or table.layout.kind == "parquet":  # no lines: a row is its number
        yield from map(FilePlace, count(1))
    elif table.is_delimited:
        rows = _delimited(table, strict=False)
        if not table.layout.names:
            next(rows, None)  # the header
        for line, row in rows:
            yield FilePlace(line, len(row))
    else:
        yield from (FilePlace(line) for line, _ in json_lines(table.path))


def json_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the number and text of every line that is not blank. `UnicodeDecodeError` on other text than UTF-8."""
    with open_text(path) as file:
        yield from ((number, line) for number, line in enumerate(file, 1) if line.strip())


def explain(table: Table, reason: str) -> list[Problem]:
    """Return why a file could not be parsed: its bad lines, or ``reason`` when none is found."""
    where = str(table.path)
    if table.frame is not None or table.layout.kind == "parquet":
        what = "cannot be read" if table.frame is not None else "not a readable Parquet file"
        return [Problem(where, "", what, _first_line(reason))]
    try:
        found = [] if table.layout.lossy else list(_not_utf8(table.path))
        if not found:
            found = list(_too_long(table) if table.is_delimited else _bad_json(table.path))
    except (OSError, EOFError) as error:  # a packed file that ends early or is damaged
        found = [Problem(where, "", f"cannot be unpacked ({error})", "a whole file", "Download it again")]
    if not found:
        found = [Problem(where, "", "cannot be parsed", _first_line(reason))]
    return listed(found[:LISTED], len(found), where)


def _not_utf8(path: Path) -> Iterator[Problem]:
    with open_plain(path) as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                found = f"byte {line[error.start]:#04x} at column {error.start + 1} is not UTF-8"
                yield Problem(f"{path}:{number}", "", found, "text in UTF-8", "Save the file as UTF-8")


def _bad_json(path: Path) -> Iterator[Problem]:
    for number, line in json_lines(path):
        try:
            value = json.loads(line)
        except ValueError as error:
            yield Problem(f"{path}:{number}", "", f"not JSON ({error})", "one JSON object per line")
        else:
            if not isinstance(value, dict):
                yield Problem(f"{path}:{number}", "", f"a JSON {type(value).__name__}", "one JSON object per line")


def _too_long(table: Table) -> Iterator[Problem]:
    rows = _delimited(table, strict=True)
    names = len(table.layout.names)
    try:
        width = names or len(next(rows, (0, []))[1])
        for line, row in rows:
            if len(row) > width:
                allowed = f"{width} expected" if names else f"{width}, as in the header"
                step = "Quote a field that holds the separator"
                yield Problem(f"{table.path}:{line}", "", f"{len(row)} columns", allowed, step)
    except csv.Error as error:
        step = "Look for a quotation mark that is never closed"
        yield Problem(str(table.path), "", f"not a table ({error})", "", step)


def _delimited(table: Table, strict: bool) -> Iterator[tuple[int, list[str]]]:
    """Yield the first line's number and the fields of every record."""
    separator = table.layout.separator
    if len(separator) > 1:
        with open_text(table.path) as file:
            yield from ((number, line.rstrip("\r\n").split(separator)) for number, line in enumerate(file, 1))
        return
    # The default, 128 KiB, is a crash for one long description. It is a setting of the process, so it is put back.
    limit = csv.field_size_limit(2**31 - 1)
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if table.layout.quoted else csv.QUOTE_NONE
    try:
        with open_text(table.path) as file:
            reader = csv.reader(file, delimiter=separator, strict=strict, quoting=quoting)
            line = 1
            for row in reader:
                yield line, row
                line = reader.line_num + 1
    finally:
        csv.field_size_limit(limit)


def first_json_keys(path: Path, lines: int) -> list[str]:
    """Return the keys of the first ``lines`` JSON objects, in order of appearance; what is none is passed over."""
    keys: dict[str, None] = {}
    for _, text in islice(json_lines(path), lines):
        try:
            row = json.loads(text)
        except ValueError:
            continue
        if isinstance(row, dict):
            keys.update(dict.fromkeys(row))
    return list(keys)


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0] if text.strip() else ""
