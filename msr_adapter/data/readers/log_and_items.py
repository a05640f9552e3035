"""A log and its table of items, whose columns are found by name: what most readers are made of."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import polars as pl

from msr_adapter.data.audit.report import Audit
from msr_adapter.data.readers.column_names import find_columns
from msr_adapter.data.readers.interactions import LogColumns, read_log
from msr_adapter.data.readers.items import ItemColumns, read_items
from msr_adapter.data.readers.reader import Corpus
from msr_adapter.data.readers.table_layout import Table, table_at
from msr_adapter.data.readers.table_scan import column_names, file_problems
from msr_adapter.errors import Problem, UserError, collecting, raise_if_any

Configured = Mapping[str, str | None]
"""Field -> the name of its column; None or absent = found by the well-known names."""

LOG = ("user", "item")
"""Fields that a log must have."""
LOG_MORE = ("timestamp", "split")
"""Fields of a log that are used where they are there."""
ITEM = ("item", "title")
"""Fields that a table of items must have."""
ITEM_MORE = ("text", "category", "image")
"""Fields of a table of items that are used where they are there."""

NO_ITEMS = "No table of items is given, so every title is empty. Set data.source.{} to use titles."


def read_tables(
    log: Table,
    items: Table | None,
    configured: Configured,
    audit: Audit,
    least: float | None = None,
    setting: str = "items",
) -> Corpus:
    """Read a log and its items, whose columns are found by name; `UserError` with the problems of both.

    ``least`` is the lowest rating that is kept, ``setting`` what the pipeline calls the table of items.
    """
    problems: list[Problem] = []
    interactions, catalogue = pl.LazyFrame(), None
    with collecting(problems):
        interactions = read_named_log(log, configured, audit, least)
    if items is not None:
        with collecting(problems):
            catalogue = read_named_items(items, configured, audit)
    raise_if_any(problems)
    if catalogue is None:
        audit.find("info", NO_ITEMS.format(setting))
    return Corpus(interactions, catalogue)


def read_named_log(table: Table, configured: Configured, audit: Audit, least: float | None = None) -> pl.LazyFrame:
    """Return the log of a table whose columns are found by name; rows rated below ``least`` are dropped."""
    names = _columns(table, log_needs(least), configured, LOG_MORE)
    split: Literal["asked for", "found"] = "asked for" if configured.get("split") else "found"
    return read_log(table, LogColumns(names, least, split=split), audit)


def log_needs(least: float | None) -> tuple[str, ...]:
    """Return the fields that a log must have; ``least`` is the lowest rating that is kept."""
    return LOG if least is None else (*LOG, "rating")


def read_named_items(table: Table, configured: Configured, audit: Audit) -> pl.DataFrame:
    """Return the items of a table whose columns are found by name."""
    names = _columns(table, ITEM, configured, ITEM_MORE)
    more = {field: names[field] for field in ITEM_MORE if field in names}
    return read_items(table, ItemColumns(names["item"], names["title"], more), audit)


def check_file(
    path: Path, setting: str, needs: tuple[str, ...], configured: Configured, more: tuple[str, ...] = ()
) -> list[Problem]:
    """Return what is wrong with one file and its header, without reading its rows."""
    return file_problems(path, setting) or header_problems(table_at(path), needs, configured, more)


def header_problems(
    table: Table, needs: tuple[str, ...], configured: Configured, more: tuple[str, ...] = ()
) -> list[Problem]:
    """Return which columns a table lacks, without reading its rows."""
    try:
        _columns(table, needs, configured, more)
    except UserError as error:
        return list(error.problems)
    return []


def _columns(table: Table, needs: tuple[str, ...], configured: Configured, more: tuple[str, ...]) -> dict[str, str]:
    return find_columns(str(table.path), column_names(table), needs, configured, more)
