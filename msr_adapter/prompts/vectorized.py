"""Texts by column: literals and columns joined row by row, a function called once for equal values."""

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import TypeVar

import numpy as np
import polars as pl

from msr_adapter.arrays import Codes, Mask
from msr_adapter.errors import UserError
from msr_adapter.prompts.neutralize import TEXT_LIMIT, TITLE_LIMIT, neutralise
from msr_adapter.prompts.render import Prompts
from msr_adapter.prompts.template_parts import Part, cut, pieces
from msr_adapter.prompts.variables import IMAGE_PLACEHOLDER

Value = TypeVar("Value")
Quote = Callable[[str], str]
"""Escapes text; works character by character, so that joined escapes are the escape of what is joined."""
Pattern = Sequence[str]
"""Literals and, at odd places, the names of the columns between them."""


def split_at_marks(text: str, mark: str) -> Pattern:
    """Return the pattern behind a text that was rendered with ``mark + name + mark`` in place of each column."""
    return tuple(text.split(mark))


def fill(
    patterns: Mapping[int, Pattern], case: Codes, columns: Mapping[str, pl.Series], quote: Quote | None = None
) -> pl.Series:
    """Fill for every row the pattern of its case: at once all rows of the same case."""
    texts, places = [pl.Series(dtype=pl.String)], [np.empty(0, dtype=np.int64)]
    for number, pattern in patterns.items():
        if (rows := np.flatnonzero(case == number)).size:
            pieces: list[pl.Series | str] = []
            for place, piece in enumerate(pattern):
                if place % 2:
                    values = columns[piece].gather(rows)
                    pieces.append(by_value(values.to_list(), quote) if quote else values)
                else:
                    pieces.append(quote(piece) if quote else piece)
            texts.append(joined(pieces, len(rows)))
            places.append(rows)
    return pl.concat(texts).gather(np.argsort(np.concatenate(places)))


def joined(columns: Sequence[pl.Series | str], rows: int) -> pl.Series:
    """Return columns and constants joined row by row."""
    if all(isinstance(column, str) for column in columns):
        return pl.Series(["".join(map(str, columns))]).new_from_index(0, rows)
    return pl.select(pl.concat_str([pl.lit(column) for column in columns])).to_series()


def by_value(values: Sequence[Value], function: Callable[[Value], str]) -> pl.Series:
    """Return ``function`` of every value, called once for equal ones."""
    known = {value: function(value) for value in dict.fromkeys(values)}
    return pl.Series(map(known.__getitem__, values), dtype=pl.String)


# The `recommend` prompts of a whole table: what a user's rows share is rendered once, and so is every item's text.
#
# The result is that of `Prompts.recommend`, row by row, white space included: every piece is rendered by Jinja.

Columns = dict[str, pl.Series]
Patterns = dict[tuple[bool, ...], Pattern]
"""Which variables are not empty -> the pattern of the text."""

_USER, _ITEM = frozenset({"user_summary"}), frozenset({"title", "image"})
_TEXTS = frozenset({"user_summary", "title"})
_HALF_PLACEHOLDER = rf"(?:{'|'.join(IMAGE_PLACEHOLDER[:end] for end in range(1, len(IMAGE_PLACEHOLDER)))})$"


