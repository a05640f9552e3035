"""How the two summarisers write: items from their images and texts, users from their histories."""

from typing import Literal

from pydantic import Field

from msr_adapter.config.schema.base import MOST_TOKENS, Count, StrictModel, allowed
from msr_adapter.config.schema.model import ModelConfig

OnFailure = Literal["error", "skip", "title"]
"""What becomes of a request that failed for good."""


class ItemSummariesConfig(StrictModel):
    """Move 1: image, title and description -> text."""

    model: ModelConfig
    """Writes the item summaries."""
    mode: Literal["image", "fusion", "none"] = "image"
    """image: one request shows the image, the title and the description. fusion: the paper's three, one for the
    words, one for the image, and one that joins both answers (an item with only one of the two is asked about once).
    none: an item is its title."""
    max_new_tokens: int = Field(64, ge=1, le=MOST_TOKENS)
    """Longest answer in tokens, which the bundled prompts tell the model in words. An answer that is cut off here ends
    with its last whole sentence."""
    on_failure: OnFailure = "error"
    """An item that cannot be described (a damaged image, a server that keeps failing). error: stop, once everything
    else is done and kept. skip: leave it out of the histories. title: its title stands in. Always counted and named."""


class UserSummariesConfig(StrictModel):
    """Move 2: history -> user summary."""

    model: ModelConfig
    """Writes the user summaries."""
    mode: Literal["recurrent", "direct", "none"] = "recurrent"
    """recurrent: block by block; direct: the whole history in one prompt; none: the listed history itself."""
    block: Count = 3
    """Items per recurrent step; 3 in the paper."""
    max_new_tokens: int = Field(128, ge=1, le=MOST_TOKENS)
    """Longest answer in tokens, which the bundled prompts tell the model in words. An answer that is cut off here ends
    with its last whole sentence."""
    on_failure: OnFailure = "error"
    """A step that fails for good. error: stop, once everything else is done and kept. skip: the summary stays what it
    was before the step. title: the listed history itself stands in for the summary. Always counted and named."""


_WORDS = r"^[^\s<>{}\[\]|$]+( [^\s<>{}\[\]|$]+)*$"


class SummarizeConfig(StrictModel):
    """The two summarisers."""

    noun: str = Field("item", pattern=_WORDS, max_length=40, json_schema_extra=allowed("a word or two"))
    """What is recommended, in the singular (video, movie, product), for the prompts."""
    language: str | None = Field(
        None, pattern=_WORDS, max_length=40, json_schema_extra=allowed("a word or two, or null")
    )
    """What the summaries are written in (English, German), for the prompts; null = they name none."""
    items: ItemSummariesConfig
    """The item summariser."""
    users: UserSummariesConfig
    """The user summariser."""
