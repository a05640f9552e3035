"""What a template may use: the names of the templates and of their variables."""

from collections.abc import Mapping
from dataclasses import dataclass, field

IMAGE_PLACEHOLDER = "<image>"

_WORDS = ("noun", "language")
_LENGTH = ("max_tokens", "max_words")

VARIABLES = {
    "item_summary": ("title", "text", "image", *_LENGTH, *_WORDS),
    "item_text": ("title", "text", *_LENGTH, *_WORDS),
    "item_image": ("title", *_LENGTH, *_WORDS),
    "item_fusion": ("title", "text_summary", "image_summary", *_LENGTH, *_WORDS),
    "user_summary": ("previous", "items", *_LENGTH, *_WORDS),
    "history": ("items", *_WORDS),
    "recommend": ("user_summary", "title", "image", *_WORDS),
    "recommend-image-first": ("user_summary", "title", "image", *_WORDS),
}
"""Every template that msr renders, and the variables it may use."""

TEMPLATE_NAMES = tuple(VARIABLES)

RENAMED = {"user_preference": "user_summary", "preference": "user_summary"}
"""Names that templates and their variables had before -> their names now; a template that still says them is told."""

_WORDS_PER_TOKEN = 0.6
"""English has about 0.75 words a token; a model that is told a number of words does not count well."""


@dataclass(frozen=True)
class HistoryItem:
    """One item of a user's history, as a template sees it."""

    title: str
    summary: str = ""


@dataclass(frozen=True)
class Wording:
    """What every prompt of a run is told beside the data."""

    noun: str = "item"
    """What is recommended: a video, a product."""
    language: str = ""
    """What the summaries are to be written in; empty = none is named."""
    budgets: Mapping[str, int] = field(default_factory=dict)
    """Template -> tokens that its answer may have; absent = no length is named."""

    def length(self, name: str) -> dict[str, int]:
        """Return the variables that tell template ``name`` how long its answer may be: tokens, and about as many words.

        Both are 0 where no length is known.
        """
        tokens = self.budgets.get(name, 0)
        words = int(tokens * _WORDS_PER_TOKEN)
        return {"max_tokens": tokens, "max_words": words - words % 5 if words > 20 else words}
