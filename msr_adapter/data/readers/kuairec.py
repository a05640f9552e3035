"""KuaiRec as published: a matrix of views with watch ratios, some without a time, and captions."""

from dataclasses import replace

import polars as pl

from msr_adapter.config.schema import KuaiRecSourceConfig
from msr_adapter.data.readers.interactions import LogColumns, read_log
from msr_adapter.data.readers.items import ItemColumns, read_items, words
from msr_adapter.data.readers.log_and_items import NO_ITEMS, check_file
from msr_adapter.data.readers.reader import Corpus, ReadContext
from msr_adapter.data.readers.table_layout import table_at
from msr_adapter.errors import Problem, collecting, raise_if_any

_LOG = {"user": "user_id", "item": "video_id", "timestamp": "timestamp", "rating": "watch_ratio"}
_TITLE, _TEXTS, _CATEGORY = "caption", ("manual_cover_text", "topic_tag"), "first_level_category_name"
_ITEMS = {"item": "video_id", "title": _TITLE, "text": _TEXTS[0], "category": _CATEGORY}


def read_kuairec(source: KuaiRecSourceConfig, context: ReadContext) -> Corpus:
    """Read a matrix and maybe the captions; the text is what is printed on the video's image, then the tags.

    Views without a time (the small matrix has some) are dropped and counted, unless `missing_times` says otherwise.
    `UserError` with all problems.
    """
    problems: list[Problem] = []
    interactions, items = pl.LazyFrame(), None
    with collecting(problems):
        wanted = LogColumns(_LOG, source.min_watch_ratio, source.missing_times)
        interactions = read_log(table_at(source.interactions), wanted, context.audit)
    if source.captions is not None:
        with collecting(problems):
            # The published captions were cut in the middle of characters: such bytes become `�`.
            captions = table_at(source.captions)
            captions = replace(captions, layout=replace(captions.layout, lossy=True))
            text = pl.concat_str([_known(name) for name in _TEXTS], separator=" ", ignore_nulls=True)
            more = {"text": pl.when(text != "").then(text), "category": _known(_CATEGORY)}
            columns = ItemColumns("video_id", _known(_TITLE), more, (_TITLE, *_TEXTS, _CATEGORY))
            items = read_items(captions, columns, context.audit)
    raise_if_any(problems)
    if items is None:
        context.audit.find("info", NO_ITEMS.format("captions"))
    return Corpus(interactions, items)


def check_kuairec(source: KuaiRecSourceConfig) -> list[Problem]:
    """Return what is wrong with the files and headers."""
    problems = check_file(source.interactions, "data.source.interactions", tuple(_LOG), _LOG)
    if source.captions is not None:
        problems += check_file(source.captions, "data.source.captions", tuple(_ITEMS), _ITEMS)
    return problems


def _known(name: str) -> pl.Expr:
    """Return a text of the captions, lists without their brackets, null where the file says UNKNOWN."""
    text = words(name, pl.String()).str.strip_chars("[]")
    return pl.when(text != "UNKNOWN").then(text)
