"""Parquet as a file or a folder of parts: which files are read, and which of them is broken."""

import glob
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from msr_adapter.data.readers.parquet_footer import column_places
from msr_adapter.errors import Problem, raise_if_any
from msr_adapter.filesystem import files_below

PANIC = "PanicException"
"""What a fault within Polars is raised as; a `BaseException` of no module that could be imported."""
_WHOLE = "Copy or download it again, or remove it"


def parquet_parts(path: Path) -> list[Path]:
    """Return the Parquet files that are read, a folder's in the order of their names; `UserError` on an empty one."""
    parts = _parts(path)
    raise_if_any(problem for part in parts for problem in _cut_short(part))
    return parts


def parquet_problems(path: Path, reason: str) -> list[Problem]:
    """Return which parts cannot be read, or differ from the first in their columns; else ``reason`` for the whole."""
    try:
        found = list(_problems(_parts(path)))
    except OSError as error:
        return [Problem(str(path), "", "cannot be read", str(error))]
    return found or [Problem(str(path), "", "not a readable Parquet file", reason, _WHOLE)]


def _parts(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return sorted(Path(entry.path) for entry, _ in files_below(path) if entry.name.endswith(".parquet"))


def _cut_short(part: Path) -> Iterator[Problem]:
    """Yield what the end of a file and its size tell: nothing in it, or columns that would lie behind its end."""
    size = part.stat().st_size
    if not size:
        yield Problem(str(part), "", "0 bytes", "a Parquet file", _WHOLE)
        return
    try:
        places = column_places(part)
    except (ValueError, OSError):  # Polars says it
        return
    if any(not 0 < begin <= size - max(length, 0) for begin, length in places):
        yield Problem(str(part), "", "its columns lie outside of it", "a whole Parquet file", _WHOLE)


def _problems(parts: list[Path]) -> Iterator[Problem]:
    usual: dict[str, pl.DataType] | None = None
    for part in parts:
        try:
            schema = dict(pl.read_parquet_schema(glob.escape(str(part))))
            pl.scan_parquet(part, glob=False).collect(engine="streaming")
        except (pl.exceptions.PolarsError, OSError) as error:
            reason = str(error).strip().splitlines()
            yield Problem(str(part), "", "not a readable Parquet file", reason[0] if reason else "", _WHOLE)
            continue
        except BaseException as error:
            if type(error).__name__ != PANIC:
                raise
            yield Problem(str(part), "", "not a readable Parquet file", f"Polars gave up on it: {error}", _WHOLE)
            continue
        usual = usual or schema
        step = f"Write all parts with the columns of {parts[0].name}"
        for name in (*usual, *(name for name in schema if name not in usual)):
            here, there = schema.get(name), usual.get(name)
            if here != there:
                found = f"a column of type {here}" if here is not None else "no such column"
                yield Problem(str(part), name, found, f"{there or 'no such column'} in {parts[0].name}", step)
