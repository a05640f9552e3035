"""Ranking metrics over groups of candidates: NumPy only, exact under ties, per-user values first and means last.

A group is one user's candidate list with one positive. Scores and labels are flat arrays; group ``u`` is the slice
``offsets[u]:offsets[u + 1]``, so lists may differ in length.
"""

from msr_adapter.metrics.evaluation import METRICS, GroupMetrics, evaluate_groups
from msr_adapter.metrics.pooled import pooled_auc
from msr_adapter.metrics.ranking import expected_hit_rate, expected_rank
from msr_adapter.metrics.resampling import bootstrap, percentile_interval

__all__ = [
    "METRICS",
    "GroupMetrics",
    "bootstrap",
    "evaluate_groups",
    "expected_hit_rate",
    "expected_rank",
    "percentile_interval",
    "pooled_auc",
]
