"""How the candidate lists of each split are made: the config's words, with the items that each kind draws from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from msr_adapter.arrays import Codes, Mask, Rows
from msr_adapter.config.schema import NegativesConfig, ProtocolConfig, TrainNegativesConfig
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.interaction_log import Log
from msr_adapter.data.negatives.pools import (
    MATCHED,
    MINED,
    ItemStatistics,
    PoolOf,
    make_pools,
    pool_of_scored,
    strata_of,
)
from msr_adapter.data.negatives.sampler import Slots
from msr_adapter.data.negatives.scored_items import read_hard_negatives, read_mined_negatives
from msr_adapter.data.splits import horizons
from msr_adapter.data.temporal import EVERYTHING, Horizon
from msr_adapter.errors import Problem, UserError, collecting, plural, raise_if_any

IMPRESSIONS = "impressions"
_STEPS = {
    "popularity": "Items that training never saw have no weight: ask for fewer, or set fallback: [uniform]",
    "popularity-matched": "Raise `pool`, ask for fewer, or set fallback: [uniform]",
    "same-category": "Ask for fewer, merge small categories, or set fallback: [popularity-matched, uniform]",
    "impressions": "Too little was shown beside them and not clicked: ask for fewer, or set fallback: [uniform]",
    MINED: "Raise `top` and `among`, ask for fewer, or set fallback: [popularity, uniform]",
    "hard": "Give every user a longer list, raise `pool`, ask for fewer, or set fallback: [popularity, uniform]",
}
"""Kind -> what to do where it gives too few."""


@dataclass(frozen=True)
class ListSpec:
    """How the lists of one split are made."""

    setting: str
    """Where the config says it, for messages."""
    negatives: NegativesConfig
    pools: Mapping[str, PoolOf] = field(default_factory=dict)
    """Kind -> what it draws from, for every kind that ``negatives`` names; `all` draws nothing."""
    twinless: Mask | None = None
    """Which items (items,) are told from their negatives by popularity (`popularity_strata`); None = this is no matter
    here."""
    horizon: Horizon = EVERYTHING
    """What the lists may know."""

    @property
    def excludes_seen(self) -> bool:
        """Whether nothing that the user has seen is a negative; else only the target is none."""
        return self.negatives.exclude != "target"

    @property
    def varies(self) -> bool:
        """Whether a list has as many negatives as its impression shows, up to `count`."""
        return self.negatives.kind == IMPRESSIONS

    @property
    def several(self) -> bool:
        """Whether all that was clicked in the target's impression is positive."""
        return IMPRESSIONS in self.negatives.kinds()

    @property
    def count(self) -> int:
        """Negatives of a list; 0 = as many as there are."""
        return sum(self.negatives.kinds().values())


ListSpecs = tuple[ListSpec, ListSpec, ListSpec]
"""Of training, validation and test: the split codes 0, 1, 2."""


def make_list_specs(
    protocol: ProtocolConfig, train: TrainNegativesConfig, log: Log, known: ItemStatistics, audit: Audit,
    mined: Path | None = None,
) -> ListSpecs:  # fmt: skip
    """Prepare the lists of training, validation and test. `UserError` with every problem of scores and categories.

    ``mined`` is the file (MINED) of what an earlier run's model scored, where training negatives are mined of it.
    Validation lists are made as test lists are, whatever the protocol: what is chosen on them is judged on those.
    """
    problems: list[Problem] = []
    specs: list[ListSpec] = []
    of_training, of_validation, of_test = horizons(log)
    wanted = [("train.negatives", train, of_training), ("evaluate.protocol.negatives", protocol.negatives, of_test)]
    for setting, negatives, horizon in wanted:
        with collecting(problems):
            specs.append(_list_spec(setting, negatives, log, known, audit, horizon))
    raise_if_any(problems)
    training, test = specs
    if train.mines:
        assert mined is not None, "negatives are to be mined, and nothing was"
        scored = read_mined_negatives(mined, train.top, log, audit, of_training)
        training = replace(training, pools={**training.pools, MINED: pool_of_scored(scored)})
    if of_validation is of_test:
        return training, test, test
    # What the two have in common has been said.
    return training, _list_spec(test.setting, protocol.negatives, log, known, Audit(), of_validation), test


