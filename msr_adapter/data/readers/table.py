"""The generic table: a log of interactions and, beside it, a table of items."""

from pathlib import Path

from msr_adapter.config.schema import FileFormatConfig, TableSourceConfig
from msr_adapter.data.readers.column_choice import Configured
from msr_adapter.data.readers.log_and_items import (
    ITEM,
    ITEM_MORE,
    LOG_MORE,
    ItemsSettings,
    RowRules,
    header_problems,
    log_needs,
    read_tables,
)
from msr_adapter.data.readers.parse_errors import delimited_file
from msr_adapter.data.readers.reader import Corpus, ReadContext
from msr_adapter.data.readers.table_layout import Table, table_at
from msr_adapter.data.readers.table_scan import GENERIC, explaining, file_problems
from msr_adapter.errors import Problem, plural
from msr_adapter.text_tables.opening import plain_suffix


def read_table(source: TableSourceConfig, context: ReadContext) -> Corpus:
    """Read a generic table; `UserError` with the problems of both files."""
    configured = source.columns.model_dump()
    log = table_at(source.interactions, _format_of_log(source))
    items = None if source.items is None else table_at(source.items, _format_of_items(source, source.items))
    rules = RowRules(source.min_rating, source.missing_times, source.drop_without_id, source.events)
    return read_tables(log, items, configured, context.audit, rules, ItemsSettings(columns=_columns_of_items(source)))


def check_table(source: TableSourceConfig) -> list[Problem]:
    """Return what is wrong with the files and headers of a generic table."""
    configured, needs = source.columns.model_dump(), log_needs(source.min_rating)
    said = _format_of_log(source)
    problems = _check(source.interactions, "interactions", said) or header_problems(
        table_at(source.interactions, said), needs, configured, LOG_MORE
    )
    if source.items is not None:
        said = _format_of_items(source, source.items)
        problems += _check(source.items, "items", said) or header_problems(
            table_at(source.items, said), ITEM, _columns_of_items(source), ITEM_MORE
        )
    return problems


def _columns_of_items(source: TableSourceConfig) -> Configured:
    """Return what the columns of the items are called: `columns`, and over it what `items_columns` says."""
    shared = source.columns.model_dump()
    if source.items_columns is None:
        return shared
    # The log's name of the item's column is the very thing that differs.
    return shared | {"item": None} | source.items_columns.model_dump(exclude_none=True)


def _check(path: Path, setting: str, said: FileFormatConfig) -> list[Problem]:
    # Whoever says what a file holds may call it what he likes.
    suffixes = GENERIC if said.format is None else (*GENERIC, plain_suffix(path))
    problems = file_problems(path, f"data.source.{setting}", suffixes)
    return problems if problems or said.names is None else _check_names(table_at(path, said), setting)


def _check_names(table: Table, setting: str) -> list[Problem]:
    """Return a problem if the names of a file without a header do not fit it."""
    key = "data.source.names" if setting == "interactions" else "data.source.items_format.names"
    if not table.is_delimited:
        kind = "JSON lines name" if table.layout.kind == "jsonl" else "Parquet names"
        step = f"Leave {key} out, or name columns by data.source.columns"
        return [Problem(str(table.path), key, f"{kind} the columns", "a csv or tsv without a header", step)]
    with explaining(table):
        _, first = next(delimited_file(table).records(), (1, []))
    if len(first) == len(table.layout.names):
        return []
    found = f"{plural(len(table.layout.names), 'name')} for {plural(len(first), 'column')}: {', '.join(first)[:80]}"
    return [Problem(str(table.path), key, found, "a name for each column", "Name them all, _ for those not read")]


def _format_of_log(source: TableSourceConfig) -> FileFormatConfig:
    return FileFormatConfig(**{key: getattr(source, key) for key in FileFormatConfig.model_fields})


def _format_of_items(source: TableSourceConfig, items: Path) -> FileFormatConfig:
    if source.items_format is not None:
        return source.items_format
    said = _format_of_log(source).model_copy(update={"names": None})
    if plain_suffix(items) == plain_suffix(source.interactions):
        return said
    return said.model_copy(update={"format": None, "delimiter": None})
