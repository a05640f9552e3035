"""Tokens of texts and images without loading a model: the tokenizer's own file where it is here, else an estimate."""

import json
import math
import unicodedata
from bisect import bisect_left
from collections.abc import Callable
from typing import Any

from msr_adapter.config.schema import ModelConfig
from msr_adapter.llamafactory.families import family_of_template
from msr_adapter.llamafactory.family_recognition import model_file

Count = Callable[[str], int]

_ROLES = 24
"""Tokens of a chat template around system text and turn, and of the answer with its end; ChatML has a few less."""
_SYSTEM = "You are a helpful assistant."
_BYTES_PER_TOKEN = 3
"""UTF-8 bytes: English has about 4 letters a token, Chinese about one sign, of 3 bytes; this errs on the long side."""


def token_counter(model: ModelConfig) -> tuple[Count, str]:
    """Return a function that counts the tokens of a text, and a phrase for reports on how it counts.

    Loads no weights and no torch.
    """
    path = model_file(model, "tokenizer.json")
    if path is None:
        return (lambda text: math.ceil(len(text.encode()) / _BYTES_PER_TOKEN),
                f"estimated: the tokenizer of {model.path} is not on this machine yet")  # fmt: skip
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    return (lambda text: len(tokenizer.encode(text, add_special_tokens=False)), "counted by the model's tokenizer")


class AnswerCutter:
    """Cuts a text of more than some tokens after its last whole word within them.

    A single longer word is cut between two letters. Counted as by `token_counter`; whatever the count, the same text
    has the same cut.
    """

    def __init__(self, model: ModelConfig, most: int) -> None:
        """Allow ``most`` tokens of the tokenizer of ``model``, whose file is read where one is needed."""
        self._model, self._most = model, most
        self._count: Count | None = None
        self.known: dict[str, str] = {}
        """Text -> what is left of it."""

    def __reduce__(self) -> "tuple[type[AnswerCutter], tuple[ModelConfig, int]]":
        return AnswerCutter, (self._model, self._most)

    @property
    def truncated(self) -> int:
        """How many different texts were cut so far."""
        return sum(cut != text for text, cut in self.known.items())

    def __call__(self, text: str) -> str:
        """Return what is left of ``text``."""
        if text not in self.known:
            self.known[text] = self._cut(text)
        return self.known[text]

    def _cut(self, text: str) -> str:
        if self._fits(text):
            return text
        blanks = [place for place in range(1, len(text)) if text[place].isspace()]
        letters = _ends_of_letters(text)
        # What fits is a beginning of the ends, but for a token here and there: bisection finds the last one.
        for ends in (blanks, letters):
            if found := bisect_left(ends, True, key=lambda end: not self._fits(text[:end])):
                return text[: ends[found - 1]].rstrip()
        return text[: letters[0]] if letters else text

    def _fits(self, text: str) -> bool:
        if len(text.encode()) <= self._most:  # no tokenizer has more tokens than bytes
            return True
        self._count = self._count or token_counter(self._model)[0]
        return self._count(text) <= self._most


def _ends_of_letters(text: str) -> list[int]:
    """Return where ``text`` may be cut, its end left out: not before an accent, nor within people who are joined."""

    def is_drawn_together(character: str, before: str) -> bool:
        joined = character in "\u200c\u200d" or before == "\u200d" or "\U0001f3fb" <= character <= "\U0001f3ff"
        return joined or unicodedata.category(character).startswith("M")

    return [place for place in range(1, len(text)) if not is_drawn_together(text[place], text[place - 1])]


def overhead(model: ModelConfig, count: Count) -> int:
    """Return the tokens of a prompt beside its text and images, at most: roles, system text, the answer's end."""
    return _ROLES + count(_SYSTEM if model.default_system is None else model.default_system)


def image_tokens(model: ModelConfig, width: int, height: int) -> int | None:
    """Return the tokens of an image within the budgets of ``model``; None when its kind is not known here.

    Qwen2-VL and its successors have one token per square of pixels: the sides are rounded to whole squares, down where
    the processor has to shrink the image and up where it has to enlarge it (Wang et al., arXiv 2409.12191).
    """
    squares = _squares(model)
    if squares is None:
        return family.image_tokens or None if (family := family_of_template(model.template)) else None
    side, least, most = squares
    budget = min(max(width * height, model.image_min_pixels), model.image_max_pixels)
    scale = math.sqrt(budget / (width * height)) / side
    wide, high = width * scale, height * scale
    rounded = round(wide) * round(high)
    if least <= rounded <= most:
        return rounded
    bound, cut = (most, math.floor) if rounded > most else (least, math.ceil)
    fit = math.sqrt(bound / (wide * high))
    return max(1, cut(wide * fit)) * max(1, cut(high * fit))


def _squares(model: ModelConfig) -> tuple[int, float, float] | None:
    """Return the side of a square in pixels, and the fewest and most squares that the model's own processor makes."""
    path = model_file(model, "processor_config.json") or model_file(model, "preprocessor_config.json")
    settings: dict[str, Any] = {} if path is None else json.loads(path.read_text(encoding="utf-8"))
    settings = settings.get("image_processor", settings)
    if {"patch_size", "merge_size"} <= settings.keys():
        side = int(settings["patch_size"]) * int(settings["merge_size"])
        size = settings.get("size") or {}
        least = settings.get("min_pixels") or size.get("shortest_edge") or 4 * side**2
        most = settings.get("max_pixels") or size.get("longest_edge") or math.inf
        return side, least / side**2, most / side**2
    family = family_of_template(model.template)
    return (family.token_side, 4.0, math.inf) if family and family.token_side else None
