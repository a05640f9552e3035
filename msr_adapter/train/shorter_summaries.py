"""Shorter versions of what a prompt shows of a user: a summary without its tail, a history without its oldest items.

Both kinds are cut step by step: `cut` drops about so many tokens, `now` is the text as it is then.
"""

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from msr_adapter.prompts import HistoryItem

_LEAST_TOKENS = 8
"""Tokens of a summary that must stay: with less, nothing is said of the user any more."""
_ELLIPSIS = "…"
_WORD = 40
"""A cut moves back to the last blank within so many characters."""
_JOINERS = "\u200c\u200d"


@dataclass
class TruncatedSummary:
    """A summary of which the first ``kept`` tokens stay."""

    text: str
    offsets: Sequence[tuple[int, int]]
    """First and last character of each token, as the tokenizer says."""
    kept: int = field(init=False)

    def __post_init__(self) -> None:
        self.kept = len(self.offsets)

    @classmethod
    def of(cls, text: str, tokenizer: Any) -> "TruncatedSummary":
        """Return ``text``, still whole, ready to be cut between tokens of ``tokenizer``."""
        read = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return cls(text, [tuple(pair) for pair in read["offset_mapping"]])

    def cut(self, tokens: int) -> bool:
        """Drop ``tokens`` tokens from the end, at least one; return False if too little would stay."""
        least = min(_LEAST_TOKENS, len(self.offsets))
        if self.kept <= least:
            return False
        # The ellipsis adds tokens and words go whole, so the result may be off by a few: the next measurement tells.
        self.kept = max(least, self.kept - max(1, tokens))
        return True

    def now(self) -> str:
        """Return the text as it is now; cut, it ends with `…`."""
        if self.kept == len(self.offsets):
            return self.text
        return self.text[: _boundary(self.text, self.offsets[self.kept - 1][1])].rstrip() + _ELLIPSIS


@dataclass
class TruncatedHistory:
    """A listed history, oldest item first, of which the newest ``kept`` items stay."""

    items: Sequence[HistoryItem]
    tell: Callable[[Sequence[HistoryItem]], str]
    """Renders a history."""
    count: Callable[[str], int]
    """Counts the tokens of a text."""
    kept: int = field(init=False)

    def __post_init__(self) -> None:
        self.kept = len(self.items)

    def cut(self, tokens: int) -> bool:
        """Drop the oldest items until about so many tokens are gone, at least one item; False if none would stay."""
        if self.kept <= 1:
            return False
        gone = 0
        while self.kept > 1 and (gone == 0 or gone < tokens):
            item = self.items[len(self.items) - self.kept]
            gone += max(1, self.count(f"{item.title} {item.summary}".strip()))
            self.kept -= 1
        return True

    def now(self) -> str:
        """Return the text as it is now: a whole history of the newest items."""
        return self.tell(self.items[len(self.items) - self.kept :])


TruncatedText = TruncatedSummary | TruncatedHistory


def _boundary(text: str, end: int) -> int:
    """Move ``end`` back to where it splits neither a word nor a character."""
    if end >= len(text):
        return len(text)
    if not text[end].isspace() and (blank := text.rfind(" ", max(1, end - _WORD), end)) > 0:
        return blank
    # What a reader sees as one character may be several: a letter and its accent, people joined into a family.
    while end > 1 and (_continues(text[end]) or text[end - 1] in _JOINERS):
        end -= 1
    return end


def _continues(character: str) -> bool:
    """Tell whether a code point belongs to the one before it: accents, joiners, variants, skin tones."""
    return (unicodedata.category(character) in {"Mn", "Mc", "Me"} or character in _JOINERS
            or "\U0001f3fb" <= character <= "\U0001f3ff")  # fmt: skip
