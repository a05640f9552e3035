"""Columns of a csv, tsv, jsonl or parquet file as text, and where in the file a row stands."""

import json
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

import polars as pl

from msr_adapter.data.audit import raise_if_any
from msr_adapter.data.readers.explain import DELIMITERS, explain, json_lines
from msr_adapter.errors import Problem, UserError

SUFFIXES = (*DELIMITERS, ".jsonl", ".parquet")

_KEYS_FROM_LINES = 1000


def file_problems(path: Path, field: str, suffixes: tuple[str, ...]) -> list[Problem]:
    """Return what is wrong with a file before it is opened as a table: absent, a folder, unreadable, empty, unknown."""
    if not path.exists():
        near = sorted(other.name for other in path.parent.glob("*") if other.suffix in suffixes)
        here = f"files there: {', '.join(near[:5])}" if near else ""
        return [Problem(str(path), field, "no such file", here, f"Correct {field}; paths are relative to the YAML")]
    if not path.is_file():
        return [Problem(str(path), field, "not a file", f"one of {', '.join(suffixes)}")]
    if path.suffix.lower() not in suffixes:
        return [Problem(str(path), field, f"unknown kind of file {path.suffix!r}", f"one of {', '.join(suffixes)}")]
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        return [Problem(str(path), field, f"cannot be read ({error.strerror})")]
    return [Problem(str(path), field, "the file is empty", "a header and rows")] if empty else []


def column_names(path: Path) -> list[str]:
    """Return the names of a table's columns; of jsonl, the keys of the first lines. `UserError` if unreadable."""
    suffix = path.suffix.lower()
    try:
        if suffix in DELIMITERS:
            return pl.read_csv(path, separator=DELIMITERS[suffix], n_rows=0, infer_schema=False).columns
        if suffix == ".parquet":
            return list(pl.read_parquet_schema(path))
        return _keys(path)
    except (pl.exceptions.PolarsError, UnicodeDecodeError) as error:
        raise UserError(explain(path, str(error))) from error


def read_columns(path: Path, columns: Mapping[str, str]) -> pl.DataFrame:
    """Return ``columns`` (new name -> name in the file) in the order of the file.

    Text files and all ids come as String, so that leading zeros survive. `UserError` with the bad lines.
    """
    suffix, wanted = path.suffix.lower(), list(dict.fromkeys(columns.values()))
    try:
        if suffix in DELIMITERS:
            frame = pl.read_csv(path, separator=DELIMITERS[suffix], columns=wanted, infer_schema=False)
        elif suffix == ".parquet":
            frame = pl.read_parquet(path, columns=wanted)
        else:
            frame = pl.read_ndjson(path, schema=dict.fromkeys(wanted, pl.String))
    except (pl.exceptions.PolarsError, UnicodeDecodeError) as error:
        raise UserError(explain(path, str(error))) from error
    raise_if_any(_type_problem(path, column) for column in frame.iter_columns() if not _is_simple(column.dtype))
    return frame.select(pl.col(column).alias(name) for name, column in columns.items())


def as_text(values: pl.Series) -> pl.Series:
    """Return ids as stripped text; whole floats (a column that once had gaps) lose their `.0`."""
    if values.dtype.is_float() and (values.drop_nulls() == values.drop_nulls().round()).all():
        values = values.cast(pl.Int64, strict=False)
    return values.cast(pl.String).str.strip_chars()


def _is_simple(dtype: pl.DataType) -> bool:
    return dtype.is_numeric() or dtype in (pl.String, pl.Categorical, pl.Enum, pl.Date, pl.Datetime, pl.Null)


def _type_problem(path: Path, column: pl.Series) -> Problem:
    return Problem(str(path), column.name, f"a column of type {column.dtype}", "text, numbers or dates")


def _keys(path: Path) -> list[str]:
    keys: dict[str, None] = {}
    for _, text in islice(json_lines(path), _KEYS_FROM_LINES):
        try:
            row = json.loads(text)
        except ValueError:
            continue
        if isinstance(row, dict):
            keys.update(dict.fromkeys(row))
    if not keys:
        raise UserError(explain(path, "no JSON object in it"))
    return list(keys)
