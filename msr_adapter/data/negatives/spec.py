"""How the candidate lists of each split are made: the config's words, together with the items each kind draws from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from msr_adapter.arrays import Codes, Mask, Rows
from msr_adapter.config.schema import NegativesConfig, ProtocolConfig
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.examples import Examples
from msr_adapter.data.log import Log, degree
from msr_adapter.data.negatives.candidate_lists import Candidates
from msr_adapter.data.negatives.pools import Knowledge, PoolOf, make_pools, read_hard_lists
from msr_adapter.data.negatives.sampler import Slots
from msr_adapter.errors import Problem, UserError, collecting, raise_if_any
from msr_adapter.seeded_random import Bits, hash_ids, keyed, mix


@dataclass(frozen=True)
class ListSpec:
    """How the lists of one split are made."""

    setting: str
    """Where the config says it, for messages."""
    negatives: NegativesConfig
    pools: Mapping[str, PoolOf] = field(default_factory=dict)
    """Kind -> what it draws from, for every kind that ``negatives`` names; `all` draws nothing."""


@dataclass(frozen=True)
class Draw:
    """Everything that decides the candidates."""

    log: Log
    examples: Examples
    recipes: tuple[ListSpec, ListSpec, ListSpec]
    """Of the split codes 0, 1, 2."""
    seed: int
    imported: Candidates | None = None
    """Test lists that were read from a file and are not drawn."""


class ListKeys:
    """The key of a list: of the seed, the user's id and the target's id, and of nothing else."""

    def __init__(self, log: Log, seed: int) -> None:
        """Hash all ids. O(users + items)."""
        self._users = keyed(hash_ids(log.users), seed, "candidates")
        self._items = mix(hash_ids(log.items))

    def of(self, user: Codes, positive: Codes) -> Bits:
        """Return the keys of the lists of these users and targets."""
        return mix(self._users[user] ^ self._items[positive])


def make_recipes(
    protocol: ProtocolConfig, train: NegativesConfig, log: Log, known: Knowledge, seed: int, audit: Audit
) -> tuple[ListSpec, ListSpec, ListSpec]:
    """Prepare the lists of training, validation and test. `UserError` with every problem of scores and categories.

    Validation lists are made as test lists are, or as training lists where a test list is the whole catalogue.
    """
    problems: list[Problem] = []
    recipes = []
    for setting, negatives in (("train.negatives", train), ("evaluate.protocol.negatives", protocol.negatives)):
        with collecting(problems):
            recipes.append(_recipe(setting, negatives, log, known, seed, audit))
    raise_if_any(problems)
    training, test = recipes
    return training, training if protocol.negatives.kind == "all" else test, test


def _recipe(setting: str, negatives: NegativesConfig, log: Log, known: Knowledge, seed: int, audit: Audit) -> ListSpec:
    kinds = (*negatives.kinds(), *negatives.fallback)
    if "same-category" in kinds and known.category.null_count() == len(known.category):
        step = "Give the table of items a category, or draw another kind"
        found = "same-category, but the source has no item categories"
        raise UserError(Problem("", setting, found, "a source with a category column", step))
    hard = None
    if "hard" in kinds and negatives.scores is not None:
        hard = read_hard_lists(negatives.scores, log, negatives.pool, audit)
    return ListSpec(setting, negatives, make_pools(negatives, known, hard, seed))


# Too few items: found before anything is drawn, or counted while drawing; who, how many, and the way out.

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


def _by_setting(draw: Draw) -> list[tuple[ListSpec, list[int]]]:
    """Return each setting's recipe and the split codes that it makes."""
    codes: dict[str, list[int]] = {}
    for code, recipe in enumerate(draw.recipes):
        codes.setdefault(recipe.setting, []).append(code)
    return [(draw.recipes[of[0]], of) for of in codes.values()]


def _too_few(recipe: ListSpec, count: int, users: Codes, free: Rows, short: Mask, draw: Draw) -> Problem:
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
