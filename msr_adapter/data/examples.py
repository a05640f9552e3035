"""The examples of a log: one target each, and the history before it.

A history holds nothing but rows that stand before the target in the user's log, which is sorted by time; rows of equal
time stand in the order of the file. So of the target's own moment, what the file lists before it is history (unless
`split.same_time` leaves it out) and what it lists after it never is.

A history has no item twice and never its target's: where a published split repeats a pair, the target is the held-out
row, and the history has each other item at its first time. Only where `data.repeats` is keep, it may have both.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from msr_adapter.arrays import Codes, Floats, Labels, Mask, Rows, contains, first_at_least, ranges, user_blocks
from msr_adapter.config.schema import SplitConfig
from msr_adapter.data.choices import BesideTargets, Choices, TargetRows, choices_of
from msr_adapter.data.interaction_log import Log, degree, first_of_pairs
from msr_adapter.data.popular_items import most_popular
from msr_adapter.data.splits import row_splits, user_splits
from msr_adapter.data.temporal import split_bounds
from msr_adapter.history_window import HistoryWindow
from msr_adapter.schema import SPLITS

_BLOCK = 2**22
"""Rows that are sorted at a time."""
_EXAMPLES = 2**14
"""Examples whose histories are looked at together."""


@dataclass(frozen=True)
class Examples:
    """One row per (user, target), sorted by split, user, time; the number of a row is its example_id."""

    split: Labels
    """Index into `schema.SPLITS`."""
    user: Codes
    target: Rows
    """Row of the log that is to be predicted."""
    start: Rows
    """The history is the places start..end-1 of `sequence`, oldest first."""
    end: Rows
    sequence: Rows | None = None
    """The rows of the log that histories are cut from, one view after the other; None = the log itself."""
    first: Rows | None = None
    """Where the user's first place of `sequence` is: what stands before `start` is what `max_history` cut off; None =
    nothing was."""
    beside: BesideTargets | None = None
    """What was clicked in the target's impression before it; None = the log has no impressions."""

    def __len__(self) -> int:
        return len(self.user)

    @property
    def held_out(self) -> Rows:
        """Rows of the log that are validation or test targets, or were clicked beside one."""
        held_out = self.split > 0
        targets = self.target[held_out]
        return targets if self.beside is None else np.concatenate([targets, self.beside.keep(held_out).rows])

    def keep(self, kept: Mask) -> "Examples":
        """Return those that are ``kept`` (n,), numbered anew."""
        if kept.all():
            return self
        first = None if self.first is None else self.first[kept]
        beside = None if self.beside is None else self.beside.keep(kept)
        return Examples(self.split[kept], self.user[kept], self.target[kept], self.start[kept], self.end[kept],
                        self.sequence, first, beside)  # fmt: skip

    def beside_targets(self, log: Log, example: Floats, item: Floats) -> Mask:
        """Return which items (n,) were clicked beside the target of the example (n,); NaN is no example, no item."""
        found = np.zeros(len(item), dtype=bool)
        if self.beside is not None:
            known = np.isfinite(example) & np.isfinite(item)
            owner = np.repeat(np.arange(len(self)), self.beside.counts)
            keys = np.sort(owner * len(log.items) + log.item[self.beside.rows])
            found[known] = contains(keys, (example[known] * len(log.items) + item[known]).astype(np.int64))
        return found

    def row(self, place: Rows) -> Rows:
        """Return the rows of the log at ``place`` of the sequence."""
        return place if self.sequence is None else self.sequence[place]

    def histories(self, part: slice = slice(None)) -> tuple[Rows, Rows]:
        """Return (offsets (n + 1,), rows of the log) of the histories of a slice of examples."""
        return self._rows(self.start[part], self.end[part])

    def earlier(self, part: slice = slice(None)) -> tuple[Rows, Rows]:
        """Return (offsets (n + 1,), rows of the log) of what each user interacted with before the history."""
        start = self.start[part]
        return self._rows(start if self.first is None else self.first[part], start)

    def _rows(self, start: Rows, end: Rows) -> tuple[Rows, Rows]:
        length = end - start
        return np.concatenate([[0], np.cumsum(length)]), self.row(ranges(start, length))


@dataclass(frozen=True)
class View:
    """The rows of a log that examples may see, in their order; a place is a number among them."""

    rows: Rows | None
    """Rows of the log, ascending; None = all of them."""
    first: Rows
    """First place of each user (users,)."""
    end: Rows
    """One past the last place of each user (users,)."""
    choices: Choices | TargetRows | None = None
    """Which rows are one choice; None = each is one."""

    def __len__(self) -> int:
        return int(self.end[-1]) if len(self.end) else 0

    def row(self, place: Rows) -> Rows:
        """Return the rows of the log at ``place``."""
        return place if self.rows is None else self.rows[place]

    def times(self, log: Log) -> Rows:
        """Return the time of each place."""
        return log.time if self.rows is None else log.time[self.rows]

    def before(self, log: Log, moment: int) -> Rows:
        """Return for each user the place one past the last row before ``moment``."""
        return first_at_least(self.times(log), self.first, self.end, moment)

    def back(self, end: Rows, steps: int) -> Rows:
        """Return the place of the ``steps``-th last target before the places ``end`` of each user."""
        return end - steps if self.choices is None else self.choices.back(end, steps)

    def last(self, log: Log, wanted: Mask) -> tuple[Rows, Rows]:
        """Return the users that have a ``wanted`` row (of the log) in the view, and the place of their last one."""
        places = np.flatnonzero(wanted if self.rows is None else wanted[self.rows])
        user = log.user[self.row(places)]
        # The last row of all has no next one to differ from; without any row there is no such row either.
        is_last = np.append(user[1:] != user[:-1], True)[: len(user)]
        return user[is_last].astype(np.int64), places[is_last]


