"""The generic table: a log of interactions and, beside it, a table of items."""

from pathlib import Path

import polars as pl

from msr_adapter.config.models import Columns, TableSource
from msr_adapter.data.audit import Audit, collecting, raise_if_any
from msr_adapter.data.corpus import Corpus
from msr_adapter.data.readers.aliases import find_columns
from msr_adapter.data.readers.rows import Rule, check_rows, not_empty
from msr_adapter.data.readers.tabular import SUFFIXES, as_text, column_names, file_problems, read_columns
from msr_adapter.data.readers.timestamps import ALLOWED, to_milliseconds
from msr_adapter.errors import Problem, UserError

INTERACTION_FIELDS = ("user", "item", "timestamp")
ITEM_FIELDS = ("item", "title")


def read_table(source: TableSource, audit: Audit) -> Corpus:
    """Read a generic table; `UserError` with the problems of both files."""
    problems: list[Problem] = []
    titles = None
    with collecting(problems):
        interactions = read_interactions(source.interactions, source.columns, audit)
    if source.items is not None:
        with collecting(problems):
            titles = read_items(source.items, source.columns, audit)
    raise_if_any(problems)
    if titles is None:
        audit.find("info", "No table of items is given, so every title is empty. Set data.source.items to use titles.")
    return Corpus(interactions.lazy(), titles)


def check_table(source: TableSource) -> list[Problem]:
    """Return what is wrong with the files and headers of a generic table."""
    problems = check_file(source.interactions, "data.source.interactions", INTERACTION_FIELDS, source.columns)
    if source.items is not None:
        problems += check_file(source.items, "data.source.items", ITEM_FIELDS, source.columns)
    return problems


def check_file(path: Path, setting: str, fields: tuple[str, ...], columns: Columns) -> list[Problem]:
    """Return what is wrong with one file and its header, without reading its rows."""
    if problems := file_problems(path, setting, SUFFIXES):
        return problems
    with collecting(problems):
        _columns(path, fields, columns)
    return problems


def read_interactions(path: Path, columns: Columns, audit: Audit) -> pl.DataFrame:
    """Return user_id, item_id, timestamp (ms, or the row number when there is no time) in the order of the file."""
    names, width = _columns(path, INTERACTION_FIELDS, columns)
    frame = read_columns(path, names)
    user, item = as_text(frame["user"]), as_text(frame["item"])
    rules = [not_empty(names["user"], user), not_empty(names["item"], item)]
    if "timestamp" in names:
        time = to_milliseconds(frame["timestamp"])
        rules.append(Rule(names["timestamp"], frame["timestamp"], time.is_null(), ALLOWED))
    else:
        time = pl.int_range(frame.height, eager=True)
        audit.find("info", f"{path.name} has no time: each user's interactions are taken in the order of the rows.")
    kept = _without(pl.DataFrame({"user_id": user, "item_id": item, "timestamp": time}), check_rows(path, rules, width))
    if not kept.height:
        raise UserError(Problem(str(path), "", "no interactions", "at least one row below the header"))
    return kept


def read_items(path: Path, columns: Columns, audit: Audit) -> pl.DataFrame:
    """Return item_id, title; of a repeated item the first row stays, the others are counted."""
    names, width = _columns(path, ITEM_FIELDS, columns)
    frame = read_columns(path, names)
    item = as_text(frame["item"])
    blank = check_rows(path, [not_empty(names["item"], item)], width)
    return first_titles(
        _without(pl.DataFrame({"item_id": item, "title": frame["title"].cast(pl.String)}), blank), audit
    )


def first_titles(titles: pl.DataFrame, audit: Audit) -> pl.DataFrame:
    """Return the first title of every item and count the rows."""
    kept = titles.unique("item_id", keep="first", maintain_order=True)
    audit.count("titles_read", titles.height)
    audit.count("titles_dropped_duplicate", titles.height - kept.height)
    return kept


def _columns(path: Path, fields: tuple[str, ...], columns: Columns) -> tuple[dict[str, str], int | None]:
    header = column_names(path)
    names = find_columns(str(path), header, fields, columns.model_dump())
    return names, len(header)


def _without(frame: pl.DataFrame, rows: list[int]) -> pl.DataFrame:
    return frame.with_row_index("_row").filter(pl.col("_row").is_in(rows).not_()).drop("_row") if rows else frame
