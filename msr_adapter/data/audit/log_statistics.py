"""The log: its density, its degrees, its repeats, its timestamps."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from msr_adapter.arrays import Rows
from msr_adapter.data.audit.audited_data import AuditInputs
from msr_adapter.data.audit.report import Audit, Statistics
from msr_adapter.data.audit.thresholds import note
from msr_adapter.data.interaction_log import degree
from msr_adapter.heuristics import has_timestamps
from msr_adapter.schema import SPLITS

DAY_MS = 86_400_000
_SAMPLED = 1_000_000
"""Rows of the log that a share is estimated on: its standard error is below .0005."""
_SAME = {False: "an item of the same user", True: "an item of the same user at the same time"}
_POINTS = {"min": 0, "5%": 5, "25%": 25, "median": 50, "75%": 75, "95%": 95, "max": 100}


def check_log(e: AuditInputs, audit: Audit) -> Statistics:
    """Find repeats and rare items; return size, density and degrees. O(rows)."""
    user, item = e.log.counted()
    users, items, rows = len(e.log.users), len(e.log.items), len(user)
    per_user, per_item = degree(user, users), degree(item, items)
    rare = float((per_item < 5).mean())
    note(audit, "rare-items", rare,
         f"{rare:.0%} of the items have fewer than 5 interactions: behaviour says little about each. Raise "
         "data.k_core.items, or rely on titles and images.")  # fmt: skip
    repeated = audit.counts.get("interactions_dropped_duplicate", 0)
    share = repeated / max(audit.counts.get("interactions_read", 0), 1)
    note(audit, "repeated-pairs", share,
         f"{share:.0%} of the rows ({repeated:,}) repeat {_SAME[e.log.keeps]}; the earliest is kept."
         + ("" if e.log.keeps else " Set data.repeats: keep to predict repeated interactions."))  # fmt: skip
    return {
        "users": users, "items": items, "interactions": rows, "density": len(e.log.distinct()[0]) / (users * items),
        "per_user": quantiles(per_user), "per_item": quantiles(per_item), "rare_items": rare,
    }  # fmt: skip


def check_history(e: AuditInputs, audit: Audit) -> Statistics:
    """Find short histories and too few test users; return quantiles of the histories per split. O(examples)."""
    lengths = e.examples.end - e.examples.start
    found = {name: quantiles(lengths[e.examples.split == code]) for code, name in enumerate(SPLITS)}
    test = lengths[e.examples.split == 2]
    if len(test):
        # A share has its largest variance, a quarter, at one half.
        short, wide = float((test < 3).mean()), 1.96 * float(np.sqrt(0.25 / len(test)))
        note(audit, "short-history", short,
             f"{short:.0%} of the test users have fewer than 3 items of history: there is little to tell a preference "
             "from. Raise split.min_history or data.k_core.users.")  # fmt: skip
        note(audit, "few-test-users", wide,
             f"{len(test):,} test users: a hit rate is known to about ±{100 * wide:.0f} points. Test more users "
             "before you compare models that are close.")  # fmt: skip
    return found


def check_timestamps(e: AuditInputs, audit: Audit) -> Statistics:
    """Find logs without timestamps, dates without a time of day, and targets tied with the item before. O(rows)."""
    timestamps = has_timestamps(e.log.time)
    note(audit, "no-timestamps", not timestamps,
         "The log has no timestamps, only an order within each user: leakage in time and the recency heuristic are not "
         "measured. Give a timestamp column to measure them.")  # fmt: skip
    whole = _same_time_of_day(e.log.time, e.seed) if timestamps else 0.0
    target = e.test_targets
    before = target - 1  # of the same user: every example has a history
    if e.log.group is not None:  # the row before may be of the same impression, which is one choice
        before = e.examples.row(e.examples.end - 1)[e.examples.split == 2]
    tied = float((e.log.time[before] == e.log.time[target]).mean()) if len(target) else 0.0
    keeps = e.split.same_time == "keep"
    step = "Sort the file by when things happened, or set split.same_time: leave-out."
    note(
        audit,
        "whole-days",
        whole * keeps,
        f"The times are dates: the order within a day is that of the rows, not of events. {step}",
    )
    note(audit, "tied-times", tied * keeps,
         f"{tied:.1%} of the test targets have the same time as the item before them: the order of the rows decides "
         f"which one is predicted. {step}")  # fmt: skip
    audit.count("interactions_with_tied_time", _tied_rows(e))
    days = (int(e.log.time.max()) - int(e.log.time.min())) / DAY_MS if timestamps else None
    return {"timestamps": timestamps, "days": days, "tied_targets": tied, "at_one_time_of_day": whole}


def quantiles(values: NDArray[Any]) -> dict[str, float]:
    """Return mean and quantiles; nothing of nothing."""
    if not len(values):
        return {}
    found = dict(zip(_POINTS, np.percentile(values, list(_POINTS.values())).tolist(), strict=True))
    return {"mean": float(np.mean(values)), **found}


def _tied_rows(e: AuditInputs) -> int:
    """Count the rows at the time of the row before, of the same user; in parts, as the log may be huge."""
    tied = 0
    for begin in range(0, len(e.log.time) - 1, _SAMPLED):
        rows = slice(begin, begin + _SAMPLED + 1)  # one more, so that every pair of neighbours is in one part
        tied += int(((np.diff(e.log.user[rows]) == 0) & (np.diff(e.log.time[rows]) == 0)).sum())
    return tied


def _same_time_of_day(times: Rows, seed: int) -> float:
    """Return the share of times at the most frequent time of day: 1 for dates, of any zone; 0 for a single moment."""
    if len(times) > _SAMPLED:
        times = times[np.random.default_rng([seed, 6]).integers(0, len(times), _SAMPLED)]
    _, counts = np.unique(times % DAY_MS, return_counts=True)
    return float(counts.max() / len(times)) if len(times) > 1 and times.min() < times.max() else 0.0
