"""The `recommend` prompts of a whole table, one per (user, candidate) pair.

Why: one Jinja rendering takes about 15 microseconds, which made it the larger half of the time of building a dataset of
hundreds of thousands of rows. A user's rows share the user's text, and an item comes up for many users. So the template
is cut into parts that depend on the user alone or on the item alone (`template_parts`); each is rendered once per user
or item, and the rows are joined as columns.

Fallback: a part that depends on both is rendered once per pair, and a template that cannot be cut safely is one such
part. The invariant, which tests hold for bundled and odd templates alike: every prompt equals that of
`Prompts.recommend`, white space included. It holds because Jinja itself renders every part.
"""

from collections.abc import Callable
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
from msr_adapter.prompts.variables import IMAGE_PLACEHOLDER, HistoryItem

Columns = dict[str, pl.Series]
Patterns = dict[tuple[bool, ...], Pattern]
"""Which variables are not empty -> the pattern of the text."""

_USER, _ITEM = frozenset({"user_summary", "user"}), frozenset({"title", "image", "item"})
_RECORDS = frozenset({"user", "item"})
_TEXTS = frozenset({"user_summary", "title"}) | _RECORDS
"""What a part must not do more with than print it; a record is always more, so that Jinja renders the part."""
_ELSEWHERE = (nodes.Include, nodes.Extends, nodes.Import, nodes.FromImport)
"""What brings the text of other files."""
# A text that ends like the beginning of a placeholder may become one together with the text after it.
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
        records: "PromptRecords | None" = None,
    ) -> None:
        """Render whatever depends on a user or an item alone; with ``quote``, prompts come escaped.

        ``records`` are what templates call `item` and `user`, one of each title and of each user summary. Raises
        `UserError` if the template fails.
        """
        self._prompts = prompts
        self._values = {
            "user_summary": _neutral(user_summaries, TEXT_LIMIT), "title": _neutral(titles, TITLE_LIMIT),
            "image": pl.Series(images),
        }  # fmt: skip
        records = records or PromptRecords(lambda place: HistoryItem(titles[place]), lambda _: NOBODY)
        # A record is known by its place; equal ones are no rarer than equal titles.
        self._values |= {"user": _places(user_summaries), "item": _places(titles)}
        self._parts = [
            _Renderer(prompts, part, quote, records)
            for part in cut(prompts.tree(prompts.question), (_USER, _ITEM), _TEXTS)
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
        wanted = self._values["image"].to_numpy()[items].astype(np.int64) * self._prompts.shows_images
        if (wrong := np.flatnonzero(found != wanted)).size:
            raise self._prompts.image_error(self._prompts.question, int(found[wrong[0]]), int(wanted[wrong[0]]))


class _Renderer:
    """One part of the template, compiled by itself.

    Where its texts are only printed or tested for being empty, not even every value is rendered: one rendering for each
    combination of empty and given texts shows where the texts go, and Polars fills the rest.
    """

    def __init__(self, prompts: Prompts, part: Part, quote: Quote | None, records: "PromptRecords") -> None:
        self._prompts, self._quote, self._records = prompts, quote, records
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
        return made

    def _fill(self, columns: Columns, patterns: Patterns) -> pl.Series:
        given = [columns[name] if name == "image" else columns[name] != "" for name in self.names]
        case = np.zeros(len(given[0]), dtype=np.int64)
        for place, flag in enumerate(given):
            case += flag.to_numpy().astype(np.int64) << place
        numbered = {sum(flag << place for place, flag in enumerate(flags)): p for flags, p in patterns.items()}
        return fill(numbered, case, columns, self._quote)

    def _find_patterns(self) -> Patterns | None:
        """Render every case with marks for the texts; None if that fails, or if two kinds of marks disagree.

        They disagree where a template does more with a text than print it, such as comparing it.
        """
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

    def _jinja(self, **values: Any) -> str:
        try:
            return self._template.render(values)
        except Exception as error:
            raise UserError(self._prompts.problem(self._prompts.question, error)) from error


@dataclass(frozen=True)
class PromptRecords:
    """What templates call `item` and `user`, by place in the columns; asked for where a template says them."""

    item: Callable[[int], HistoryItem]
    user: Callable[[int], UserFields]


def _records_said(prompts: Prompts, part: nodes.Template) -> set[str]:
    """Return the records that a part of the template may say."""
    if next(part.find_all(_ELSEWHERE), None) is None:
        return {node.name for node in part.find_all(nodes.Name)} & _RECORDS
    fields = prompts.fields(prompts.question)
    return {name for name, is_said in (("item", fields.item), ("user", fields.user)) if is_said}


def _places(of: pl.Series) -> pl.Series:
    return pl.Series(np.arange(len(of)))


def _neutral(texts: pl.Series, limit: int) -> pl.Series:
    return by_value(texts.to_list(), lambda text: neutralise(text, limit))


def _count_placeholders(texts: pl.Series) -> Codes:
    return texts.str.count_matches(IMAGE_PLACEHOLDER, literal=True).to_numpy()
