"""The generic table: a log of interactions and, beside it, a table of items."""

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from msr_adapter.config.schema import TableSourceConfig
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.log import Corpus
from msr_adapter.data.readers.column_names import find_columns
from msr_adapter.data.readers.interactions import WantedColumns, read_log
from msr_adapter.data.readers.items import Fields, read_items
from msr_adapter.data.readers.layout import Table, table_at
from msr_adapter.data.readers.tabular import column_names, file_problems
from msr_adapter.errors import Problem, UserError, collecting, raise_if_any

Configured = Mapping[str, str | None]

LOG = ("user", "item")
LOG_MORE = ("timestamp", "split")
ITEM = ("item", "title")
ITEM_MORE = ("text", "category", "image")
NO_ITEMS = "No table of items is given, so every title is empty. Set data.source.{} to use titles."


def read_table(source: TableSourceConfig, audit: Audit) -> Corpus:
    """Read a generic table; `UserError` with the problems of both files."""
    configured = source.columns.model_dump()
    items = None if source.items is None else table_at(source.items)
    return read_tables(table_at(source.interactions), items, configured, audit, source.min_rating)


def check_table(source: TableSourceConfig) -> list[Problem]:
    """Return what is wrong with the files and headers of a generic table."""
    configured = source.columns.model_dump()
    needs = LOG if source.min_rating is None else (*LOG, "rating")
    problems = check_file(source.interactions, "data.source.interactions", needs, configured, LOG_MORE)
    if source.items is not None:
        problems += check_file(source.items, "data.source.items", ITEM, configured, ITEM_MORE)
    return problems


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
    needs = LOG if least is None else (*LOG, "rating")
    names = _columns(table, needs, configured, LOG_MORE)
    return read_log(
        table, WantedColumns(names, least, split="asked for" if configured.get("split") else "found"), audit
    )


def read_named_items(table: Table, configured: Configured, audit: Audit) -> pl.DataFrame:
    """Return the items of a table whose columns are found by name."""
    names = _columns(table, ITEM, configured, ITEM_MORE)
    more = {field: names[field] for field in ITEM_MORE if field in names}
    return read_items(table, Fields(names["item"], names["title"], more), audit)


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
