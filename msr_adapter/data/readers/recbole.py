"""RecBole's atomic files and MMRec's log: tab-separated, no quotation marks, `name:type` or plain names on top."""

from pathlib import Path

from msr_adapter.config.schema import MMRecSourceConfig, RecBoleSourceConfig
from msr_adapter.data.readers.column_choice import Configured
from msr_adapter.data.readers.log_and_items import (
    ITEM,
    ITEM_MORE,
    LOG,
    LOG_MORE,
    RowRules,
    check_file,
    header_problems,
    log_needs,
    read_tables,
)
from msr_adapter.data.readers.reader import Corpus, ReadContext
from msr_adapter.data.readers.table_layout import Layout, Table, table_at
from msr_adapter.data.readers.table_scan import file_problems
from msr_adapter.errors import Problem

_ATOMIC = Layout("delimited", "\t", quoted=False)


def read_recbole(source: RecBoleSourceConfig, context: ReadContext) -> Corpus:
    """Read `.inter` and maybe `.item`; a column's name counts without its type. `UserError` with all problems."""
    items = None if source.items is None else Table(source.items, _ATOMIC)
    log = Table(source.interactions, _ATOMIC)
    rules = RowRules(source.min_rating, source.missing_times, source.drop_without_id)
    return read_tables(log, items, source.columns.model_dump(), context.audit, rules)


def check_recbole(source: RecBoleSourceConfig) -> list[Problem]:
    """Return what is wrong with the files and headers."""
    columns = source.columns.model_dump()
    needs = log_needs(source.min_rating)
    problems = _check(source.interactions, "interactions", ".inter", needs, columns, LOG_MORE)
    if source.items is not None:
        problems += _check(source.items, "items", ".item", ITEM, columns, ITEM_MORE)
    return problems


def read_mmrec(source: MMRecSourceConfig, context: ReadContext) -> Corpus:
    """Read MMRec's `.inter`, whose `x_label` becomes the split column. `UserError` with all problems."""
    items = None if source.items is None else table_at(source.items)
    rules = RowRules(missing_times=source.missing_times, drop_without_id=source.drop_without_id)
    return read_tables(Table(source.interactions, _ATOMIC), items, _mmrec_columns(source), context.audit, rules)


def check_mmrec(source: MMRecSourceConfig) -> list[Problem]:
    """Return what is wrong with the files and headers."""
    columns = _mmrec_columns(source)
    problems = _check(source.interactions, "interactions", ".inter", LOG, columns, LOG_MORE)
    if source.items is not None:
        problems += check_file(source.items, "data.source.items", ITEM, columns, ITEM_MORE)
    return problems


def _mmrec_columns(source: MMRecSourceConfig) -> Configured:
    columns = source.columns.model_dump()
    return columns | {"split": columns["split"] or "x_label"}


def _check(
    path: Path, field: str, suffix: str, needs: tuple[str, ...], columns: Configured, more: tuple[str, ...]
) -> list[Problem]:
    setting = f"data.source.{field}"
    return file_problems(path, setting, (suffix,)) or header_problems(Table(path, _ATOMIC), needs, columns, more)
