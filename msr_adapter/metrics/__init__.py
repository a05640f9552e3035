"""Ranking metrics over groups of candidates: NumPy only, exact under ties, per-user values first and means last.

A group is one user's candidate list with one positive or several. Scores and labels are flat arrays; group ``u`` is the
slice ``offsets[u]:offsets[u + 1]``, so lists may differ in length.
"""

from msr_adapter.metrics.bootstrap import bootstrap, percentile_interval
from msr_adapter.metrics.calibration import Calibration, calibrate
from msr_adapter.metrics.catalogue import METRICS, GroupMetrics, Judgement, evaluate_groups
from msr_adapter.metrics.exposure import Exposure, expose
from msr_adapter.metrics.paired import (
    ALPHA,
    POWER,
    holm,
    paired_values,
    sign_flip_test,
    smallest_difference,
    standard_errors,
)
from msr_adapter.metrics.pooled_auc import pooled_auc, pooled_auc_per_user
from msr_adapter.metrics.ranking import expected_hit_rate, expected_rank

__all__ = [
    "ALPHA",
    "METRICS",
    "POWER",
    "Calibration",
    "Exposure",
    "GroupMetrics",
    "Judgement",
    "bootstrap",
    "calibrate",
    "evaluate_groups",
    "expected_hit_rate",
    "expected_rank",
    "expose",
    "holm",
    "paired_values",
    "percentile_interval",
    "pooled_auc",
    "pooled_auc_per_user",
    "sign_flip_test",
    "smallest_difference",
    "standard_errors",
]
