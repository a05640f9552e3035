"""The generic table: a log of interactions and, beside it, a table of items."""

from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from msr_adapter.config.schema import FileFormatConfig, JoinConfig, TableSourceConfig
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.readers.column_choice import Configured
from msr_adapter.data.readers.joined import join_problems, joined, with_header_of
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
from msr_adapter.data.readers.remote_files import fetched, identity_of, remote_address, remote_problems
from msr_adapter.data.readers.table_layout import Table, table_at
from msr_adapter.data.readers.table_scan import GENERIC, explaining, file_problems
from msr_adapter.data.readers.value_forms import ValueForms
from msr_adapter.errors import Problem, collecting, plural, raise_if_any
from msr_adapter.text_tables.opening import plain_suffix

_Header = tuple[tuple[str, ...], Configured, tuple[str, ...]]
"""The fields that a table must have, what their columns are called, and fields that it may have."""


def read_table(source: TableSourceConfig, context: ReadContext) -> Corpus:
    """Read a generic table; `UserError` with the problems of both files."""
    source, configured = _on_this_machine(source, context.audit), source.columns.model_dump()
    log = table_at(source.interactions, _format_of_log(source))
    items = None if source.items is None else table_at(source.items, _format_of_items(source, source.items))
    written = ValueForms(source.timestamp_format or "", source.decimal)
    rules = RowRules(source.min_rating, source.missing_times, source.drop_without_id, source.events, written)
    problems, audit = list[Problem](), context.audit
    with collecting(problems):
        log = joined(log, source.join, audit)
    if items is not None:
        with collecting(problems):
            items = joined(items, source.items_join, audit)
    raise_if_any(problems)
    return read_tables(log, items, configured, audit, rules, ItemsSettings(columns=columns_of_items(source)))


def check_table(source: TableSourceConfig) -> list[Problem]:
    """Return what is wrong with the files and headers of a generic table."""
    configured, needs = source.columns.model_dump(), log_needs(source.min_rating)
    problems = _check_time_format(source.timestamp_format)
    log = (needs, configured, LOG_MORE)
    tables: list[tuple[Path, str, FileFormatConfig, JoinConfig | None, _Header]]
    tables = [(source.interactions, "interactions", _format_of_log(source), source.join, log)]
    if source.items is not None:
        said, wanted = _format_of_items(source, source.items), (ITEM, columns_of_items(source), ITEM_MORE)
        tables.append((source.items, "items", said, source.items_join, wanted))
    for path, setting, said, join, header in tables:
        if remote := [one for one in (path, *([join.path] if join else [])) if remote_address(one)]:
            problems += remote_problems(remote, f"data.source.{setting}")  # its header is told when it is copied
            continue
        with collecting(problems):
            key = "join" if setting == "interactions" else "items_join"
            problems += _check(path, setting, said) or _header_problems(table_at(path, said), join, key, header)
    return problems


def table_files(source: TableSourceConfig) -> dict[str, Path | str | None]:
    """Return the files of a generic table by role, those that are joined too; of a remote one, what identifies it."""
    joins = {"join": source.join, "items_join": source.items_join}
    paths = {role: join.path for role, join in joins.items() if join is not None}
    given = {"interactions": source.interactions, "items": source.items, **paths}
    return {role: path if path is None else identity_of(path) for role, path in given.items()}


def _on_this_machine(source: TableSourceConfig, audit: Audit) -> TableSourceConfig:
    """Return a source whose remote files are copies; `UserError` with all that cannot be had."""

    def tell(text: str, lost: bool) -> None:
        audit.find("warning" if lost else "info", text)

    problems, changed = list[Problem](), dict[str, object]()
    for key in ("interactions", "items", "join", "items_join"):
        value = getattr(source, key)
        path = value.path if isinstance(value, JoinConfig) else value
        if path is not None and (address := remote_address(path)):
            with collecting(problems):
                copy = fetched(address, tell)
                changed[key] = value.model_copy(update={"path": copy}) if isinstance(value, JoinConfig) else copy
    raise_if_any(problems)
    if not changed:
        return source
    local = source.model_copy(update=changed)
    raise_if_any(check_table(local))
    return local


def _header_problems(table: Table, join: JoinConfig | None, key: str, wanted: _Header) -> list[Problem]:
    problems: list[Problem] = []
    with collecting(problems):
        problems += join_problems(table, join, f"data.source.{key}")
    return problems or header_problems(with_header_of(table, join), *wanted)


def _check_time_format(pattern: str | None) -> list[Problem]:
    if pattern is None:
        return []
    moment = datetime(2001, 2, 3, 4, 5, 6, tzinfo=UTC)
    try:
        written = pl.Series([moment]).dt.strftime(pattern)
        read = written.str.to_datetime(pattern, time_unit="ms", strict=False).dt.epoch("d").item()
    except (pl.exceptions.PolarsError, ValueError):
        read = None
    if read != moment.timestamp() // 86_400:
        found = f"{pattern!r} reads no date and time"
        step = "Write it as %d.%m.%Y %H:%M:%S, with day, month and year"
        return [Problem("", "data.source.timestamp_format", found, "directives of chrono", step)]
    return []


def columns_of_items(source: TableSourceConfig) -> Configured:
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
    said = _format_of_log(source).model_copy(update={"names": None, "header": True})
    if plain_suffix(items) == plain_suffix(source.interactions):
        return said
    return said.model_copy(update={"format": None, "delimiter": None})