@dataclass(frozen=True)
class _Targets:
    """Targets of one split, at most one of each user."""

    split: int
    view: int
    """Number of the view that their histories are cut from."""
    users: Rows
    place: Rows
    """Place in the view of each user's target; before the user's first place where there is none."""


def make_examples(log: Log, split: SplitConfig, seed: int, target: str = "last", history_step: int = 1) -> Examples:
    """Return the examples of ``log``, cut by ``history_step``; too short logs give none. O(rows + users x targets)."""
    window = HistoryWindow(split.max_history, history_step)
    views = _views(log, split, target)
    offsets = np.concatenate([[0], np.cumsum([len(view) for view in views])])
    parts = [
        _cut(log, split, window, views[targets.view], int(offsets[targets.view]), targets)
        for targets in _targets(log, split, seed, views)
    ]
    codes, user, row, first, start, end, choice, place = (np.concatenate(part) for part in zip(*parts, strict=True))
    order = np.lexsort((row, user, codes))  # by the last key first; rows of a user are in the order of time
    rows = [view.rows for view in views if view.rows is not None]
    sequence = np.concatenate(rows) if rows else None
    made = Examples(codes[order], user[order], row[order], start[order], end[order], sequence, first[order])
    return made if log.group is None else replace(made, beside=_beside(log, made, choice[order], place[order]))


def _beside(log: Log, examples: Examples, choice: Rows, place: Rows) -> BesideTargets:
    """Return what of the places ``choice``..``place`` - 1 of the sequence is of the impression of the target."""
    assert log.group is not None
    owner = np.repeat(np.arange(len(place)), place - choice)
    rows = examples.row(ranges(choice, place - choice))
    mine = log.group[examples.target][owner]
    same = (log.group[rows] == mine) & (mine >= 0) & (log.item[rows] != log.item[examples.target][owner])
    same &= True if log.target is None else log.target[rows]
    counts = np.bincount(owner[same], minlength=len(place))
    return BesideTargets(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), rows[same])


def assert_no_leak(log: Log, examples: Examples) -> None:
    """Fail loudly on a bug: the history must end before the target, in the same user's log, and repeat no item.

    Items may be repeated where the log keeps that.

    Assertions, since no input should be able to cause any of it. Memory: one block of users, or of examples.
    """
    if log.repeats and not log.keeps:
        _assert_distinct_histories(log, examples)
    elif not log.repeats:
        for block in user_blocks(log.bounds(), _BLOCK):
            keys = np.sort(log.user[block].astype(np.int64) * len(log.items) + log.item[block])  # faster than unique
            assert bool((keys[1:] != keys[:-1]).all()), "a user has an item twice"
    assert bool((examples.start < examples.end).all()), "a history is empty"
    first, last = examples.row(examples.start), examples.row(examples.end - 1)
    assert bool((last < examples.target).all()), "a history reaches its target"
    assert bool((log.user[first] == log.user[examples.target]).all()), "a history is another user's"


def _assert_distinct_histories(log: Log, examples: Examples) -> None:
    for begin in range(0, len(examples), _EXAMPLES):
        part = slice(begin, begin + _EXAMPLES)
        parts = examples.earlier(part), examples.histories(part)
        targets = log.item[examples.target[part]]
        numbers = np.arange(len(targets))
        owner = np.concatenate([*(np.repeat(numbers, np.diff(offsets)) for offsets, _ in parts), numbers])
        items = np.concatenate([*(log.item[rows] for _, rows in parts), targets])
        keys = np.sort(owner * len(log.items) + items)
        assert bool((keys[1:] != keys[:-1]).all()), "a history has an item twice, or its target"


def _views(log: Log, split: SplitConfig, target: str) -> list[View]:
    """Return the rows that examples may see: one view for all splits, or more; under `column`, one for each split.

    There, training sees training rows, validation those and its own, test everything: whatever the order in time.
    """
    if split.kind == "temporal" and target == "most-popular-last":
        return _views_by_time(log, log.time < split_bounds(split)[0])
    popular = most_popular(log) if target == "most-popular-last" else None
    if split.kind != "column":
        return [_view(log, popular)]
    views = []
    for code in range(len(SPLITS)):
        allowed = row_splits(log) <= code
        allowed = allowed if popular is None else popular & allowed
        views.append(_view(log, _one_of_each(log, allowed, code) if log.repeats and not log.keeps else allowed))
    return views


