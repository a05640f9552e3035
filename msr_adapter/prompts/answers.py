"""The texts that answer a question, one for each item or for each user, for training rows and for scoring alike."""

from collections.abc import Callable

import polars as pl

from msr_adapter.prompts.attributes import NOBODY
from msr_adapter.prompts.render import Prompts
from msr_adapter.prompts.vectorized import PromptRecords


def answers_of(
    prompts: Prompts, summaries: pl.Series, titles: pl.Series, records: PromptRecords,
    quote: Callable[[str], str] | None = None,
) -> pl.Series:  # fmt: skip
    """Return what is said of each user, or of each item, by the question in use; with ``quote``, escaped.

    ``records`` are what templates call `item` and `user`, by place; they are made where a template looks at them.
    """
    used = prompts.fields("recommend")
    if prompts.answers_with_user:
        found = [prompts.answer(text, "", user=records.user(place) if used.user else NOBODY)
                 for place, text in enumerate(summaries)]  # fmt: skip
    else:
        found = [prompts.answer("", title, records.item(place) if used.item else None)
                 for place, title in enumerate(titles)]  # fmt: skip
    return pl.Series([quote(text) for text in found] if quote else found, dtype=pl.String)
