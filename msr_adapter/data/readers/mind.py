"""MIND as published: `behaviors.tsv` (impressions, `N1-1 N2-0`) and `news.tsv`.

A row of behaviors is an impression: what the user was shown at a time, clicked or not, and the user's clicks before
that, in order, without times. Of a user's rows the history of the first one is read; its clicks are put before that.
"""

from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from msr_adapter.config.schema import MINDSourceConfig
from msr_adapter.data.audit.recognition import Recognition
from msr_adapter.data.readers.items import ItemColumns, read_items
from msr_adapter.data.readers.reader import Corpus, ReadContext
from msr_adapter.data.readers.table_layout import Layout, Table
from msr_adapter.data.readers.table_scan import collect, file_problems, scan
from msr_adapter.data.readers.value_checks import AN_ID, ValueRule, check_rows, is_empty
from msr_adapter.errors import Problem, collecting, plural, raise_if_any

_BEHAVIORS = ("impression", "user", "time", "history", "shown")
_NEWS = ("news", "category", "subcategory", "title", "abstract", "url", "title_entities", "abstract_entities")
_TIME = "%m/%d/%Y %I:%M:%S %p"
_SHOWN = r"^\S+-[01]( +\S+-[01])*$"


def mind_files(source: MINDSourceConfig) -> dict[str, Path]:
    """Return the files that are read, by role."""
    return {"behaviors": source.folder / "behaviors.tsv", "news": source.folder / "news.tsv"}


def check_mind(source: MINDSourceConfig) -> list[Problem]:
    """Return a problem for each file that is missing."""
    return [problem for path in mind_files(source).values()
            for problem in file_problems(path, "data.source.folder", (".tsv",))]  # fmt: skip


def read_mind(source: MINDSourceConfig, context: ReadContext) -> Corpus:
    """Read impressions and news; `UserError` with the problems of both files."""
    paths, problems, items = mind_files(source), list[Problem](), None
    interactions = pl.LazyFrame()
    news = Table(paths["news"], Layout("delimited", "\t", False, _NEWS))
    with collecting(problems):
        interactions = _read_behaviors(paths["behaviors"], context)
    with collecting(problems):
        category = pl.concat_str(["category", "subcategory"], separator=" > ", ignore_nulls=True)
        more: dict[str, str | pl.Expr] = {"text": "abstract", "category": category}
        items = read_items(news, ItemColumns("news", "title", more, ("category", "subcategory")), context.audit)
    raise_if_any(problems)
    return Corpus(interactions, items)


def _read_behaviors(path: Path, context: ReadContext) -> pl.LazyFrame:
    table = Table(path, Layout("delimited", "\t", False, _BEHAVIORS))
    rows = scan(table, _BEHAVIORS)
    time = pl.col("time").cast(pl.String).str.strip_chars().str.to_datetime(_TIME, strict=False).dt.epoch("ms")
    shown = pl.col("shown").cast(pl.String).str.strip_chars()
    rules = [
        ValueRule("impression", is_empty(pl.col("impression").cast(pl.String)), AN_ID),
        ValueRule("user", is_empty(pl.col("user").cast(pl.String).str.strip_chars()), AN_ID),
        ValueRule("time", time.is_null(), "a time as 11/15/2019 9:05:58 AM"),
        ValueRule("shown", ~shown.str.contains(_SHOWN).fill_null(False), "news with -1 (clicked) or -0, as N1-1 N2-0"),
    ]
    check_rows(table, rules, _BEHAVIORS)
    read = rows.filter(~pl.any_horizontal(rule.bad for rule in rules)).select(
        user_id=pl.col("user").cast(pl.String).str.strip_chars(),
        timestamp=time,
        impression=pl.col("impression").cast(pl.String).str.strip_chars(),
        past=pl.col("history").cast(pl.String).fill_null("").str.strip_chars(),
        shown=shown,
    )
    listed = read.with_columns(token=pl.col("shown").str.extract_all(r"\S+")).explode("token").select(
        "user_id",
        pl.col("token").str.head(-2).alias("item_id"),
        "timestamp",
        "impression",
        pl.when(pl.col("token").str.ends_with("-0")).then(pl.lit("not_clicked")).alias("filtered"),
    )  # fmt: skip
    past = _histories(read)
    facts = collect(table, read.select(rows=pl.len(), first=pl.col("timestamp").min(), last=pl.col("timestamp").max()))
    clicks = collect(table, past.select(rows=pl.len()))["rows"][0]
    context.audit.count("interactions_of_histories", clicks)
    if clicks:
        context.audit.find("info", f"{plural(clicks, 'click')} of histories in {path.name} have no time: they are "
                           "put, in their order, within the seconds before the user's first impression.")  # fmt: skip
    _tell(path, facts, context)
    return pl.concat([past, listed])


def _histories(read: pl.LazyFrame) -> pl.LazyFrame:
    """Return the clicks before each user's first impression, a millisecond apart."""
    first = read.select("user_id", "timestamp", "past").group_by("user_id", maintain_order=True).agg(
        pl.col("past").sort_by("timestamp", maintain_order=True).first(), pl.col("timestamp").min()
    )  # fmt: skip
    items = first.with_columns(item_id=pl.col("past").str.extract_all(r"\S+")).filter(pl.col("item_id").list.len() > 0)
    items = items.with_columns(back=pl.int_ranges(pl.col("item_id").list.len().cast(pl.Int64), 0, -1))
    return items.explode("item_id", "back").select(
        "user_id", "item_id", pl.col("timestamp") - pl.col("back"),
        impression=pl.lit(None, pl.String), filtered=pl.lit(None, pl.String),
    )  # fmt: skip


def _tell(path: Path, facts: pl.DataFrame, context: ReadContext) -> None:
    rows, first, last = facts.row(0)
    begin, end = (
        None if moment is None else datetime.fromtimestamp(moment / 1000, UTC).date().isoformat()
        for moment in (first, last)
    )
    names = {"user": "column 2", "item": "columns 4 and 5", "timestamp": "column 3", "clicked": "column 5"}
    context.audit.recognise(Recognition(path.name, names, rows, "month/day/year with AM and PM, UTC", begin, end))
