"""The slow path of reading: only a file that has a fault is walked line by line, to say where."""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from msr_adapter.data.audit import LISTED, listed
from msr_adapter.errors import Problem

DELIMITERS = {".csv": ",", ".tsv": "\t"}


@dataclass(frozen=True)
class Place:
    """Where a row of a table stands in its file."""

    line: int
    fields: int | None = None
    """Number of fields on a line of csv or tsv."""
    blank: bool = False


def places(path: Path, has_header: bool = True) -> Iterator[Place]:
    """Yield the place of every row, in the order in which the reader returns them."""
    suffix = path.suffix.lower()
    if suffix in DELIMITERS:
        rows = _delimited(path, strict=False)
        if has_header:
            next(rows, None)
        for line, row in rows:
            yield Place(line, len(row), not any(field.strip() for field in row))
    elif suffix == ".jsonl":
        yield from (Place(line) for line, _ in json_lines(path))
    else:
        yield from map(Place, count(1))


def json_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the number and text of every line that is not blank. `UnicodeDecodeError` on other text than UTF-8."""
    with path.open(encoding="utf-8") as file:
        yield from ((number, line) for number, line in enumerate(file, 1) if line.strip())


def explain(path: Path, reason: str) -> list[Problem]:
    """Return why a file could not be parsed: its bad lines, or ``reason`` when none is found."""
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return [Problem(str(path), "", "not a readable Parquet file", _first_line(reason))]
    found = list(_not_utf8(path))
    if not found:
        found = list(_bad_json(path) if suffix == ".jsonl" else _too_long(path))
    if not found:
        found = [Problem(str(path), "", "cannot be parsed", _first_line(reason))]
    return listed(found[:LISTED], len(found), str(path))


def _not_utf8(path: Path) -> Iterator[Problem]:
    with path.open("rb") as file:
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


def _too_long(path: Path) -> Iterator[Problem]:
    rows = _delimited(path, strict=True)
    try:
        width = len(next(rows, (0, []))[1])
        for line, row in rows:
            if len(row) > width:
                found = f"{len(row)} columns"
                allowed = f"{width}, as in the header"
                yield Problem(f"{path}:{line}", "", found, allowed, "Quote a field that holds the separator")
    except csv.Error as error:
        yield Problem(str(path), "", f"not a table ({error})", "", "Look for a quotation mark that is never closed")


def _delimited(path: Path, strict: bool) -> Iterator[tuple[int, list[str]]]:
    """Yield the first line's number and the fields of every record."""
    limit = csv.field_size_limit(2**31 - 1)  # the default, 128 KiB, is a crash for one long description
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=DELIMITERS[path.suffix.lower()], strict=strict)
            line = 1
            for row in reader:
                yield line, row
                line = reader.line_num + 1
    finally:
        csv.field_size_limit(limit)


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0] if text.strip() else ""
