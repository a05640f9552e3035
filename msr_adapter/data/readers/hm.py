"""H&M as published: transactions of whole days, articles whose ids begin with a zero."""

from msr_adapter.config.schema import HMSourceConfig
from msr_adapter.data.readers.log_and_items import ITEM, LOG, ItemsSettings, RowRules, check_file, read_tables
from msr_adapter.data.readers.reader import Corpus, ReadContext
from msr_adapter.data.readers.table_layout import table_at
from msr_adapter.errors import Problem

_COLUMNS = {
    "user": "customer_id", "item": "article_id", "timestamp": "t_dat",
    "title": "prod_name", "text": "detail_desc", "category": "product_type_name",
}  # fmt: skip


def read_hm(source: HMSourceConfig, context: ReadContext) -> Corpus:
    """Read the transactions and maybe the articles; an article bought again keeps its first day.

    `UserError` with all problems.
    """
    items = None if source.articles is None else table_at(source.articles)
    return read_tables(
        table_at(source.transactions),
        items,
        _COLUMNS,
        context.audit,
        RowRules(missing_times=source.missing_times),
        ItemsSettings("articles"),
    )


def check_hm(source: HMSourceConfig) -> list[Problem]:
    """Return what is wrong with the files and headers."""
    problems = check_file(source.transactions, "data.source.transactions", LOG, _COLUMNS)
    if source.articles is not None:
        problems += check_file(source.articles, "data.source.articles", ITEM, _COLUMNS)
    return problems
