"""Where a file of text is broken; a fault that repeats is one problem, with its number and first lines."""

import csv
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from msr_adapter.errors import Problem
from msr_adapter.text_tables.delimited import DelimitedFile
from msr_adapter.text_tables.opening import open_plain

_NAMED = 4
"""Lines that are named where many have the same fault."""
ENCODING_STEP = "Save the file as UTF-8, or set data.source.encoding of a table of your own"


def together(problems: Iterable[Problem]) -> list[Problem]:
    """Return one problem for each kind of fault, that of its first line, with the number and first lines of all."""
    first: dict[tuple[str, ...], Problem] = {}
    lines: dict[tuple[str, ...], list[str]] = {}
    numbers: dict[tuple[str, ...], int] = {}
    for problem in problems:
        kind = (problem.field, problem.allowed, re.sub(r"\(.*\)|0x\w+|\d+", "", problem.found))
        first.setdefault(kind, problem)
        numbers[kind] = numbers.get(kind, 0) + 1
        if len(lines.setdefault(kind, [])) < _NAMED:
            lines[kind].append(problem.where.rpartition(":")[2])
    return [repeated(one, numbers[kind], lines[kind][1:]) for kind, one in first.items()]


def repeated(problem: Problem, number: int, others: list[str]) -> Problem:
    """Return the first of ``number`` problems of one kind, which says in which lines the ``others`` stand."""
    if number == 1:
        return problem
    more = ", ..." if number - 1 > len(others) else ""
    which = f"line{'s' if number > 2 else ''} {', '.join(others)}{more}" if others else "further down"
    found = f"{problem.found}, and {number - 1:,} more like it ({which})"
    return Problem(problem.where, problem.field, found, problem.allowed, problem.next_step)


def not_utf8(path: Path) -> list[Problem]:
    """Return which lines of a file are no UTF-8, in one problem."""
    return together(_not_utf8(path))


def _not_utf8(path: Path) -> Iterator[Problem]:
    with open_plain(path) as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                found = f"byte {line[error.start]:#04x} at column {error.start + 1} is not UTF-8"
                yield Problem(f"{path}:{number}", "", found, "text in UTF-8", ENCODING_STEP)


def wrong_widths(
    where: Path, rows: Iterator[tuple[int, list[str]]], width: int | None, *, exact: bool
) -> list[Problem]:
    """Return which records have more fields than ``width`` (None: than the first), or other numbers where ``exact``."""
    return together(_wrong_widths(where, rows, width, exact=exact))


def delimited_faults(file: DelimitedFile) -> list[Problem]:
    """Return why a delimited file cannot be read; nothing where that is not known."""
    found = [] if file.lossy else not_utf8(file.path)
    if found:
        return found
    return wrong_widths(file.path, file.records(strict=True), len(file.names) or None, exact=file.is_exact)


def _wrong_widths(
    where: Path, rows: Iterator[tuple[int, list[str]]], width: int | None, *, exact: bool
) -> Iterator[Problem]:
    names = width
    try:
        width = width or len(next((row for _, row in rows if row), []))
        for line, row in rows:
            if len(row) > width or (exact and row and len(row) < width):
                allowed = f"{width} expected" if names else f"{width}, as in the header"
                step = "Quote a field that holds the separator" if len(row) > width else "Complete or remove the row"
                yield Problem(f"{where}:{line}", "", f"{len(row)} columns", allowed, step)
    except csv.Error as error:
        step = "Look for a quotation mark that is never closed"
        yield Problem(str(where), "", f"not a table ({error})", "", step)
