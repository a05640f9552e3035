"""Amazon Reviews 2023: reviews and item metadata as JSON lines, or the benchmark's csv; items are `parent_asin`."""

from pathlib import Path

import polars as pl

from msr_adapter.config.schema import AmazonSourceConfig
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.readers.column_names import find_columns
from msr_adapter.data.readers.items import ItemColumns, read_items, words
from msr_adapter.data.readers.log_and_items import NO_ITEMS, RowRules, check_file, log_needs, read_named_log
from msr_adapter.data.readers.reader import Corpus, ReadContext
from msr_adapter.data.readers.table_layout import table_at
from msr_adapter.data.readers.table_scan import column_names, file_problems
from msr_adapter.errors import Problem, collecting, raise_if_any

REVIEWS = (".jsonl", ".json", ".ndjson", ".csv")
META = (".jsonl", ".json", ".ndjson")

_META_COLUMNS = ("title", "description", "features", "categories", "main_category", "images")
_IMAGES = (
    "$[?(@.variant=='MAIN')].large", "$[?(@.variant=='MAIN')].hi_res", "$[0].large", "$[0].hi_res", "$[0].thumb",
    "$.large[0]", "$.hi_res[0]", "$.thumb[0]",
)  # fmt: skip
"""Where an image's URL is, best first: `images` is a list of objects, or one object of lists. `large` is 500 pixels
wide, which is as much as a model sees by default."""


def read_amazon(source: AmazonSourceConfig, context: ReadContext) -> Corpus:
    """Read reviews and metadata; `UserError` with the problems of both files.

    All of it in Polars: nested JSON stays text and is only looked into where it is needed.
    """
    problems: list[Problem] = []
    interactions, items = pl.LazyFrame(), None
    with collecting(problems):
        rules = RowRules(source.min_rating, source.missing_times)
        interactions = read_named_log(table_at(source.reviews), {}, context.audit, rules)
    if source.meta is not None:
        with collecting(problems):
            items = read_meta(source.meta, context.audit)
    raise_if_any(problems)
    if items is None:
        context.audit.find("info", NO_ITEMS.format("meta"))
    return Corpus(interactions, items)


def check_amazon(source: AmazonSourceConfig) -> list[Problem]:
    """Return what is wrong with the files, without reading their rows."""
    problems = file_problems(source.reviews, "data.source.reviews", REVIEWS)
    if not problems:
        needs = log_needs(source.min_rating)
        problems = check_file(source.reviews, "data.source.reviews", needs, {})
    return problems + check_meta(source.meta)


def check_meta(path: Path | None) -> list[Problem]:
    """Return what is wrong with a file of metadata, without reading its rows."""
    if path is None:
        return []
    return file_problems(path, "data.source.meta", META) or check_file(path, "data.source.meta", ("item",), {})


def read_meta(path: Path, audit: Audit) -> pl.DataFrame:
    """Return the items of `meta_{Category}.jsonl[.gz]` with title, text, category and the URL of the main image.

    A title or description may be null, a text, or a list of texts; the text is the description, then the features.
    """
    table = table_at(path)
    item = find_columns(str(path), column_names(table), ("item",), {})["item"]
    text = pl.concat_str(words("description", pl.String()), words("features", pl.String()), separator=" ",
                         ignore_nulls=True)  # fmt: skip
    category = pl.coalesce(words("categories", pl.String(), " > "), words("main_category", pl.String()))
    image = pl.coalesce(pl.col("images").str.json_path_match(place) for place in _IMAGES)
    if audit.several_images is not None:
        image = pl.col("images")  # all of it, as it is written
    more = {"text": pl.when(text != "").then(text), "category": category, "image": image}
    return read_items(table, ItemColumns(item, "title", more, _META_COLUMNS), audit)
