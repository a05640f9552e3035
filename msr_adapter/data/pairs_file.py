"""A table of pairs to be scored: who and what its rows name, and all of its columns, in the order of the file.

Rows go through two files beside the work, one of the roles and one of whatever else there is, so that memory does not
grow with their number.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from msr_adapter.config.schema import FileFormatConfig
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.readers.column_names import candidates, find_columns
from msr_adapter.data.readers.id_columns import as_text
from msr_adapter.data.readers.parse_errors import json_texts, places
from msr_adapter.data.readers.table_layout import Table, table_at
from msr_adapter.data.readers.table_scan import (
    GENERIC,
    collect,
    column_names,
    explaining,
    file_problems,
    scan,
    schema_of,
    tell_reading,
    type_problems,
    whole_lines,
)
from msr_adapter.data.readers.value_checks import blank_lines
from msr_adapter.errors import Problem, UserError, did_you_mean, raise_if_any

FIELDS = ("user", "item", "title", "image")
"""What a row may name."""
_PART = 65_536
"""Rows of a file that are in memory at a time."""
_ROW = "\0row"
"""No header has this name: a text with a zero byte is refused."""
_NAME_THEM = "Name the columns user_id and item_id (or title), or say which they are: --columns user=NAME,item=NAME"


@dataclass(frozen=True)
class PairsFile:
    """A table of pairs that was looked at."""

    table: Table
    option: str
    """What the command calls the file."""
    header: tuple[str, ...]
    columns: Mapping[str, str]
    """Field -> column: user, and item or title or both; maybe image."""

    @property
    def is_json(self) -> bool:
        """Whether the rows are JSON objects."""
        return self.table.layout.kind == "jsonl"


def parse_columns(text: str, option: str = "--columns") -> dict[str, str]:
    """Read ``user=who,item=what``; `UserError` with all that is no field or names no column."""
    found, problems = dict[str, str](), list[Problem]()
    for part in text.split(","):
        field, _, name = (one.strip() for one in part.partition("="))
        if field not in FIELDS or not name or field in found:
            why = "is named twice" if field in found else "names no column" if field in FIELDS else "is no field"
            step = did_you_mean(field, FIELDS) or "Write user=NAME,item=NAME"
            problems.append(Problem("", option, f"`{part.strip()}` {why}", f"{', '.join(FIELDS)} = a column", step))
        found.setdefault(field, name)
    raise_if_any(problems)
    return found


def open_pairs(path: Path, option: str, configured: Mapping[str, str], added: Sequence[str]) -> PairsFile:
    """Return a table and which of its columns are read; ``configured`` names some of them.

    Without a column of items, titles name them (and images, if there are any). `UserError` with all problems: the file,
    columns that are not there, and those that have the name of one of the ``added``.
    """
    raise_if_any(replace(one, next_step=f"Correct {option}") for one in file_problems(path, option, GENERIC))
    table = table_at(path, FileFormatConfig())
    header = column_names(table)
    by_id = "item" in configured or bool(candidates(header, "item"))
    if by_id or not (configured.get("title") or candidates(header, "title")):
        # Beside ids, a title is a column like any other unless it is said to stand for items of no catalogue.
        required, optional = ["user", "item"], [name for name in ("title", "image") if name in configured]
    else:
        required, optional = ["user", "title"], ["image"]
    problems, columns = list[Problem](), dict[str, str]()
    try:
        columns = find_columns(str(path), header, required, configured, optional)
    except UserError as error:
        problems += [replace(one, next_step=_NAME_THEM) for one in error.problems]
    problems += _name_problems(str(path), header, added)
    raise_if_any(problems)
    return PairsFile(table, option, tuple(header), columns)


def _name_problems(where: str, header: Sequence[str], added: Sequence[str]) -> Iterator[Problem]:
    for name in header:
        if name in added:
            yield Problem(where, name, "the table has this column, which the scores are to get", "",
                          "Rename it, or leave it out")  # fmt: skip
        first, _, number = name.rpartition("_duplicated_")
        if number.isdigit() and first in header:  # as Polars calls the second of two
            yield Problem(where, first, "two columns have this name", "", "Rename or remove one of them")


def write_roles(pairs: PairsFile, path: Path, audit: Audit) -> int:
    """Write what every row names: row (its number in the file), user, item, title, image; return how many there are.

    Texts, null where a field is empty or not read; an image may be bytes. Blank lines are left out. `UserError` for
    columns of another kind and lines that cannot be read. ``audit`` takes what is odd about the file.
    """
    table, columns = pairs.table, pairs.columns
    frame = scan(table, pairs.header)
    types = schema_of(table, frame)
    texts = [name for field, name in columns.items() if field != "image" or types[name] != pl.Binary]
    raise_if_any(type_problems(table, types, texts))
    floats = {field: pl.col(name) for field, name in columns.items() if types[name].is_float()}
    # A pass of its own: lines with too many fields fail here, whatever columns are read later.
    facts = {field: (column == column.round()).all() for field, column in floats.items()} | whole_lines(table)
    told = collect(table, frame.select(**facts)).row(0, named=True) if facts else {}
    roles = {field: pl.lit(None, dtype=pl.String) for field in FIELDS}
    for field, name in columns.items():
        text = pl.col(name) if types[name] == pl.Binary else as_text(name, types[name], bool(told.get(field, True)))
        roles[field] = text if types[name] == pl.Binary else pl.when(text != "").then(text)
    numbered = _without_blank_lines(pairs, frame.with_row_index(_ROW))
    with explaining(table):
        numbered.select(row=_ROW, **roles).sink_parquet(path, row_group_size=_PART, compression="lz4")
    rows = int(pl.scan_parquet(path, glob=False).select(pl.len()).collect().item())
    tell_reading(table, audit, rows)
    if not rows:
        raise UserError(Problem(str(table.path), pairs.option, "no pairs", "at least one row below the header"))
    return rows


def write_columns(pairs: PairsFile, path: Path) -> None:
    """Write all columns as they are, texts of text files; rows are those of `write_roles`."""
    frame = scan(pairs.table, pairs.header)
    # Each part of a categorical column would have its own words, of which a Parquet file has one list.
    plain = _without_blank_lines(pairs, frame).with_columns(pl.col(pl.Categorical, pl.Enum).cast(pl.String))
    with explaining(pairs.table):
        plain.sink_parquet(path, row_group_size=_PART, compression="lz4")


def nested_columns(pairs: PairsFile) -> list[str]:
    """Return the columns that no CSV file can hold."""
    types = schema_of(pairs.table, scan(pairs.table, pairs.header))
    return [name for name, dtype in types.items() if dtype.is_nested() or dtype in (pl.Binary, pl.Object)]


def objects_of(pairs: PairsFile) -> Iterator[str]:
    """Yield the JSON of each row on one line, as it is written."""
    for _, text in json_texts(pairs.table.path):
        # No string of JSON holds a line end as such: these stand between values.
        yield text.strip().replace("\r", " ").replace("\n", " ")


def lines_of(pairs: PairsFile, rows: Sequence[int]) -> dict[int, int]:
    """Return the line in the file of each of the row numbers; a walk to the last of them."""
    wanted, last, found = set(rows), max(rows, default=-1), dict[int, int]()
    if last < 0:
        return found
    for number, place in enumerate(places(pairs.table)):
        if number in wanted:
            found[number] = place.line
        if number >= last:
            break
    return found


def _without_blank_lines(pairs: PairsFile, frame: pl.LazyFrame) -> pl.LazyFrame:
    if not pairs.table.is_delimited:
        return frame
    return frame.filter(~blank_lines(frame.select(pairs.header)))
