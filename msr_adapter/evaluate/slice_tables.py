"""Slices by the columns of the user's own tables of items and users."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from msr_adapter.config.schema import SliceTablesConfig
from msr_adapter.errors import Problem, UserError, plural
from msr_adapter.evaluate.metrics_file import EvaluationFinding
from msr_adapter.evaluate.slice_groups import Slice, UserFacts, by_day, by_number, by_text
from msr_adapter.text_tables.delimited import DelimitedFile
from msr_adapter.text_tables.dialects import Asked, dialect_of, without_keys
from msr_adapter.text_tables.file_faults import delimited_faults

_ID_COLUMNS = {"items": ("item_id", "item"), "users": ("user_id", "user")}
_GROUPED = (pl.String, pl.Categorical, pl.Enum, pl.Boolean, pl.Date, pl.Datetime, pl.Null)
# Types are told from all rows: from the first hundred, Polars would guess a number where a text comes later.
_TEXT: Any = {"infer_schema_length": None, "try_parse_dates": True, "null_values": ["nan", "NaN"]}
_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_SUFFIXES = (*_SEPARATORS, ".parquet")


def check_tables(tables: SliceTablesConfig, where: str) -> list[Problem]:
    """Return every problem with the tables that their headers show."""
    return [problem for kind, path in _given(tables) if (problem := _check(kind, path, where))]


def table_slices(tables: SliceTablesConfig, facts: UserFacts) -> list[Slice]:
    """Return one slice per column: numbers and dates cut at quartiles, texts by value; an id without a row is `NONE`.

    Columns of lists, bytes and the like give none. Raises UserError when an id has two rows.
    """
    found = []
    for kind, path in _given(tables):
        frame, key = _read(kind, path)
        joined = _ids(kind, key, facts).join(frame, on=key, how="left", maintain_order="left")
        names = [name for name in frame.columns if name != key and _can_group(frame[name])]
        found += [_slice(f"{kind}: {name}", joined[name]) for name in names]
    return found


def table_findings(tables: SliceTablesConfig, facts: UserFacts) -> list[EvaluationFinding]:
    """Return what the tables could not be used for, as {severity, text}: ids that are not theirs, odd columns."""
    found: list[EvaluationFinding] = []
    for kind, path in _given(tables):
        frame, key = _read(kind, path)
        if path.suffix in _SEPARATORS and (told := _delimited(path).dialect.told):
            found.append({"severity": "warning", "text": told})
        asked, known = _ids(kind, key, facts)[key].to_list(), frame[key].drop_nulls().to_list()
        if not set(asked) & set(known):
            whose = "any test user" if kind == "users" else "any test user's target"
            text = f"{path.name} has no row of {whose}, so it gives no slices: its {key} is {_first(known)}, "
            found.append({"severity": "warning", "text": f"{text}the data's {_first(asked)}."})
        if odd := [name for name in frame.columns if not _can_group(frame[name])]:
            text = f"No slice by {', '.join(odd)} of {path.name}: neither numbers nor dates nor texts."
            found.append({"severity": "info", "text": text})
    return found


def _ids(kind: str, key: str, facts: UserFacts) -> pl.DataFrame:
    """Return each test user's id in the table: the target's, or the user's own (users,)."""
    ids = facts.items["item_id"].take(facts.target) if kind == "items" else facts.user_ids
    return pl.DataFrame({key: pl.Series(ids.to_pylist(), dtype=pl.String)})


def _first(ids: Sequence[str]) -> str:
    return f"{ids[0]} .." if len(ids) > 1 else "".join(ids) or "empty"


def _can_group(column: pl.Series) -> bool:
    return column.dtype.is_numeric() or column.dtype in _GROUPED


def _given(tables: SliceTablesConfig) -> list[tuple[str, Path]]:
    return [(kind, path) for kind, path in (("items", tables.items), ("users", tables.users)) if path is not None]


