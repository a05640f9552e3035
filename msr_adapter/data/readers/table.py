"""The generic table: a log of interactions and, beside it, a table of items."""

from msr_adapter.config.schema import TableSourceConfig
from msr_adapter.data.readers.log_and_items import ITEM, ITEM_MORE, LOG_MORE, check_file, log_needs, read_tables
from msr_adapter.data.readers.reader import Corpus, ReadContext
from msr_adapter.data.readers.table_layout import table_at
from msr_adapter.errors import Problem


def read_table(source: TableSourceConfig, context: ReadContext) -> Corpus:
    """Read a generic table; `UserError` with the problems of both files."""
    configured = source.columns.model_dump()
    items = None if source.items is None else table_at(source.items)
    return read_tables(table_at(source.interactions), items, configured, context.audit, source.min_rating)


def check_table(source: TableSourceConfig) -> list[Problem]:
    """Return what is wrong with the files and headers of a generic table."""
    configured, needs = source.columns.model_dump(), log_needs(source.min_rating)
    problems = check_file(source.interactions, "data.source.interactions", needs, configured, LOG_MORE)
    if source.items is not None:
        problems += check_file(source.items, "data.source.items", ITEM, configured, ITEM_MORE)
    return problems
