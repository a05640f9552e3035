"""What is known too early: later choices, in training and in filters; items that were not there, or never seen."""

import numpy as np

from msr_adapter.data.audit.audited_data import AuditInputs
from msr_adapter.data.audit.report import Audit, Statistics
from msr_adapter.data.audit.thresholds import note
from msr_adapter.data.interaction_log import first_times
from msr_adapter.errors import plural
from msr_adapter.heuristics import has_timestamps

_SAMPLED = 2_000_000

_WHY = {
    "user-holdout": "test users are not training users, but were active at the same time",
    "leave-last-out": "each user's log is cut at a different time",
    "column": "your split column does not follow time",
    "temporal": "the log has equal times on both sides of the date",
}


def check_time_leakage(e: AuditInputs, audit: Audit) -> Statistics:
    """Measure which share of what training knows is later than a test target; {} without timestamps.

    Any later interaction of another user tells what users were going to like: Ji, Sun, Zhang and Li, "A Critical Study
    on Data Leakage in Recommender System Offline Evaluation", TOIS 2023. Up to 2 million rows of the training log are
    looked at, drawn by seed. O(rows log rows) of those.
    """
    targets = e.log.time[e.test_targets]
    if not len(targets) or not has_timestamps(e.log.time):
        return {}
    if len(e.log.time) <= _SAMPLED:
        known = np.sort(e.log.time[e.training])
    else:
        rows = np.random.default_rng([e.seed, 7]).integers(0, len(e.log.time), _SAMPLED)
        known = np.sort(e.log.time[rows[e.training[rows]]])
    if not len(known):
        return {}
    later = 1 - np.searchsorted(known, targets, side="right") / len(known)
    mean = float(later.mean())
    note(audit, "time-leakage", mean,
         f"On average {mean:.0%} of the interactions that training knows are later than the choice that is tested: "
         f"{_WHY[e.split.kind]}. Fine for comparing models; for what a live system would reach, set split.kind: "
         "temporal.")  # fmt: skip
    return {"split": e.split.kind, "mean_share_later": mean, "median_share_later": float(np.median(later)),
            "tests_with_any": float((later > 0).mean()), "rows_looked_at": len(known)}  # fmt: skip


def check_filter_leakage(e: AuditInputs, audit: Audit) -> Statistics:
    """Tell how many users and items the filters kept or dropped only because of what is held out; {} without filters.

    What users go on to choose decides then which items there are: with k_core or limit.items, the popular ones of the
    test. `filters` has counted it, on the split as it is before they apply.
    """
    found = {f"{noun}_{what}": audit.counts[f"{noun}_{what}_by_held_out"]
             for noun in ("items", "users") for what in ("kept", "dropped")
             if f"{noun}_{what}_by_held_out" in audit.counts}  # fmt: skip
    if not found:
        return {}
    share = min(1.0, (found["items_kept"] + found["items_dropped"]) / len(e.log.items))
    note(audit, "filter-leakage", share,
         f"The filters also counted what is held out: {plural(found['items_kept'], 'item')} and "
         f"{plural(found['users_kept'], 'user')} are kept only because of it, {plural(found['items_dropped'], 'item')} "
         f"and {plural(found['users_dropped'], 'user')} dropped. The items that are left then hint at what is chosen. "
         "split.kind: temporal counts only what was known when training ends.")  # fmt: skip
    return {**found, "share_of_items": share}


def check_offer(e: AuditInputs, audit: Audit) -> Statistics:
    """Measure which share of the test negatives first appears after the choice tested. O(rows + sampled pairs)."""
    negatives = e.lists.labels == 0
    if not negatives.any() or not has_timestamps(e.log.time):
        return {}
    first = first_times(e.log) if e.log.first is None else e.log.first
    share = float((first[e.lists.items[negatives]] > e.lists.times[negatives]).mean())
    note(audit, "not-yet-on-offer", share,
         f"{share:.0%} of the test negatives first appear in the log after the choice that is tested: anything that "
         "knows what existed then can rule them out. split.kind: temporal draws only from what had "
         "appeared.")  # fmt: skip
    return {"negatives": share}


def check_cold_items(e: AuditInputs, audit: Audit) -> Statistics:
    """Measure how many test targets and negatives training never saw. O(sampled pairs + test examples)."""
    targets = e.log.item[e.test_targets]
    if not len(targets) or not e.training.any():
        return {}
    positive = float((e.popularity[targets] == 0).mean())
    negatives = e.lists.items[e.lists.labels == 0]
    negative = float((e.popularity[negatives] == 0).mean()) if len(negatives) else positive
    audit.count("test_targets_unseen_in_training", int((e.popularity[targets] == 0).sum()))
    # Where items are held out, that is what is asked for.
    note(audit, "cold-targets", positive if e.log.cold is None else 0.0,
         f"{positive:.1%} of the test targets were never seen in training: scorers that go by the id cannot find "
         "them, those that use title and image can. Raise data.k_core.items to leave them out, or keep them and "
         "look at them separately.")  # fmt: skip
    gap, least = negative - positive, "negatives" if negative > positive else "targets"
    note(audit, "cold-gap", abs(gap),
         f"Training never saw {negative:.0%} of the test negatives, but {positive:.0%} of the targets: being "
         f"unknown gives the {least} away. Raise data.k_core.items, or draw negatives with "
         "evaluate.protocol.negatives.kind: popularity-matched.")  # fmt: skip
    return {"targets": positive, "negatives": negative}
