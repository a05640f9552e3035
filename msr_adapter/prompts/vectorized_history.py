"""The `history` texts of a whole table: what a user is told by when no model summarises.

Why: a history is rendered per example, and most of its time went into the loop over its items. An item's text depends
on its title, its summary and its place in the loop alone; so the loop is rendered once for every kind of item (with or
without a title, a summary) at every place, and the texts of all histories are filled in from those patterns as columns.

Fallback: a template that is anything but text around one such loop, or histories too long to be worth it, are rendered
one by one, equal ones once. The invariant, held by tests: the texts equal those of `Prompts.history`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import jinja2
import numpy as np
import polars as pl
from jinja2 import nodes

from msr_adapter.arrays import Codes, Mask
from msr_adapter.errors import UserError
from msr_adapter.prompts.neutralize import TEXT_LIMIT, TITLE_LIMIT, neutralise
from msr_adapter.prompts.render import Prompts
from msr_adapter.prompts.template_dependencies import is_plain
from msr_adapter.prompts.text_columns import Pattern, by_value, fill, split_at_marks
from msr_adapter.prompts.variables import IMAGE_PLACEHOLDER, HistoryItem

_NAME = "history"
_FIELDS = ("title", "summary", "event")
_PLACES = {"index", "index0", "first", "last"}
"""What a loop may ask of itself: all of it follows from an item's place and from whether it is the last one."""
_REFUSED = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Filter, nodes.Call)
_LONGEST = 100
"""Longer histories would take more renderings of the loop than are saved."""
_BEGIN, _END = "\x02", "\x03"
"""Marks around each item's text. Neutralised data has no control characters, so no data can be taken for a mark."""


@dataclass(frozen=True)
class ListedEvents:
    """What was done with the items of histories."""

    words: Sequence[str]
    codes: Codes
    """Place in ``words`` of each item of the first history, of the second, ..."""


def tell_histories(
    prompts: Prompts, titles: pl.Series, summaries: pl.Series, items: Codes, lengths: Codes,
    events: ListedEvents | None = None,
) -> pl.Series:  # fmt: skip
    """Return `Prompts.history` of every history, "" for an empty one.

    ``items`` are places in ``titles`` and ``summaries``: those of the first history, oldest first, of the second, ...
    Raises `UserError` if the template fails.
    """
    events = events or ListedEvents([""], np.zeros(len(items), np.int8))
    told = {"title": by_value(titles.to_list(), lambda text: neutralise(text, TITLE_LIMIT)),
            "summary": by_value(summaries.to_list(), lambda text: neutralise(text, TEXT_LIMIT)),
            "event": by_value(list(events.words), neutralise)}  # fmt: skip
    places = {"title": items, "summary": items, "event": events.codes}
    longest = int(lengths.max(initial=0))
    loop = _find_loop(prompts, longest) if longest <= _LONGEST else None
    texts = _one_by_one(prompts, told, places, lengths) if loop is None else _at_once(loop, told, places, lengths)
    if found := int(texts.str.count_matches(IMAGE_PLACEHOLDER, literal=True).max() or 0):  # type: ignore[arg-type]
        raise prompts.image_error(_NAME, found, 0)
    return texts


def _one_by_one(prompts: Prompts, told: dict[str, pl.Series], places: dict[str, Codes], lengths: Codes) -> pl.Series:
    known = [HistoryItem(*pair) for pair in zip(told["title"], told["summary"], strict=True)]
    words, ends = told["event"].to_list(), np.cumsum(lengths).tolist()
    pairs = list(zip(places["title"].tolist(), places["event"].tolist(), strict=True))
    histories = [tuple(pairs[end - length : end]) for end, length in zip(ends, lengths.tolist(), strict=True)]

    def tell(history: tuple[tuple[int, int], ...]) -> str:
        items = [replace(known[item], event=words[event]) if words[event] else known[item] for item, event in history]
        return prompts.history(items) if items else ""

    return by_value(histories, tell)


@dataclass(frozen=True)
class _Loop:
    """The text before and after a template's one loop, and the loop's text for every kind of item and place."""

    head: str
    tail: str
    patterns: dict[int, Pattern]
    """By `_case`."""


