"""What the table of items says of each: titles, texts and categories, made harmless for prompts."""

import numpy as np
import polars as pl

from msr_adapter.data.audit.report import Audit
from msr_adapter.data.images.store import ItemImages
from msr_adapter.data.readers.reader import Corpus
from msr_adapter.data.tables import ItemCatalogue, ItemRows
from msr_adapter.prompts import neutralise
from msr_adapter.prompts.neutralize import TEXT_LIMIT, TITLE_LIMIT


def catalogue_of(ids: pl.Series, corpus: Corpus, audit: Audit) -> ItemCatalogue:
    """Return what is known of every item, in the order of ``ids``; count the texts that are empty or truncated."""
    items = pl.DataFrame({"item_id": ids})
    if corpus.items is not None:
        # The order of a join is Polars' own choice unless it is asked for, and a row's number is the item's code.
        items = items.join(corpus.items, on="item_id", how="left", maintain_order="left")
    titles = _neutral(items, "title", TITLE_LIMIT, audit)
    audit.name("titles_empty", (item for item, title in zip(ids, titles, strict=True) if not title))
    texts = _neutral(items, "text", TEXT_LIMIT, audit)
    return ItemCatalogue(items["item_id"].to_list(), titles, texts, _column(items, "category"))


def rows_beside(ids: pl.Series, corpus: Corpus, images: list[ItemImages], audit: Audit) -> ItemRows:
    """Return the rows of items that no list has; count the texts that they lack."""
    apart = Audit()
    items = catalogue_of(ids, corpus, apart)
    if len(ids):
        audit.count("unseen_titles_empty", apart.counts["titles_empty"])
    return ItemRows(items, images, np.zeros(len(ids), np.int64), np.zeros(len(ids), dtype=bool), listed=False)


def _neutral(items: pl.DataFrame, name: str, limit: int, audit: Audit) -> list[str]:
    """Return a column as text that cannot change a prompt, at most ``limit`` characters each; "" where it is null."""
    written = _column(items, name)
    texts = [neutralise(text or "", limit) for text in written]
    audit.count(f"{name}s_empty", sum(not text for text in texts))
    # Neutralising shortens a text by itself: it was truncated only where twice the limit leaves more.
    cut = (text for text in written if text and len(text) > limit and len(neutralise(text, 2 * limit)) > limit)
    audit.count(f"{name}s_truncated", sum(1 for _ in cut))
    return texts


def _column(items: pl.DataFrame, name: str) -> list[str | None]:
    return items[name].to_list() if name in items.columns else [None] * items.height
