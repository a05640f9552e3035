"""PixelRec as published: item_id,user_id,timestamp (the item first), and item_info.csv."""

from msr_adapter.config.schema import PixelRecSourceConfig
from msr_adapter.data.readers.log_and_items import ITEM, LOG, RowRules, check_file, read_tables
from msr_adapter.data.readers.reader import Corpus, ReadContext
from msr_adapter.data.readers.table_layout import table_at
from msr_adapter.errors import Problem

_COLUMNS = {
    "user": "user_id", "item": "item_id", "timestamp": "timestamp",
    "title": "title", "text": "description", "category": "tag",
}  # fmt: skip


def read_pixelrec(source: PixelRecSourceConfig, context: ReadContext) -> Corpus:
    """Read the log and maybe the item information; `UserError` with all problems."""
    items = None if source.items is None else table_at(source.items)
    return read_tables(
        table_at(source.interactions), items, _COLUMNS, context.audit, RowRules(missing_times=source.missing_times)
    )


def check_pixelrec(source: PixelRecSourceConfig) -> list[Problem]:
    """Return what is wrong with the files and headers."""
    problems = check_file(source.interactions, "data.source.interactions", LOG, _COLUMNS)
    if source.items is not None:
        problems += check_file(source.items, "data.source.items", ITEM, _COLUMNS)
    return problems