def _at_once(loop: _Loop, told: dict[str, pl.Series], places: dict[str, Codes], lengths: Codes) -> pl.Series:
    items = places["title"]
    first = np.repeat(np.cumsum(lengths) - lengths, lengths)
    place = np.arange(len(items)) - first
    last = place + 1 == np.repeat(lengths, lengths)
    columns = {name: column.gather(places[name]) for name, column in told.items()}
    given = [(columns[name] != "").to_numpy() for name in _FIELDS]
    pieces = fill(loop.patterns, np.asarray(_case(place, last, given)), columns)
    history = np.repeat(np.arange(len(lengths)), lengths)
    frame = pl.DataFrame({"history": history, "piece": pieces})
    texts = frame.group_by("history", maintain_order=True).agg(pl.col("piece").str.join(""))
    whole = texts.select("history", pl.concat_str(pl.lit(loop.head), "piece", pl.lit(loop.tail)).alias("text"))
    all_ = pl.DataFrame({"history": np.arange(len(lengths))})
    return all_.join(whole, on="history", how="left", maintain_order="left")["text"].fill_null("")


def _case(place: Codes | int, last: Mask | bool, given: Sequence[Mask | bool]) -> Codes | int:
    """Number the kinds of items: by place, by whether it is the last one, by which of `_FIELDS` are known of it."""
    return place * 16 + last * 8 + given[0] * 4 + given[1] * 2 + given[2]


def _find_loop(prompts: Prompts, longest: int) -> _Loop | None:
    """Return the loop if the template is text around one loop over plain fields of the items, else None."""
    tree = prompts.tree(_NAME)
    loops = [node for node in tree.body if isinstance(node, nodes.For)]
    around = [node for node in tree.body if node not in loops]
    is_text = all(isinstance(node, nodes.Output) and not list(node.find_all(nodes.Name)) for node in around)
    if len(loops) != 1 or not is_text or list(tree.find_all(_REFUSED)) or not _is_plain_loop(loops[0]):
        return None
    loops[0].body = [_text(_BEGIN), *loops[0].body, _text(_END)]
    try:
        template = prompts.compile(_NAME, tree)
        first, second = (_render_cases(template, mark, longest) for mark in "\x00\x01")
    except (UserError, jinja2.TemplateError, TypeError, ValueError):
        return None  # the single renderer will say what is wrong, if it ever comes to it
    return first if first == second else None


def _is_plain_loop(loop: nodes.For) -> bool:
    """Tell whether an item's text depends on nothing but its fields, printed whole or tested, and its place."""
    over, target = loop.iter, loop.target
    if not (isinstance(over, nodes.Name) and over.name == "items" and isinstance(target, nodes.Name)):
        return False
    if loop.recursive or loop.test is not None or loop.else_:
        return False
    names = [name.name for part in loop.body for name in part.find_all(nodes.Name)]
    fields = [node for part in loop.body for node in part.find_all(nodes.Getattr)]
    known = {*((target.name, field) for field in _FIELDS), *(("loop", place) for place in _PLACES)}
    asked = [(field.node.name, field.attr) for field in fields if isinstance(field.node, nodes.Name)]
    plain = all(is_plain(part, frozenset({target.name}), nodes.Getattr) for part in loop.body)
    return plain and len(asked) == len(fields) == len(names) and set(asked) <= known


def _render_cases(template: jinja2.Template, mark: str, longest: int) -> _Loop:
    """Render histories of every length, with items of every kind."""
    patterns: dict[int, Pattern] = {}
    head = tail = ""
    for given in product((False, True), repeat=len(_FIELDS)):
        title, summary, event = (f"{mark}{name}{mark}" * there for name, there in zip(_FIELDS, given, strict=True))
        item = HistoryItem(title, summary, event=event)
        for length in range(1, longest + 1):
            head, *pieces = template.render(items=[item] * length).split(_BEGIN)
            texts = [piece.split(_END)[0] for piece in pieces]
            tail = pieces[-1].split(_END)[1]
            # An item that is not the last has the same text at any length: the longest history shows them all.
            for place in range(0 if length == longest else length - 1, length):
                last = place == length - 1
                patterns[int(_case(place, last, given))] = split_at_marks(texts[place], mark)
    return _Loop(head, tail, patterns)


def _text(text: str) -> nodes.Output:
    return nodes.Output([nodes.TemplateData(text)])