class PromptTable:
    """Renders the prompts of (user, item) pairs. Memory: the rendered texts of all users and of all items."""

    def __init__(
        self,
        prompts: Prompts,
        user_summaries: pl.Series,
        titles: pl.Series,
        images: Mask,
        quote: Quote | None = None,
    ) -> None:
        """Render whatever depends on a user or an item alone; with ``quote``, prompts come escaped.

        Raises `UserError` if the template fails.
        """
        self._prompts = prompts
        self._values = {
            "user_summary": _neutral(user_summaries, TEXT_LIMIT), "title": _neutral(titles, TITLE_LIMIT),
            "image": pl.Series(images),
        }  # fmt: skip
        self._parts = [
            _Renderer(prompts, part, quote) for part in cut(prompts.tree(prompts.question), (_USER, _ITEM), _TEXTS)
        ]
        self._texts = [None if part.is_pair else part.render(self._columns(part)) for part in self._parts]
        self._found = self._placeholders()
        if not any(part.is_pair for part in self._parts):
            del self._values["user_summary"]

    def take(self, users: Codes, items: Codes) -> pl.Series:
        """Return the prompt of each pair; ``users`` and ``items`` are places in the given columns, one per row."""
        columns: list[pl.Series | str] = []
        for part, texts in zip(self._parts, self._texts, strict=True):
            if texts is None:
                columns.append(part.render(self._columns(part, users, items)))
            else:
                columns.append(texts.gather(users if part.is_user else items))
        rows = joined(columns, len(users))
        self._check_images(rows, users, items)
        return rows

    def _columns(self, part: "_Renderer", users: Codes | None = None, items: Codes | None = None) -> Columns:
        columns = {name: self._values[name] for name in part.names}
        if users is None or items is None:
            return columns
        return {name: column.gather(users if name in _USER else items) for name, column in columns.items()}

    def _placeholders(self) -> tuple[Codes, Codes] | None:
        """Return the number in each user's and each item's text; None if only whole prompts can be counted."""
        users, items = (np.zeros(len(self._values[name]), dtype=np.int64) for name in ("user_summary", "title"))
        for part, texts in zip(self._parts, self._texts, strict=True):
            if texts is None or texts.str.contains(_HALF_PLACEHOLDER).any():
                return None
            counts = users if part.is_user else items
            counts += _count_placeholders(texts)
        return users, items

    def _check_images(self, rows: pl.Series, users: Codes, items: Codes) -> None:
        known = self._found
        found = _count_placeholders(rows) if known is None else known[0][users] + known[1][items]
        wanted = self._values["image"].to_numpy()[items].astype(np.int64)
        if (wrong := np.flatnonzero(found != wanted)).size:
            raise self._prompts.image_error(self._prompts.question, int(found[wrong[0]]), int(wanted[wrong[0]]))


class _Renderer:
    """One part of the template, compiled by itself."""

    def __init__(self, prompts: Prompts, part: Part, quote: Quote | None) -> None:
        self._prompts, self._quote = prompts, quote
        self.names = sorted(part.names or _ITEM)
        self.is_user = bool(part.names) and part.names <= _USER
        self.is_pair = not (part.names <= _USER or part.names <= _ITEM)
        tree = prompts.tree(prompts.question)
        found = pieces(tree)
        tree.body = [found[place] for place in part.places]
        self._template = prompts.compile(prompts.question, tree)
        self._patterns = self._find_patterns() if part.plain else None

    def render(self, columns: Columns) -> pl.Series:
        """Return the part's text for every row; equal rows are rendered once."""
        if self._patterns is not None:
            return self._fill(columns, self._patterns)
        rows = list(zip(*(columns[name].to_list() for name in self.names), strict=True))
        return by_value(rows, lambda row: self._quoted(self._jinja(**dict(zip(self.names, row, strict=True)))))

    def _fill(self, columns: Columns, patterns: Patterns) -> pl.Series:
        given = [columns[name] if name == "image" else columns[name] != "" for name in self.names]
        case = np.zeros(len(given[0]), dtype=np.int64)
        for place, flag in enumerate(given):
            case += flag.to_numpy().astype(np.int64) << place
        numbered = {sum(flag << place for place, flag in enumerate(flags)): p for flags, p in patterns.items()}
        return fill(numbered, case, columns, self._quote)

    def _find_patterns(self) -> Patterns | None:
        """Render every case with marks for the texts; None if that fails, or if two kinds of marks disagree."""
        cases = product((False, True), repeat=len(self.names))
        try:
            found = {case: [self._pattern(case, mark) for mark in "\x00\x01"] for case in cases}
        except UserError:
            return None
        return {case: one for case, (one, _) in found.items()} if all(a == b for a, b in found.values()) else None

    def _pattern(self, case: tuple[bool, ...], mark: str) -> Pattern:
        given = {
            name: flag if name not in _TEXTS else f"{mark}{name}{mark}" if flag else ""
            for name, flag in zip(self.names, case, strict=True)
        }
        return split_at_marks(self._jinja(**given), mark)

    def _jinja(self, **values: str | bool) -> str:
        try:
            return self._template.render(values)
        except Exception as error:
            raise UserError(self._prompts.problem(self._prompts.question, error)) from error

    def _quoted(self, text: str) -> str:
        return self._quote(text) if self._quote else text


def _neutral(texts: pl.Series, limit: int) -> pl.Series:
    return by_value(texts.to_list(), lambda text: neutralise(text, limit))


def _count_placeholders(texts: pl.Series) -> Codes:
    return texts.str.count_matches(IMAGE_PLACEHOLDER, literal=True).to_numpy()
