"""Repeated interactions, where they are kept: how many targets their users had before."""

import numpy as np

from msr_adapter.data.audit.audited_data import AuditInputs
from msr_adapter.data.audit.report import Audit, Statistics
from msr_adapter.data.audit.thresholds import note
from msr_adapter.data.interaction_log import first_of_pairs
from msr_adapter.schema import SPLITS

_EXAMPLES = 2**16
"""Examples whose histories are looked at together."""


def check_repeats(e: AuditInputs, audit: Audit) -> Statistics:
    """Count interactions and targets that repeat an earlier one; {} where repeats are left out. O(rows log rows).

    A target is a repeat if anything that its user had before it is the same item, whatever `max_history` cut off.
    """
    if not e.log.keeps:
        return {}
    repeated, again = _repeats(e), _as_the_last(e)
    rows = int(len(e.log.user) - first_of_pairs(e.log.user, e.log.item, len(e.log.items)).sum())
    audit.count("interactions_repeated", rows)
    found: Statistics = {"interactions": rows / max(len(e.log.user), 1)}
    for code, name in enumerate(SPLITS):
        mine = e.examples.split == code
        audit.count(f"{name}_targets_had_before", int(repeated[mine].sum()))
        if mine.any():
            found[name] = {"targets": float(repeated[mine].mean()), "as_the_last": float(again[mine].mean())}
    test = found.get("test", {"targets": 0.0, "as_the_last": 0.0})
    note(audit, "repeated-targets", test["targets"],
         f"{test['targets']:.0%} of the test targets are items that their user had before, {test['as_the_last']:.0%} "
         "the very last one. The baseline `repeat` is evaluated because of that, and the slice `repeat` separates "
         "these users from the others.")  # fmt: skip
    return found


def _repeats(e: AuditInputs) -> np.ndarray:
    """Return which examples' targets stand in what their user had before."""
    repeated = np.zeros(len(e.examples), dtype=bool)
    for begin in range(0, len(e.examples), _EXAMPLES):
        part = slice(begin, min(begin + _EXAMPLES, len(e.examples)))
        target = e.log.item[e.examples.target[part]]
        for offsets, rows in (e.examples.earlier(part), e.examples.histories(part)):
            owner = np.repeat(np.arange(len(target)), np.diff(offsets))
            repeated[begin + owner[e.log.item[rows] == target[owner]]] = True
    return repeated


def _as_the_last(e: AuditInputs) -> np.ndarray:
    """Return which examples' targets are the last item of the history."""
    last = e.examples.row(e.examples.end - 1)
    return np.asarray(e.log.item[last] == e.log.item[e.examples.target])
