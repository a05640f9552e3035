"""The `recommend` prompts of a whole table, one per (user, candidate) pair.

Why: one Jinja rendering takes about 15 microseconds, which made it the larger half of the time of building a dataset of
hundreds of thousands of rows. A user's rows share the user's text, and an item comes up for many users. So the template
is cut into parts that depend on the user alone or on the item alone (`template_parts`); each is rendered once per user
or item, and the rows are joined as columns.

Fallback: a part that depends on both is rendered once per pair, and a template that cannot be cut safely is one such
part. The invariant, which tests hold for bundled and odd templates alike: every prompt equals that of
`Prompts.recommend`, white space included. It holds because Jinja itself renders every part.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import polars as pl
from jinja2 import nodes

from msr_adapter.arrays import Codes, Mask
from msr_adapter.errors import UserError
from msr_adapter.prompts.attributes import NOBODY, UserFields
from msr_adapter.prompts.neutralize import TEXT_LIMIT, TITLE_LIMIT, neutralise
from msr_adapter.prompts.render import Prompts
from msr_adapter.prompts.template_dependencies import Part, cut, pieces
from msr_adapter.prompts.text_columns import Pattern, Quote, by_value, fill, joined, split_at_marks
from msr_adapter.prompts.variables import IMAGE_PLACEHOLDER, HistoryItem, placeholders

Columns = dict[str, pl.Series]
Patterns = dict[tuple[int, ...], Pattern]
"""Which variables are not empty (1), and how many images there are -> the pattern of the text."""

_USER, _ITEM = frozenset({"user_summary", "user", "recent"}), frozenset({"title", "image", "images", "item"})
_RECORDS = frozenset({"user", "item", "recent"})
_IMAGES = ("image", "images")
"""Whether an item has images, and a placeholder for each: both follow from their number."""
_TEXTS = frozenset({"user_summary", "title"}) | _RECORDS
"""What a part must not do more with than print it; a record is always more, so that Jinja renders the part."""
_ELSEWHERE = (nodes.Include, nodes.Extends, nodes.Import, nodes.FromImport)
"""What brings the text of other files."""
_BITS = 5
"""Of a case, for each variable: it has no more images."""
# A text that ends like the beginning of a placeholder may become one together with the text after it.
_HALF_PLACEHOLDER = rf"(?:{'|'.join(IMAGE_PLACEHOLDER[:end] for end in range(1, len(IMAGE_PLACEHOLDER)))})$"


class PromptTable:
    """Renders the prompts of (user, item) pairs. Memory: the rendered texts of all users and of all items."""

    def __init__(
        self,
        prompts: Prompts,
        user_summaries: pl.Series,
        titles: pl.Series,
        images: Mask | Codes,
        quote: Quote | None = None,
        records: "PromptRecords | None" = None,
    ) -> None:
        """Render whatever depends on a user or an item alone; with ``quote``, prompts come escaped.

        ``images`` are the numbers of the items' images. ``records`` are what templates call `item` and `user`, one of
        each title and of each user summary. Raises `UserError` if the template fails.
        """
        self.prompts = prompts
        self._values = {
            "user_summary": _neutral(user_summaries, TEXT_LIMIT), "title": _neutral(titles, TITLE_LIMIT),
            **dict.fromkeys(_IMAGES, pl.Series(images.astype(np.int64))),
        }  # fmt: skip
        records = records or PromptRecords(lambda place: HistoryItem(titles[place]), lambda _: NOBODY)
        self._recent = None if records.recent is None else records.recent.images
        # A record is known by its place; equal ones are no rarer than equal titles.
        self._values |= {"user": _places(user_summaries), "recent": _places(user_summaries), "item": _places(titles)}
        # Where no history is shown, `recent` is as constant as the noun, and what says it depends on nobody.
        user, texts = (names if records.recent else names - {"recent"} for names in (_USER, _TEXTS))
        numbers = sorted({0, 1, *np.unique(images).astype(int).tolist()})
        self._parts = [
            _Renderer(prompts, part, quote, records, numbers)
            for part in cut(prompts.tree(prompts.question), (user, _ITEM), texts)
        ]
        self._texts = [None if part.is_pair else part.render(self._columns(part)) for part in self._parts]
        self._found = self._placeholders()
        if not any(part.is_pair for part in self._parts):  # then only the rendered texts are needed: free the memory
            del self._values["user_summary"], self._values["user"]

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

    def shown(self, users: Codes, items: Codes) -> Codes:
        """Return how many images of its item each pair's prompt shows, (rows,): all, or the first."""
        if self._found is not None:
            return self._found[1][items]
        return _count_placeholders(self.take(users, items)) - self._of_history(users)

    def _of_history(self, users: Codes) -> Codes:
        """Return how many images of its user's history each row's prompt shows."""
        return np.zeros(len(users), np.int64) if self._recent is None else self._recent[users]

    def _placeholders(self) -> tuple[Codes, Codes] | None:
        """Return the number of placeholders in each user's and each item's text; None where rows must be counted.

        Two counts per row are far cheaper than a search through every prompt.
        """
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
        wanted = self._values["images"].to_numpy()[items] * self.prompts.shows_images
        recent = self._of_history(users)
        shown = found - recent
        wrong = (shown != wanted) & ((shown < 1) | (shown > wanted))
        if known is not None and self._recent is not None:
            wrong |= known[0][users] != recent
        if (places := np.flatnonzero(wrong)).size:
            one = int(places[0])
            raise self.prompts.image_error(self.prompts.question, int(found[one]), int(wanted[one] + recent[one]))


