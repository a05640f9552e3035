"""Too few items: found before anything is drawn, or counted while drawing; who, how many, and the way out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from msr_adapter.data.audit import raise_if_any
from msr_adapter.data.corpus import Codes, Mask, Rows, degree
from msr_adapter.data.recipes import Draw, Recipe
from msr_adapter.data.sampling import Slots
from msr_adapter.errors import Problem

MOST_ROWS = 50_000_000
"""Candidate rows that full ranking may make."""

_STEPS = {
    "popularity": "Items that training never saw have no weight: ask for fewer, or set fallback: [uniform]",
    "popularity-matched": "Raise `pool`, ask for fewer, or set fallback: [uniform]",
    "same-category": "Ask for fewer, merge small categories, or set fallback: [popularity-matched, uniform]",
    "hard": "Give every user a longer list, raise `pool`, ask for fewer, or set fallback: [popularity, uniform]",
}


@dataclass
class Tally:
    """What was short while drawing."""

    fallbacks: dict[tuple[str, str], int] = field(default_factory=dict)
    """(kind, kind that stood in for it) -> negatives."""
    short: dict[tuple[str, str], tuple[int, int, int]] = field(default_factory=dict)
    """(setting, kind) -> (negatives wanted, lists that got fewer, fewest that one of them got)."""

    def count_fallback(self, kinds: Sequence[str], instead_of: Rows, kind: str) -> None:
        """Count the negatives that ``kind`` filled in for each of ``kinds`` (by number)."""
        for code, number in zip(*np.unique(instead_of, return_counts=True), strict=True):
            key = kinds[code], kind
            self.fallbacks[key] = self.fallbacks.get(key, 0) + int(number)

    def count_short(self, setting: str, kinds: Mapping[str, int], kind_of: Rows, slots: Slots) -> None:
        """Count the lists of a chunk in which a kind left slots empty."""
        for code, (kind, count) in enumerate(kinds.items()):
            empty = slots.empty(kind_of == code)
            if not len(empty):
                continue
            lacking = np.unique(slots.list_[empty], return_counts=True)[1]
            _, lists, fewest = self.short.get((setting, kind), (count, 0, count))
            self.short[setting, kind] = count, lists + len(lacking), min(fewest, count - int(lacking.max()))


def rows_of_lists(draw: Draw) -> Rows:
    """Return the candidate rows of each example. `UserError` if users have too few free items, or rows are too many."""
    split, users = draw.examples.split, draw.examples.user
    free = len(draw.log.items) - degree(draw.log.user, len(draw.log.users))[users]
    asked = [sum(recipe.negatives.kinds().values()) for recipe in draw.recipes]
    problems: dict[str, list[Problem]] = {}
    drawn = np.ones(len(split), dtype=bool) if draw.imported is None else split != 2
    for recipe, of in _by_setting(draw):
        mask = np.isin(split, of) & drawn
        count = asked[of[0]] or 1  # full ranking takes what there is, but a list needs one negative
        if (mask & (free < count)).any():
            problems[recipe.setting] = [_too_few(recipe, count, users, free, mask & (free < count), draw)]
    raise_if_any([problem for found in problems.values() for problem in found])
    counts = np.where(np.array(asked)[split] > 0, np.array(asked)[split], free)
    everything = np.array([recipe.negatives.kind == "all" for recipe in draw.recipes])[split] & drawn
    raise_if_any(_too_many(draw, everything, counts))
    if draw.imported is not None:
        counts[~drawn] = np.bincount(draw.imported.example, minlength=len(split))[~drawn] - 1
    return counts + 1


def shortages(tally: Tally) -> list[Problem]:
    """Return one problem for each kind that could not give its count."""
    return [
        Problem(
            "",
            setting,
            f"{kind}: {count} negatives asked for, but {lists:,} lists get fewer (the poorest {fewest})",
            "items that the kind allows and the user never touched",
            _STEPS.get(kind, "Ask for fewer, or keep more items"),
        )
        for (setting, kind), (count, lists, fewest) in tally.short.items()
    ]


def _by_setting(draw: Draw) -> list[tuple[Recipe, list[int]]]:
    """Return each setting's recipe and the split codes that it makes."""
    codes: dict[str, list[int]] = {}
    for code, recipe in enumerate(draw.recipes):
        codes.setdefault(recipe.setting, []).append(code)
    return [(draw.recipes[of[0]], of) for of in codes.values()]


def _too_few(recipe: Recipe, count: int, users: Codes, free: Rows, short: Mask, draw: Draw) -> Problem:
    least = int(free[short].min())
    found = (f"{count} negatives asked for, but {len(np.unique(users[short])):,} users have fewer items that they "
             f"never touched (the catalogue has {len(draw.log.items):,} items)")  # fmt: skip
    step = f"Ask for {least} or fewer, or keep more items (data.limit.items, data.k_core.items)"
    return Problem("", f"{recipe.setting}.count", found, f"at most {least} for these users", step)


def _too_many(draw: Draw, everything: Mask, counts: Rows) -> list[Problem]:
    rows = int((counts + 1)[everything].sum())
    if rows <= MOST_ROWS:
        return []
    found = f"all: {int(everything.sum()):,} test lists over {len(draw.log.items):,} items make {rows:,} candidates"
    step = "Test fewer users (data.limit.users, split.fractions), keep fewer items, or draw negatives"
    return [Problem("", draw.recipes[2].setting, found, f"at most {MOST_ROWS:,}", step)]