def _list_spec(
    setting: str, negatives: NegativesConfig, log: Log, known: ItemStatistics, audit: Audit, horizon: Horizon
) -> ListSpec:
    known = replace(known, offered=horizon.items)
    negatives = negatives.settled("keep" if log.keeps else "first")
    kinds = (*negatives.kinds(), *negatives.fallback)
    if "same-category" in kinds and known.category.null_count() == len(known.category):
        step = "Give the table of items a category, or draw another kind"
        found = "same-category, but the source has no item categories"
        raise UserError(Problem("", setting, found, "a source with a category column", step))
    if IMPRESSIONS in kinds and log.impressions is None:
        step = ("Name the column in data.source.columns.clicked (0 = shown and not clicked) or the words in "
                "data.source.events.shown, or draw another kind")  # fmt: skip
        found = "impressions, but the source says of no row that an item was shown and not clicked"
        raise UserError(Problem("", setting, found, "kind: mind, or a table with such rows", step))
    hard = None
    if "hard" in kinds and negatives.scores is not None:
        hard = read_hard_negatives(negatives, log, audit, horizon)
    twinless = strata_of(negatives, known).twinless if MATCHED in negatives.kinds() else None
    return ListSpec(setting, negatives, make_pools(negatives, known, hard), twinless, horizon)


@dataclass
class Shortages:
    """Where a kind could not give its negatives."""

    fallbacks: dict[tuple[str, str], int] = field(default_factory=dict)
    """(kind, kind that stood in for it) -> negatives."""
    explicit: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Setting -> negatives that are what their users had rejected, and lists that have any."""
    short: dict[tuple[str, str], tuple[int, int, int]] = field(default_factory=dict)
    """(setting, kind) -> (negatives asked for, lists that got fewer, fewest that one of them got)."""

    def count_fallback(self, kinds: Sequence[str], instead_of: Codes, kind: str) -> None:
        """Count the negatives that ``kind`` filled in for each of ``kinds`` (by number)."""
        for code, number in zip(*np.unique(instead_of, return_counts=True), strict=True):
            key = kinds[code], kind
            self.fallbacks[key] = self.fallbacks.get(key, 0) + int(number)

    def count_explicit(self, setting: str, slots: Slots) -> None:
        """Count the slots of a chunk that are filled, which are of what was rejected as yet."""
        filled = slots.list_[slots.chosen >= 0]
        number, lists = self.explicit.get(setting, (0, 0))
        self.explicit[setting] = number + len(filled), lists + len(np.unique(filled))

    def count_short(self, setting: str, kinds: Mapping[str, int], kind_of: Rows, slots: Slots) -> None:
        """Count the lists of a chunk in which a kind left slots empty."""
        for code, (kind, count) in enumerate(kinds.items()):
            empty = slots.empty(kind_of == code)
            if not len(empty):
                continue
            lacking = np.unique(slots.list_[empty], return_counts=True)[1]
            _, lists, fewest = self.short.get((setting, kind), (count, 0, count))
            self.short[setting, kind] = count, lists + len(lacking), min(fewest, count - int(lacking.max()))

    def problems(self) -> list[Problem]:
        """Return one problem for each kind that left a list short."""
        return [
            Problem(
                "",
                setting,
                f"{kind}: {plural(count, 'negative')} asked for, too many for {plural(lists, 'list')} "
                f"(at worst, {fewest})",
                "items that the kind allows and the user has not interacted with",
                _STEPS.get(kind, "Ask for fewer, or keep more items"),
            )
            for (setting, kind), (count, lists, fewest) in self.short.items()
        ]
