"""What a template may use: the names of the templates and of their variables."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from msr_adapter.prompts.attributes import Attributes, attribute_of, neutral_attributes
from msr_adapter.prompts.neutralize import DESCRIPTION_LIMIT, TEXT_LIMIT, neutralise

IMAGE_PLACEHOLDER = "<image>"

_WORDS = ("noun", "language")
_LENGTH = ("max_tokens", "max_words")

VARIABLES = {
    "item_summary": ("title", "text", "image", "images", "item", *_LENGTH, *_WORDS),
    "item_text": ("title", "text", "item", *_LENGTH, *_WORDS),
    "item_image": ("title", "images", "item", *_LENGTH, *_WORDS),
    "item_fusion": ("title", "text_summary", "image_summary", "item", *_LENGTH, *_WORDS),
    "user_summary": ("previous", "items", "user", *_LENGTH, *_WORDS),
    "history": ("items", "user", *_WORDS),
    "recommend": ("user_summary", "title", "image", "images", "recent", "item", "user", *_WORDS),
    "recommend-image-first": ("user_summary", "title", "image", "images", "recent", "item", "user", *_WORDS),
    "next-item-text": ("user_summary", "user", *_WORDS),
    "next-item-text-answer": ("title", "item", *_WORDS),
    "user-text": ("title", "image", "images", "item", *_WORDS),
    "user-text-answer": ("user_summary", "user", *_WORDS),
}
"""Every template that msr renders, and the variables it may use."""

TEMPLATE_NAMES = tuple(VARIABLES)

RENAMED = {"user_preference": "user_summary", "preference": "user_summary"}
"""Names that templates and their variables had before -> their names now; a template that still says them is told."""

_WORDS_PER_TOKEN = 0.6
"""English has about 0.75 words a token; a model that is told a number of words does not count well."""


@dataclass(frozen=True)
class HistoryItem:
    """One item, of a user's history or the one that is asked about, as a template sees it."""

    title: str
    summary: str = ""
    text: str = ""
    """What the source says of it."""
    category: str = ""
    attributes: Attributes = ()
    event: str = ""
    """What the user did with it, in a history of a log with events."""
    images: tuple[str, ...] = ()
    """A placeholder for each of its images, where the prompt shows them: those of `recent`."""

    def __getitem__(self, name: str) -> Any:
        """Return an attribute: Jinja asks so for what is no field."""
        return attribute_of(self.attributes, name, "item")

    def showing(self, images: tuple[str, ...]) -> "HistoryItem":
        """Return the item with placeholders of its images."""
        return replace(self, images=images)

    def neutral(self) -> "HistoryItem":
        """Return the item with texts that cannot change a prompt."""
        text, category = neutralise(self.text, DESCRIPTION_LIMIT), neutralise(self.category)
        attributes = neutral_attributes(self.attributes) if self.attributes else ()
        title, summary = neutralise(self.title), neutralise(self.summary, TEXT_LIMIT)
        event = neutralise(self.event) if self.event else ""
        return HistoryItem(title, summary, text, category, attributes, event, self.images)


def placeholders(number: int) -> tuple[str, ...]:
    """Return what templates call `images`: a placeholder for each."""
    return (IMAGE_PLACEHOLDER,) * number


def is_shown(found: int, images: int) -> bool:
    """Tell whether a prompt with ``found`` placeholders may be that of an item with ``images``: all, or the first."""
    return found == images or 0 < found < images


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
