"""Who is trained on and who is tested on: the examples of a log, and what training may know."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from msr_adapter.config.models import Split
from msr_adapter.data.corpus import Log, Mask, Rows
from msr_adapter.data.hashing import seeded_order

SPLITS = ("train", "validation", "test")
"""Names of the split codes 0, 1, 2."""


@dataclass(frozen=True)
class Examples:
    """One row per (user, target), sorted by split, user, time; the number of a row is its example_id."""

    split: Rows
    """Index into `SPLITS`."""
    user: Rows
    target: Rows
    """Row of the log that is to be predicted."""
    start: Rows
    """First row of the log that is history; the history is rows start..target-1, oldest first."""

    def __len__(self) -> int:
        return len(self.user)


def make_examples(log: Log, split: Split, seed: int) -> Examples:
    """Return the examples of ``log``; users with too short a log give none. O(rows + users x targets)."""
    bounds = log.bounds()
    first, end = bounds[:-1], bounds[1:]
    parts: list[tuple[Rows, Rows, Rows]] = []
    longest = int((end - first).max(initial=0))
    for code, users, lag in _targets(log, split, seed, longest):
        target = end[users] - lag
        enough = target - first[users] >= split.min_history
        parts.append((np.full(int(enough.sum()), code), users[enough], target[enough]))
    codes, user, target = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((target, user, codes))
    codes, user, target = codes[order], user[order], target[order]
    return Examples(codes, user, target, np.maximum(first[user], target - split.max_history))


def known_to_training(log: Log, split: Split, examples: Examples, seed: int) -> Mask:
    """Return which rows of the log training may know of: popularity and baselines learn from nothing else.

    user-holdout: those of training users. leave-last-out: all but the validation and test targets.
    """
    if split.kind == "user-holdout":
        return np.asarray((user_parts(log, split, seed) == 0)[log.user])
    known = np.ones(len(log.user), dtype=bool)
    known[examples.target[examples.split > 0]] = False
    return known


def user_parts(log: Log, split: Split, seed: int) -> Rows:
    """Return each user's split code under user-holdout: shares of a seeded order of the users, rounded."""
    order = seeded_order(log.users.to_list(), seed, "split")
    cuts = np.floor(np.cumsum(split.fractions[:2]) * len(order) + 0.5).astype(np.int64)
    codes = np.empty(len(order), dtype=np.int64)
    codes[order] = np.searchsorted(cuts, np.arange(len(order)), side="right")
    return codes


def assert_no_leak(log: Log, examples: Examples) -> None:
    """Fail loudly on a bug: the history must end before the target, in the same user's log, which repeats no item."""
    assert len(np.unique(log.pair_keys())) == len(log.user), "a user has an item twice"
    assert bool((examples.start < examples.target).all()), "a history is empty"
    assert bool((log.user[examples.start] == log.user[examples.target]).all()), "a history is another user's"


def _targets(log: Log, split: Split, seed: int, longest: int) -> Iterator[tuple[int, Rows, int]]:
    """Yield (split code, users, lag): the target is the lag-th last row of each of the users."""
    lags = range(1, min(split.train_targets, longest) + 1)
    everyone = np.arange(len(log.users))
    if split.kind == "leave-last-out":
        yield 2, everyone, 1
        yield 1, everyone, 2
        yield from ((0, everyone, lag + 2) for lag in lags)
        return
    parts = user_parts(log, split, seed)
    yield from ((code, everyone[parts == code], 1) for code in (1, 2))
    yield from ((0, everyone[parts == 0], lag) for lag in lags)
