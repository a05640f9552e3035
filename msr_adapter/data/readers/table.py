"""The generic table: a log of interactions and, beside it, a table of items."""

from pathlib import Path

from msr_adapter.config.schema import FileFormatConfig, TableSourceConfig
from msr_adapter.data.readers.log_and_items import (
    ITEM,
    ITEM_MORE,
    LOG_MORE,
    RowRules,
    header_problems,
    log_needs,
    read_tables,
)
from msr_adapter.data.readers.reader import Corpus, ReadContext
from msr_adapter.data.readers.table_layout import table_at
from msr_adapter.data.readers.table_scan import GENERIC, file_problems
from msr_adapter.errors import Problem
from msr_adapter.text_tables.opening import plain_suffix


def read_table(source: TableSourceConfig, context: ReadContext) -> Corpus:
    """Read a generic table; `UserError` with the problems of both files."""
    configured = source.columns.model_dump()
    log = table_at(source.interactions, _format_of_log(source))
    items = None if source.items is None else table_at(source.items, _format_of_items(source, source.items))
    rules = RowRules(source.min_rating, source.missing_times, source.drop_without_id)
    return read_tables(log, items, configured, context.audit, rules)


def check_table(source: TableSourceConfig) -> list[Problem]:
    """Return what is wrong with the files and headers of a generic table."""
    configured, needs = source.columns.model_dump(), log_needs(source.min_rating)
    problems = _check(source.interactions, "interactions", _format_of_log(source)) or header_problems(
        table_at(source.interactions, _format_of_log(source)), needs, configured, LOG_MORE
    )
    if source.items is not None:
        said = _format_of_items(source, source.items)
        problems += _check(source.items, "items", said) or header_problems(
            table_at(source.items, said), ITEM, configured, ITEM_MORE
        )
    return problems


def _check(path: Path, setting: str, said: FileFormatConfig) -> list[Problem]:
    # Whoever says what a file holds may call it what he likes.
    suffixes = GENERIC if said.format is None else (*GENERIC, plain_suffix(path))
    return file_problems(path, f"data.source.{setting}", suffixes)


def _format_of_log(source: TableSourceConfig) -> FileFormatConfig:
    return FileFormatConfig(format=source.format, delimiter=source.delimiter, quote=source.quote, escape=source.escape)


def _format_of_items(source: TableSourceConfig, items: Path) -> FileFormatConfig:
    if source.items_format is not None:
        return source.items_format
    said = _format_of_log(source)
    if plain_suffix(items) == plain_suffix(source.interactions):
        return said
    return said.model_copy(update={"format": None, "delimiter": None})
