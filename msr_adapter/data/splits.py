"""Who is trained on and who is tested on: the examples of a log, and what training may know.

A history holds nothing but rows that stand before the target in the user's log, which is sorted by time; rows of equal
time stand in the order of the file. So of the target's own moment, what the file lists before it is history (unless
`split.same_time` leaves it out) and what it lists after it never is.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from msr_adapter.arrays import Codes, Labels, Mask, Rows, first_at_least, ranges, user_blocks
from msr_adapter.config.schema import SplitConfig
from msr_adapter.config.schema.data import milliseconds
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.examples import View, view_of
from msr_adapter.data.log import Log
from msr_adapter.data.seeded_random import seeded_order
from msr_adapter.errors import Problem
from msr_adapter.heuristics import has_clock

SPLITS = ("train", "validation", "test")
"""Names of the split codes 0, 1, 2."""

_BLOCK = 2**22
"""Rows that are sorted at a time."""


@dataclass(frozen=True)
class Examples:
    """One row per (user, target), sorted by split, user, time; the number of a row is its example_id."""

    split: Labels
    """Index into `SPLITS`."""
    user: Codes
    target: Rows
    """Row of the log that is to be predicted."""
    start: Rows
    """The history is the places start..end-1 of `sequence`, oldest first."""
    end: Rows
    sequence: Rows | None = None
    """The rows of the log that histories are taken from, one view after the other; None = the log itself."""

    def __len__(self) -> int:
        return len(self.user)

    def row(self, place: Rows) -> Rows:
        """Return the rows of the log at ``place`` of the sequence."""
        return place if self.sequence is None else self.sequence[place]

    def histories(self, part: slice = slice(None)) -> tuple[Rows, Rows]:
        """Return (offsets (n + 1,), rows of the log) of the histories of a slice of examples."""
        start, length = self.start[part], (self.end - self.start)[part]
        return np.concatenate([[0], np.cumsum(length)]), self.row(ranges(start, length))


def make_examples(log: Log, split: SplitConfig, seed: int, target: str = "last") -> Examples:
    """Return the examples of ``log``; users with too short a log give none. O(rows + users x targets)."""
    views = _views(log, split, target)
    offsets = np.concatenate([[0], np.cumsum([len(view) for view in views])])
    parts = [
        _cut(log, split, code, views[which], int(offsets[which]), users, place)
        for code, which, users, place in _targets(log, split, seed, views)
    ]
    codes, user, row, start, end = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((row, user, codes))
    rows = [view.rows for view in views if view.rows is not None]
    sequence = np.concatenate(rows) if rows else None
    return Examples(codes[order], user[order], row[order], start[order], end[order], sequence)


def known_to_training(log: Log, split: SplitConfig, examples: Examples, seed: int) -> Mask:
    """Return which rows of the log training may know of: popularity and baselines learn from nothing else.

    user-holdout: those of training users. leave-last-out: all but the validation and test targets. temporal: those
    before the first held-out moment. column: those of the training rows.
    """
    if split.kind == "user-holdout":
        return np.asarray((user_parts(log, split, seed) == 0)[log.user])
    if split.kind == "temporal":
        return np.asarray(log.time < _moments(split)[0])
    if split.kind == "column":
        return np.asarray(parts_of(log) == 0)
    known = np.ones(len(log.user), dtype=bool)
    known[examples.target[examples.split > 0]] = False
    return known


def user_parts(log: Log, split: SplitConfig, seed: int) -> Rows:
    """Return each user's split code under user-holdout: shares of a seeded order of the users, rounded."""
    order = seeded_order(log.users.to_list(), seed, "split")
    cuts = np.floor(np.cumsum(split.fractions[:2]) * len(order) + 0.5).astype(np.int64)
    codes = np.empty(len(order), dtype=np.int64)
    codes[order] = np.searchsorted(cuts, np.arange(len(order)), side="right")
    return codes


def parts_of(log: Log) -> Labels:
    """Return each row's split code as the source says; a log without them is a bug (`columns.check_split_column`)."""
    assert log.part is not None, "the source says no split"
    return log.part


def assert_no_leak(log: Log, examples: Examples) -> None:
    """Fail loudly on a bug: the history must end before the target, in the same user's log, which repeats no item."""
    for block in user_blocks(log.bounds(), _BLOCK):
        keys = np.sort(log.user[block].astype(np.int64) * len(log.items) + log.item[block])  # far faster than unique
        assert bool((keys[1:] != keys[:-1]).all()), "a user has an item twice"
    assert bool((examples.start < examples.end).all()), "a history is empty"
    first, last = examples.row(examples.start), examples.row(examples.end - 1)
    assert bool((last < examples.target).all()), "a history reaches its target"
    assert bool((log.user[first] == log.user[examples.target]).all()), "a history is another user's"


def _views(log: Log, split: SplitConfig, target: str) -> list[View]:
    """Return the rows that examples may see: one view for all splits; under `column`, one for each split code.

    There, training sees training rows, validation those and its own, test everything: whatever the order in time.
    """
    if split.kind == "column":
        return [view_of(log, target, parts_of(log) <= code) for code in range(3)]
    return [view_of(log, target)]


