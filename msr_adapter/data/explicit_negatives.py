"""What users said no to, in the data: targets that are taken back, histories without it, negatives that begin with it.

The later word decides, and of a target's history and negatives only what was said before the target's own moment.
"""

from dataclasses import replace

import numpy as np

from msr_adapter.arrays import Codes, Labels, Mask, Rows
from msr_adapter.config.schema import SplitConfig
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.examples import Examples
from msr_adapter.data.history_rows import histories_of
from msr_adapter.data.interaction_log import Log
from msr_adapter.data.rejected_pairs import FOREVER
from msr_adapter.data.seen_pairs import SeenPairs, seen_beside
from msr_adapter.data.temporal import Horizon, split_bounds
from msr_adapter.errors import plural


def with_rejections(log: Log, audit: Audit) -> Log:
    """Return a log that nothing is dropped of any more, whose targets are not taken back later.

    Under a split by time, later is before the target's era ends: what follows changes nothing of it.
    """
    if log.rejected is None or log.target is None:
        return log
    rejected = log.rejected.among(log.users, log.items)
    back = log.target & rejected.at_end_of_eras(log.user, log.item, log.era)
    audit.count("targets_taken_back", int(back.sum()))
    audit.count("pairs_rejected", int(rejected.at_end_of_eras(rejected.user, rejected.item, None).sum()))
    if back.any():
        audit.find("info", f"{plural(int(back.sum()), 'interaction')} that could be a target, but for a negative event "
                   "of the same user and item later, is none.", "events")  # fmt: skip
    return replace(log, target=log.target & ~back, rejected=rejected)


def rejected_now(log: Log) -> Mask:
    """Return which rows are of an item that their user rejects when the log ends."""
    if log.rejected is None:
        return np.zeros(len(log.user), dtype=bool)
    return log.rejected.at_end_of_eras(log.user, log.item, None)


def seen_and_rejected(log: Log) -> SeenPairs | None:
    """Return what users have seen beside the log, and what they reject when it ends, also where that is a row."""
    seen, rejected = log.seen, log.rejected
    if rejected is None:
        return seen
    users = log.users if seen is None else seen.users
    of_log = np.arange(len(log.users), dtype=np.int32) if seen is None else seen.of_log
    now = rejected.end == FOREVER
    parts: list[tuple[Codes, Codes, Labels | None]] = [(of_log[rejected.user[now]], rejected.item[now], None)]
    if seen is not None:
        parts.append((seen.user, seen.item, seen.era))
    return seen_beside(log.pairs(), users, log.items, parts, may_be_rows=False)


def rejected_in_training(log: Log, split: SplitConfig, held_out: Rows) -> Mask:
    """Return which rows are of an item that their user rejects when what training knows of the user ends.

    That is the time of the first row of the user among ``held_out`` under leave-last-out, of the first held-out moment
    under a split by time, and else the end of the log.
    """
    if log.rejected is None:
        return np.zeros(len(log.user), dtype=bool)
    ends = np.full(len(log.users), FOREVER)
    if split.kind == "temporal":
        ends[:] = split_bounds(split)[0]
    elif split.kind == "leave-last-out":
        np.minimum.at(ends, log.user[held_out], log.time[held_out])
    return log.rejected.at(log.user, log.item, ends[log.user])


def without_rejected(log: Log, examples: Examples, split: SplitConfig, step: int, audit: Audit) -> Examples:
    """Return the examples without what their users had rejected by then in the histories.

    ``step`` is that of `HistoryWindow`. Where repeats are kept, a history is all that happened.
    """
    rejected = log.rejected
    if rejected is None or log.keeps:
        return examples
    left_out = 0

    def keeps(target: Rows, row: Rows) -> Mask:
        nonlocal left_out
        gone = rejected.at(log.user[row], log.item[row], log.time[target])
        left_out += int(gone.sum())
        return ~gone

    found = histories_of(log, examples, split, step, keeps)
    audit.count("history_items_left_out_rejected", left_out)
    audit.count("examples_dropped_history_rejected", len(examples) - len(found))
    return found


def explicit_negatives(log: Log, users: Codes, times: Rows, horizon: Horizon) -> tuple[Rows, Codes]:
    """Return (list, item) of what the users of lists had rejected by the times of their targets, the last first.

    Only items that the lists may have at all.
    """
    if log.rejected is None:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    list_, item = log.rejected.of(users, times)
    there = np.ones(len(item), dtype=bool) if horizon.items is None else horizon.items[item]
    if horizon.at_target and log.first is not None:
        there &= log.first[item] <= times[list_]
    return list_[there], item[there]