def _check(kind: str, path: Path, where: str) -> Problem | None:
    field = f"evaluate.tables.{kind}"
    if path.suffix not in _SUFFIXES:
        found = f"{path}: a file called *{path.suffix}" if path.suffix else f"{path}: a file without a suffix"
        return Problem(where, field, found, f"one of {', '.join(_SUFFIXES)}", "Save the table as one of these")
    try:
        names = _scan(path, {}).collect_schema().names()
    except UserError as error:
        return without_keys(error.problems[0], "Correct the line")
    except (OSError, pl.exceptions.PolarsError) as error:
        return Problem(where, field, f"{path} cannot be read ({str(error).splitlines()[0]})", next_step="Correct it")
    if not set(names) & set(_ID_COLUMNS[kind]):
        return Problem(where, field, f"{path} has the columns {', '.join(names)}",
                       f"one of them called {' or '.join(_ID_COLUMNS[kind])}", "Rename the column of ids")  # fmt: skip
    try:
        _read(kind, path)
    except UserError as error:
        return error.problems[0]
    except (OSError, pl.exceptions.PolarsError) as error:
        return Problem(where, field, f"{path} cannot be read ({str(error).splitlines()[0]})", next_step="Correct it")
    return None


def _read(kind: str, path: Path) -> tuple[pl.DataFrame, str]:
    """Return the table and the name of its column of ids, which is text: leading zeros survive."""
    try:
        lazy = _scan(path, {})
        key = next(name for name in _ID_COLUMNS[kind] if name in lazy.collect_schema().names())
        if path.suffix in _SEPARATORS:
            lazy = _scan(path, {key: pl.String})
        text = pl.col(key).cast(pl.String)
        if lazy.collect_schema()[key].is_float():  # as a data frame holds whole numbers with gaps
            whole = pl.when(pl.col(key) == pl.col(key).round()).then(pl.col(key)).cast(pl.Int64, strict=False)
            text = pl.coalesce(whole.cast(pl.String), text)
        frame = lazy.with_columns(text.alias(key)).collect()
    except UserError as error:
        raise UserError(without_keys(problem, "Correct the line") for problem in error.problems) from error
    except (OSError, pl.exceptions.PolarsError) as error:
        faults = delimited_faults(_delimited(path)) if path.suffix in _SEPARATORS else []
        raise UserError(faults or Problem(str(path), "", "cannot be read", str(error).splitlines()[0])) from error
    twice = frame.filter(pl.col(key).is_duplicated())
    if len(twice):
        first = twice[key][0]
        many = twice[key].n_unique()
        found = f"{plural(many, 'id')} {'has' if many == 1 else 'have'} several rows, e.g. {first}"
        raise UserError(Problem(str(path), key, found, "one row per id", "Keep one row of each"))
    return frame, key


def _scan(path: Path, types: dict[str, pl.DataType | type[pl.DataType]]) -> pl.LazyFrame:
    """Return a table, its columns as numbers, dates and texts; those of ``types`` as these say."""
    if path.suffix not in _SEPARATORS:
        return pl.scan_parquet(path, glob=False)
    file, options = _delimited(path), {**_TEXT, "schema_overrides": types}
    if not file.is_exact:
        mark = None if file.dialect.reading == "none" else '"'
        return pl.scan_csv(path, separator=file.separator, quote_char=mark, glob=False, **options)
    # Types are told by the csv reader alone, so that what it cannot read is written for it first.
    return pl.read_csv(io.BytesIO(file.scan().collect().write_csv().encode()), **options).lazy()


def _delimited(path: Path) -> DelimitedFile:
    separator = _SEPARATORS[path.suffix]
    return DelimitedFile(path, separator, dialect_of(path, separator, Asked()))


def _slice(name: str, column: pl.Series) -> Slice:
    if column.dtype in (pl.Date, pl.Datetime):
        return by_day(name, column.dt.epoch("d").cast(pl.Float64).to_numpy())
    if column.dtype.is_numeric():
        return by_number(name, column.cast(pl.Float64).to_numpy())
    return by_text(name, column.cast(pl.String).to_list())
