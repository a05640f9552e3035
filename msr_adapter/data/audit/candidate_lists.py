"""The candidate lists: how many negatives a positive is set against, and where in its list the target stands."""

import numpy as np

from msr_adapter.data.audit.audited_data import AuditInputs
from msr_adapter.data.audit.report import Audit, Statistics
from msr_adapter.data.audit.thresholds import note
from msr_adapter.schema import SPLITS


def check_labels(e: AuditInputs, audit: Audit) -> Statistics:
    """Find training rows that are mostly negative; return positives and negatives per split. O(candidates)."""
    # Examples are sorted by split and candidates by example, so each split is one slice.
    cuts = np.searchsorted(e.candidates.example, np.searchsorted(e.examples.split, np.arange(len(SPLITS) + 1)))
    found: Statistics = {}
    for name, first, last in zip(SPLITS, cuts, cuts[1:], strict=False):
        positives = int(np.count_nonzero(e.candidates.label[first:last]))
        found[name] = {"positives": positives, "negatives": int(last - first) - positives}
    ratio = found["train"]["negatives"] / max(found["train"]["positives"], 1)
    note(audit, "label-balance", ratio,
         f"Training has {ratio:.1f} negatives per positive: a model learns to say No, and its probabilities are low. "
         "Rankings may be fine; for balanced answers lower train.negatives.")  # fmt: skip
    return found


def check_target_position(e: AuditInputs, audit: Audit) -> Statistics:
    """Find targets that do not stand anywhere in their lists with equal chance. O(sampled pairs).

    A place counts from 0 (first) to 1 (last), of several targets their mean; that of k uniform places of n, each once,
    has variance (n + 1) (n - k) / (12 k (n - 1)^2).
    """
    lists = e.lists
    if not len(lists):
        return {}
    sizes = np.diff(lists.offsets)
    targets = np.add.reduceat(lists.labels, lists.offsets[:-1])
    index = np.arange(len(lists.labels)) - np.repeat(lists.offsets[:-1], sizes)
    place = np.add.reduceat(index * lists.labels, lists.offsets[:-1]) / targets / (sizes - 1)
    variance = (sizes + 1) * (sizes - targets) / (12 * targets * (sizes - 1) ** 2)
    error = float(np.sqrt(variance.sum()) / len(sizes))
    off = abs(float(place.mean()) - 0.5) / error
    first = float(lists.labels[lists.offsets[:-1]].mean())
    note(audit, "target-position", off,
         f"The target comes first in its list for {first:.0%} of the test users "
         f"({float((targets / sizes).mean()):.0%} by chance). msr's metrics ignore the order, other tools may not: "
         "shuffle the lists before you import or export them.")  # fmt: skip
    return {"mean_place": float(place.mean()), "first": first, "standard_errors": off}