def _targets(log: Log, split: SplitConfig, seed: int, views: list[View]) -> Iterator[tuple[int, int, Rows, Rows]]:
    """Yield (split code, number of the view, users, place in the view of a target of each of them)."""
    view, everyone = views[0], np.arange(len(log.users))
    longest = int((view.end - view.first).max(initial=0))
    lags = range(1, min(split.train_targets, longest) + 1)
    if split.kind == "leave-last-out":
        yield 2, 0, everyone, view.end - 1
        yield 1, 0, everyone, view.end - 2
        yield from ((0, 0, everyone, view.end - 2 - lag) for lag in lags)
    elif split.kind == "user-holdout":
        parts = user_parts(log, split, seed)
        for code in (1, 2):
            yield code, 0, everyone[parts == code], view.end[parts == code] - 1
        yield from ((0, 0, everyone[parts == 0], view.end[parts == 0] - lag) for lag in lags)
    elif split.kind == "temporal":
        first, *held_out = (view.before(log, moment) for moment in _moments(split))
        yield from ((0, 0, everyone, first - lag) for lag in lags)
        for code, (begin, end) in zip((1, 2), ((first, held_out[0]), (held_out[0], held_out[1])), strict=True):
            yield code, 0, everyone[begin < end], end[begin < end] - 1
    else:
        yield from ((0, 0, everyone, view.end - lag) for lag in lags)
        yield from ((code, code, *views[code].last(log, parts_of(log) == code)) for code in (1, 2))


def _moments(split: SplitConfig) -> tuple[int, int, int]:
    """Return where validation, test and what is never predicted begin; without validation, its time is empty."""
    forever = np.iinfo(np.int64).max
    test = milliseconds(split.test_from or 0)
    validation = test if split.validation_from is None else milliseconds(split.validation_from)
    return validation, test, forever if split.until is None else milliseconds(split.until)


def _cut(
    log: Log, split: SplitConfig, code: int, view: View, offset: int, users: Rows, place: Rows
) -> tuple[Labels, Codes, Rows, Rows, Rows]:
    """Return (split code, user, target row, start, end) of the targets that have enough history before them."""
    first = view.first[users]
    there: Mask = place >= first
    users, place, first = users[there], place[there], first[there]
    row = view.row(place)
    end = place
    if split.same_time == "leave-out":
        end = first_at_least(log.time if view.rows is None else log.time[view.rows], first, place, log.time[row])
    enough = end - first >= split.min_history
    users, row, first, end = users[enough], row[enough], first[enough], end[enough]
    start = np.maximum(first, end - split.max_history)
    return np.full(len(users), code, dtype=np.int8), users.astype(np.int32), row, start + offset, end + offset


# A split without an example: what it asks for, what the log has instead, and the way out.


def empty_splits(log: Log, split: SplitConfig, examples: Examples, audit: Audit) -> list[Problem]:
    """Return a problem for an empty training or test split that was not asked to be empty; note the others."""
    problems = list(_lacking(log, split, examples, audit))
    if problems and split.kind == "temporal" and not has_clock(log.time):
        return [_no_clock()]
    return problems


def _lacking(log: Log, split: SplitConfig, examples: Examples, audit: Audit) -> Iterator[Problem]:
    for code, name in enumerate(SPLITS):
        if (examples.split == code).any():
            continue
        if split.kind == "user-holdout" and split.fractions[code] == 0:
            audit.find("info", f"split.fractions leaves no user to {name}, as configured.")
        elif split.kind == "temporal" and name == "validation" and split.validation_from is None:
            audit.find("info", "Without split.validation_from there is no validation, as configured.")
        elif name == "validation" and len(examples):
            audit.find("warning", f"No validation example: {_needs(log, split, code)}. {_step(split)} to have one.")
        else:
            found = f"no {name} example from {_some(len(log.users), 'user')} with {_some(len(log.user), 'interaction')}"
            yield Problem("", "split", found + _dropped(audit), _needs(log, split, code), _step(split))


def _needs(log: Log, split: SplitConfig, code: int) -> str:
    if split.kind == "temporal":
        bounds = ((None, split.validation_from or split.test_from), (split.validation_from, split.test_from),
                  (split.test_from, split.until))[code]  # fmt: skip
        words = [f"{word} {moment}" for word, moment in zip(("from", "before"), bounds, strict=True) if moment]
        first, last = np.array([log.time.min(), log.time.max()]).astype("datetime64[ms]").astype("datetime64[s]")
        return (f"temporal takes one from an interaction {' and '.join(words)} with {split.min_history} before it; "
                f"the log is of {first} to {last}")  # fmt: skip
    if split.kind == "column":
        rows = _some(int((parts_of(log) == code).sum()), "row")
        return f"column takes one from a row that says {SPLITS[code]} with {split.min_history} before it; {rows} say so"
    least = split.min_history + (3 - code if split.kind == "leave-last-out" else 1)
    takes = f"takes one from a log of at least {least} interactions"
    if split.kind == "leave-last-out":
        return f"leave-last-out {takes}"
    return f"user-holdout gives {SPLITS[code]} {split.fractions[code]:.0%} of the users and {takes}"


def _step(split: SplitConfig) -> str:
    first = {
        "temporal": "Move the dates",
        "column": "Say so in more rows",
        "user-holdout": "Keep more users, change split.fractions",
        "leave-last-out": "Keep longer logs",
    }[split.kind]
    others = ["keep longer logs"] if split.kind != "leave-last-out" else []
    others += ["lower split.min_history"] if split.min_history > 1 else []
    return ", or ".join([first, *others])


def _no_clock() -> Problem:
    found = "temporal, but the log has no clock: its times are positions or row numbers"
    step = "Name a column of times in data.source.columns.timestamp, or choose another split.kind"
    return Problem("", "split.kind", found, "times of a clock that all users share", step)


def _dropped(audit: Audit) -> str:
    """Say what was dropped before: a log that shrank on the way here has its cause there."""
    prefix = "interactions_dropped_"
    reasons = [f"{name.removeprefix(prefix).replace('_', ' ')} {number:,}" for name, number in audit.counts.items()
               if name.startswith(prefix) and number]  # fmt: skip
    return f" (of {audit.counts['interactions_read']:,}; dropped: {', '.join(reasons)})" if reasons else ""


def _some(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
