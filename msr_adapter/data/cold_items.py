"""Items that training never hears of: held out with all of their interactions, to be found by what they are.

Their interactions are in no training or validation target, in no history, and in no count; they are not drawn as
negatives there. A test user's log ends with the last of them that the user chose, which is the target, among whatever
the protocol draws. What is left out of the log stays seen, so that it is never a negative.
"""

from dataclasses import replace

import numpy as np

from msr_adapter.arrays import Mask
from msr_adapter.config.schema import ColdItemsConfig, SplitConfig
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.examples import Examples
from msr_adapter.data.interaction_log import Log, degree
from msr_adapter.data.seen_pairs import SeenPairs, seen_beside
from msr_adapter.data.splits import row_splits, user_splits
from msr_adapter.data.temporal import split_bounds
from msr_adapter.errors import Problem, UserError, plural
from msr_adapter.schema import SPLITS
from msr_adapter.seeded_random import seeded_order

_FIELD = "evaluate.protocol.cold"
_TEST = SPLITS.index("test")


def hold_out(log: Log, split: SplitConfig, cold: ColdItemsConfig | None, seed: int, audit: Audit) -> Log:
    """Return the log as training and test may know it where items are held out; the log itself where none are.

    `UserError` where there is nothing to hold out. O(rows).
    """
    if cold is None:
        return log
    chosen = _new(log, split) if cold.kind == "new" else _drawn(log, cold, seed)
    mine = chosen[log.item]
    testable = np.flatnonzero(mine & _test_rows(log, split, seed) & (True if log.target is None else log.target))
    # The last of each user's: rows of a user stand together, in the order of time.
    last = np.append(np.diff(log.user[testable]) != 0, True)[: len(testable)]
    targets = testable[last]
    end = np.full(len(log.users), len(log.user))
    end[log.user[targets]] = targets
    after = np.arange(len(log.user)) > end[log.user]
    if split.kind == "column":  # rows of training stay, whatever their time
        after &= row_splits(log) > 0
    kept = ~mine & ~after
    kept[targets] = True
    audit.count("cold_items", int(chosen.sum()))
    audit.count("cold_interactions_left_out", int((mine & ~kept).sum()))
    audit.count("interactions_after_a_cold_target_left_out", int((after & ~mine).sum()))
    audit.find("info", f"Held out of training: {plural(int(chosen.sum()), 'item')} with all of "
               f"{plural(int(mine.sum()), 'interaction')}; {plural(len(targets), 'user')} may be tested on one of "
               "them. Metrics are of these targets alone.")  # fmt: skip
    return _without(log, kept, chosen)


def only_cold(log: Log, examples: Examples) -> Examples:
    """Return the examples whose test targets are held-out items; all of them where none are held out."""
    if log.cold is None:
        return examples
    return examples.keep((examples.split != _TEST) | log.cold[log.item[examples.target]])


def is_cold(log: Log) -> Mask:
    """Return which rows of the log are of a held-out item: nothing of training, also where their user is not tested."""
    return np.zeros(len(log.user), dtype=bool) if log.cold is None else log.cold[log.item]


def _drawn(log: Log, cold: ColdItemsConfig, seed: int) -> Mask:
    """Return the items (items,) that the seed draws among those that somebody interacted with."""
    there = np.flatnonzero(degree(log.item, len(log.items)) > 0)
    number = cold.items if cold.items is not None else round(cold.share * len(there))
    if not 0 < number < len(there):
        found = f"{plural(number, 'item')} of the {len(there):,} that have an interaction"
        raise UserError(Problem("", _FIELD, found, "at least one, and not all of them", "Change items or share"))
    chosen = np.zeros(len(log.items), dtype=bool)
    chosen[there[seeded_order(log.items.gather(there).to_list(), seed, "cold items")[:number]]] = True
    return chosen


def _new(log: Log, split: SplitConfig) -> Mask:
    """Return the items (items,) that first appear when training has ended."""
    if log.first is None:
        found = f"new, but split.kind is {split.kind}: nobody says when training ends"
        step = "Set split.kind: temporal, or draw the items (kind: drawn)"
        raise UserError(Problem("", f"{_FIELD}.kind", found, "split.kind: temporal", step))
    chosen = (degree(log.item, len(log.items)) > 0) & (log.first >= split_bounds(split)[0])
    if not chosen.any():
        found = "new, but no item first appears after training ends"
        step = "Set data.k_core.items: 1 without data.limit.items, which keep new items, or draw them (kind: drawn)"
        raise UserError(Problem("", f"{_FIELD}.kind", found, "", step))
    return chosen


def _test_rows(log: Log, split: SplitConfig, seed: int) -> Mask:
    """Return which rows may be test targets by the split."""
    if split.kind == "user-holdout":
        return np.asarray((user_splits(log, split, seed) == _TEST)[log.user])
    if split.kind == "temporal":
        _, begin, end = split_bounds(split)
        return np.asarray((log.time >= begin) & (log.time < end))
    if split.kind == "column":
        return np.asarray(row_splits(log) == _TEST)
    return np.ones(len(log.user), dtype=bool)


def _without(log: Log, kept: Mask, cold: Mask) -> Log:
    """Return the log of the rows ``kept``, with all of its users and items; what goes is seen."""
    split, era = (None if labels is None else labels[kept] for labels in (log.split, log.era))
    group = None if log.group is None else log.group[kept]
    target = None if log.target is None else log.target[kept]
    event = None if log.event is None else log.event[kept]
    shown = None if log.impressions is None else replace(log.impressions, block=log.impressions.block[kept])
    left = replace(log, user=log.user[kept], item=log.item[kept], time=log.time[kept], split=split, era=era,
                   group=group, target=target, event=event, impressions=shown, cold=cold, seen=None)  # fmt: skip
    return replace(left, seen=_seen(log, left, ~kept))


def _seen(log: Log, left: Log, gone: Mask) -> SeenPairs | None:
    """Return what was seen beside the log before, and the rows that are ``gone``."""
    seen = log.seen
    users = log.users if seen is None else seen.users
    of_log = np.arange(len(log.users), dtype=np.int32) if seen is None else seen.of_log
    parts = [(of_log[log.user[gone]], log.item[gone], None if log.era is None else log.era[gone])]
    if seen is not None:
        parts.append((seen.user, seen.item, seen.era))
    return seen_beside(left.pairs(), users, log.items, parts, may_be_rows=True)
