"""Files that a command is given beside the sources: ids of users, candidate items, interactions that came later."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from msr_adapter.config.schema import FileFormatConfig, SourceConfig
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.readers.column_choice import ChosenColumns, choose_columns
from msr_adapter.data.readers.column_names import ALIASES, candidates, canonical
from msr_adapter.data.readers.events import EventRules
from msr_adapter.data.readers.id_columns import as_text
from msr_adapter.data.readers.interactions import LogColumns, read_log
from msr_adapter.data.readers.sources import configured_columns, missing_times_of, threshold_of
from msr_adapter.data.readers.table_layout import LAYOUTS, Layout, Table, table_at
from msr_adapter.data.readers.table_scan import (
    collect,
    column_names,
    file_problems,
    scan,
    schema_of,
    tell_reading,
    type_problems,
)
from msr_adapter.data.readers.value_checks import check_rows, not_empty
from msr_adapter.errors import Problem, UserError, raise_if_any
from msr_adapter.text_tables.dialects import without_keys
from msr_adapter.text_tables.opening import plain_suffix

_LINES = ".txt"
_SUFFIXES = (*LAYOUTS, _LINES)
_ID = {"user": "user_id", "item": "item_id"}


@dataclass(frozen=True)
class IdFile:
    """A file of ids, and the option of the command that names it."""

    path: Path
    option: str
    audit: Audit | None
    """Takes what is odd about the file."""


def id_file_problems(path: Path, option: str, *, lines: bool = True) -> list[Problem]:
    """Return what is wrong with a file before it is read; with ``lines``, plain text with an id a line will do too."""
    if path.is_dir():
        return [Problem("", option, f"{path} is a folder", "a file", f"Correct {option}")]
    found = file_problems(path, option, _SUFFIXES if lines else tuple(LAYOUTS))
    # The readers' advice names keys of the pipeline; here an option of the command is at fault.
    return [replace(one, next_step=f"Correct {option}" if one.next_step else "") for one in found]


def read_user_ids(path: Path, option: str, audit: Audit | None = None) -> pl.Series:
    """Return the distinct user ids of a file in its order: a column of users, or an id a line.

    `UserError` with every bad row; ``audit`` takes what is odd about the file.
    """
    return _read(IdFile(path, option, audit), ("user",), ())["user_id"].unique(maintain_order=True)


def read_item_ids(path: Path, option: str, audit: Audit | None = None) -> pl.DataFrame:
    """Return distinct item_id, or user_id and item_id where the file has users, in the order of the file.

    `UserError` with every bad row; ``audit`` takes what is odd about the file.
    """
    return _read(IdFile(path, option, audit), ("item",), ("user",)).unique(maintain_order=True)


def read_later_interactions(path: Path, option: str, source: SourceConfig) -> tuple[pl.DataFrame, Audit]:
    """Return user_id, item_id, timestamp (ms, or the row number) in the order of the file, and the audit of reading it.

    Columns are named as in ``source``, the pipeline's, or looked for by their aliases where the file lacks the name.
    Rows that its threshold of ratings drops are marked in the column `filtered`, as in a `Corpus`.
    """
    audit, table = Audit(), table_at(path)
    raise_if_any(id_file_problems(path, option, lines=False))
    header = _named(table, option)
    names = getattr(source, "names", None)
    if names is not None and table.is_delimited and not any(candidates(header, field) for field in ALIASES):
        table = table_at(path, FileFormatConfig(names=names))
        header = list(table.layout.names)
    known = {field: name for field, name in configured_columns(source).items() if name in header}
    threshold = threshold_of(source)
    more = ("timestamp",) if threshold is None else ("timestamp", "rating")
    chosen = _columns(table, option, ("user", "item"), more, known)
    chosen.tell(audit)
    names = chosen.names
    least = None
    if threshold is not None and "rating" in names:
        least = threshold.least
    elif threshold is not None:
        audit.find("warning", f"{path.name} has no column of ratings: all of its rows count as history, whatever "
                   f"data.source.{threshold.key} says.")  # fmt: skip
    events, said = None, getattr(source, "events", None)
    if said is not None and said.column in header:
        names, events = {**names, "event": said.column}, EventRules(said.column, said)
    elif said is not None:
        audit.find("warning", f"{path.name} has no column {said.column} of events: all of its rows count as history.")
    wanted = LogColumns(names, least, missing_times_of(source), may_be_empty=True, events=events)
    return collect(table, read_log(table, wanted, audit)), audit


def _read(file: IdFile, required: Sequence[str], optional: Sequence[str]) -> pl.DataFrame:
    path, option = file.path, file.option
    raise_if_any(id_file_problems(path, option))
    try:
        return _rows(file, required, optional)
    except UserError as error:
        step = "Correct the line, or give a plain text (.txt) with an id a line"
        raise UserError(without_keys(problem, step) for problem in error.problems) from error


def _rows(file: IdFile, required: Sequence[str], optional: Sequence[str]) -> pl.DataFrame:
    path, option = file.path, file.option
    table, names = _open(path, option, required, optional)
    frame = scan(table, names.values())
    types = schema_of(table, frame)
    raise_if_any(type_problems(table, types, list(names.values())))
    floats = [name for name in names.values() if types[name].is_float()]
    whole = collect(table, frame.select((pl.col(name) == pl.col(name).round()).all() for name in floats))
    texts = {
        field: as_text(name, types[name], bool(whole[name][0]) if name in floats else True)
        for field, name in names.items()
    }
    check_rows(table, [not_empty(names[field], text.fill_null("")) for field, text in texts.items()], names.values())
    rows = collect(table, frame.select(text.alias(_ID[field]) for field, text in texts.items()))
    if file.audit is not None:
        tell_reading(table, file.audit, rows.height)
    # Only blank lines are left to drop: any other row without an id has ended the command above.
    rows = rows.filter(pl.all_horizontal((pl.all() != "").fill_null(False)))
    if rows.is_empty():
        raise UserError(Problem(str(path), option, "no ids", f"at least one {required[0]}"))
    return rows


def _open(path: Path, option: str, required: Sequence[str], optional: Sequence[str]) -> tuple[Table, dict[str, str]]:
    """Return the table and field -> column; a file of one column without a known name is an id a line."""
    [field] = required
    if plain_suffix(path) == _LINES:
        return _lines(path, Layout("delimited", "\t", quoted=False), field)
    table = table_at(path)
    header = _named(table, option)
    if table.is_delimited and len(header) == 1 and not _is_header(header[0], field):
        return _lines(path, table.layout, field)
    return table, _columns(table, option, required, optional, {}).names


def _lines(path: Path, layout: Layout, field: str) -> tuple[Table, dict[str, str]]:
    """Return a file of ids as a table; its first line is a header only where it is a name that such columns have."""
    first = column_names(Table(path, layout))
    headed = len(first) == 1 and _is_header(first[0], field)
    table = Table(path, layout if headed else replace(layout, names=(field,)))
    return table, {field: first[0] if headed else field}


def _is_header(name: str, field: str) -> bool:
    return canonical(name) in map(canonical, ALIASES[field])


def _named(table: Table, option: str) -> list[str]:
    names = column_names(table)
    if not names:
        raise UserError(Problem(str(table.path), option, "no column"))
    return names


def _columns(
    table: Table, option: str, required: Sequence[str], optional: Sequence[str], configured: Mapping[str, str | None]
) -> ChosenColumns:
    try:
        return choose_columns(table, required, optional, configured)
    except UserError as error:
        wanted = " and ".join(_ID[field] for field in required)
        ids = f"Name the columns {wanted}" if len(required) > 1 else f"Name the column {wanted}"
        steps = {"timestamp": f"Name the column of times timestamp for {option}, or sort the rows by it"}
        raise UserError(
            [replace(one, next_step=steps.get(one.field, f"{ids} for {option}")) for one in error.problems]
        ) from error