def _views_by_time(log: Log, early: Mask) -> list[View]:
    """Return the view of training, then that of the other splits, of each user's most popular items.

    Training has the most popular ones of its own rows, and its rows alone say what is popular.
    """
    rows = np.flatnonzero(early)
    training = np.zeros(len(log.user), dtype=bool)
    training[rows] = most_popular(replace(log, user=log.user[rows], item=log.item[rows]))
    return [_view(log, training), _view(log, most_popular(log, counted=early))]


def _view(log: Log, allowed: Mask | None) -> View:
    """Return the rows that are ``allowed``; None = all."""
    if allowed is None:
        bounds = log.bounds()
        choices = _choices(log.user, log.group, log.target)
        return View(None, bounds[:-1], bounds[1:], choices)
    rows = np.flatnonzero(allowed)
    end = np.cumsum(degree(log.user[rows], len(log.users)))
    group = None if log.group is None else log.group[rows]
    choices = _choices(log.user[rows], group, None if log.target is None else log.target[rows])
    return View(rows, np.concatenate([[0], end[:-1]]), end, choices)


def _choices(user: Codes, group: Rows | None, target: Mask | None) -> Choices | TargetRows | None:
    choices = None if group is None else choices_of(user, group)
    return choices if target is None else TargetRows.of(target, choices)


def _one_of_each(log: Log, allowed: Mask, code: int) -> Mask:
    """Return one of the ``allowed`` rows for each pair: the first, but for the user's target in the split ``code``.

    The target of a held-out split is its last row, and no other row of the pair is left.
    """
    rows = np.flatnonzero(allowed)
    if code:
        users, places = _view(log, allowed).last(log, row_splits(log) == code)
        target = np.full(len(log.users), -1, dtype=np.int64)
        target[users] = rows[places]
        mine = target[log.user[rows]]
        rows = rows[(mine < 0) | (rows == mine) | (log.item[rows] != log.item[mine])]
    kept = np.zeros(len(log.user), dtype=bool)
    kept[rows[first_of_pairs(log.user[rows], log.item[rows], len(log.items))]] = True
    return kept


def _targets(log: Log, split: SplitConfig, seed: int, views: list[View]) -> Iterator[_Targets]:
    """Yield the targets of each split; a training user has one for each of the latest `train_targets` positions."""
    view, everyone = views[0], np.arange(len(log.users))
    # No user has more targets than rows, so a large `train_targets` makes no empty parts.
    longest = int((view.end - view.first).max(initial=0))
    lags = range(1, min(split.train_targets, longest) + 1)
    if split.kind == "leave-last-out":
        yield _Targets(2, 0, everyone, view.back(view.end, 1))
        yield _Targets(1, 0, everyone, view.back(view.end, 2))
        yield from (_Targets(0, 0, everyone, view.back(view.end, 2 + lag)) for lag in lags)
    elif split.kind == "user-holdout":
        codes = user_splits(log, split, seed)
        for code in (1, 2):
            yield _Targets(code, 0, everyone[codes == code], view.back(view.end, 1)[codes == code])
        yield from (_Targets(0, 0, everyone[codes == 0], view.back(view.end, lag)[codes == 0]) for lag in lags)
    elif split.kind == "temporal":
        bounds, last = split_bounds(split), len(views) - 1
        first = view.before(log, bounds[0])
        yield from (_Targets(0, 0, everyone, view.back(first, lag)) for lag in lags)
        moments = [views[last].before(log, moment) for moment in bounds]
        for code, begin, end in zip((1, 2), moments, moments[1:], strict=False):
            place = views[last].back(end, 1)
            yield _Targets(code, last, everyone[begin <= place], place[begin <= place])
    else:
        yield from (_Targets(0, 0, everyone, view.back(view.end, lag)) for lag in lags)
        yield from (_Targets(code, code, *views[code].last(log, row_splits(log) == code)) for code in (1, 2))


def _cut(
    log: Log, split: SplitConfig, window: HistoryWindow, view: View, offset: int, targets: _Targets
) -> tuple[Labels, Codes, Rows, Rows, Rows, Rows, Rows, Rows]:
    """Return (split, user, target row, first, start, end, begin of its choice, its place) of the targets that have
    enough history before them; a history ends before the choice.

    ``offset`` is where the rows of the view begin in the sequence of all views.
    """
    first = view.first[targets.users]
    there: Mask = targets.place >= first  # a lag may reach before the user's log, into another user's
    users, place, first = targets.users[there], targets.place[there], first[there]
    row = view.row(place)
    choice = place if view.choices is None else view.choices.start[place]
    end = choice
    if split.same_time == "leave-out":
        end = first_at_least(view.times(log), first, choice, log.time[row])
    enough = end - first >= split.min_history
    users, row, first, end = users[enough], row[enough], first[enough], end[enough]
    choice, place = choice[enough] + offset, place[enough] + offset
    start = first + window.left_out(end - first)
    split_of = np.full(len(users), targets.split, dtype=np.int8)
    return split_of, users.astype(np.int32), row, first + offset, start + offset, end + offset, choice, place