class _Renderer:
    """One part of the template, compiled by itself.

    Where its texts are only printed or tested for being empty, not even every value is rendered: one rendering for each
    combination of empty and given texts shows where the texts go, and Polars fills the rest.
    """

    def __init__(
        self, prompts: Prompts, part: Part, quote: Quote | None, records: "PromptRecords", numbers: Sequence[int]
    ) -> None:
        """``numbers`` are all numbers of images that an item has."""
        self._prompts, self._quote, self._records, self._numbers = prompts, quote, records, numbers
        self.is_user = bool(part.names) and part.names <= _USER
        self.is_pair = not (part.names <= _USER or part.names <= _ITEM)
        tree = prompts.tree(prompts.question)
        found = pieces(tree)
        tree.body = [found[place] for place in part.places]
        # A record that the part does not say would make equal rows unequal.
        self.names = sorted((part.names or _ITEM) - (_RECORDS - _records_said(prompts, tree)))
        self._template = prompts.compile(prompts.question, tree)
        self._patterns = self._find_patterns() if part.plain else None

    def render(self, columns: Columns) -> pl.Series:
        """Return the part's text for every row; equal rows are rendered once."""
        if self._patterns is not None:
            return self._fill(columns, self._patterns)
        rows = list(zip(*(columns[name].to_list() for name in self.names), strict=True))
        quote = self._quote or str
        return by_value(rows, lambda row: quote(self._jinja(**self._row(row))))

    def _row(self, row: tuple[Any, ...]) -> dict[str, Any]:
        """Return the variables of a row, its records in place of their numbers."""
        made = dict(zip(self.names, row, strict=True))
        if "item" in made:
            made["item"] = self._records.item(made["item"]).neutral()
        if "user" in made:
            made["user"] = self._records.user(made["user"]).neutral()
        if "recent" in made and self._records.recent:
            made["recent"] = [item.neutral() for item in self._records.recent.items(made["recent"])]
        number = next((made[name] for name in _IMAGES if name in made), 0)
        return made | {name: value for name, value in _as_said(number).items() if name in made}

    def _fill(self, columns: Columns, patterns: Patterns) -> pl.Series:
        given = [columns[name] if name in _IMAGES else columns[name] != "" for name in self.names]
        case = np.zeros(len(given[0]), dtype=np.int64)
        for place, value in enumerate(given):
            case += value.to_numpy().astype(np.int64) << (_BITS * place)
        numbered = {sum(int(value) << (_BITS * place) for place, value in enumerate(values)): pattern
                    for values, pattern in patterns.items()}  # fmt: skip
        return fill(numbered, case, columns, self._quote)

    def _find_patterns(self) -> Patterns | None:
        """Render every case with marks for the texts; None if that fails, or if two kinds of marks disagree.

        They disagree where a template does more with a text than print it, such as comparing it.
        """
        values = [self._numbers if name in _IMAGES else (0, 1) for name in self.names]
        both = [place for place, name in enumerate(self.names) if name in _IMAGES]
        cases = [case for case in product(*values) if len({case[place] for place in both}) <= 1]
        try:
            found = {case: [self._pattern(case, mark) for mark in "\x00\x01"] for case in cases}
        except UserError:
            return None
        return {case: one for case, (one, _) in found.items()} if all(a == b for a, b in found.values()) else None

    def _pattern(self, case: tuple[int, ...], mark: str) -> Pattern:
        given = {
            name: _as_said(value)[name] if name in _IMAGES else f"{mark}{name}{mark}" if value else ""
            for name, value in zip(self.names, case, strict=True)
        }
        return split_at_marks(self._jinja(**given), mark)

    def _jinja(self, **values: Any) -> str:
        try:
            return self._template.render({"recent": (), **values})
        except Exception as error:
            raise UserError(self._prompts.problem(self._prompts.question, error)) from error


@dataclass(frozen=True)
class PromptRecords:
    """What templates call `item` and `user`, by place in the columns; asked for where a template says them."""

    item: Callable[[int], HistoryItem]
    user: Callable[[int], UserFields]
    recent: "RecentItems | None" = None
    """The latest items of each user's history, where prompts show their images."""


@dataclass(frozen=True)
class RecentItems:
    """The latest items of the histories of some users."""

    items: Callable[[int], Sequence[HistoryItem]]
    """Place of the user -> the items, oldest first, with a placeholder for each image."""
    images: Codes
    """How many images those of each user have, (users,)."""


def _records_said(prompts: Prompts, part: nodes.Template) -> set[str]:
    """Return the records that a part of the template may say."""
    if next(part.find_all(_ELSEWHERE), None) is None:
        return {node.name for node in part.find_all(nodes.Name)} & _RECORDS
    fields = prompts.fields(prompts.question)
    return {name for name, is_said in (("item", fields.item), ("user", fields.user)) if is_said}


def _as_said(number: int) -> dict[str, Any]:
    """Return what templates are told of a number of images."""
    return {"image": number > 0, "images": placeholders(number)}


def _places(of: pl.Series) -> pl.Series:
    return pl.Series(np.arange(len(of)))


def _neutral(texts: pl.Series, limit: int) -> pl.Series:
    return by_value(texts.to_list(), lambda text: neutralise(text, limit))


def _count_placeholders(texts: pl.Series) -> Codes:
    return texts.str.count_matches(IMAGE_PLACEHOLDER, literal=True).to_numpy()
