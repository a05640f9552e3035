"""Ranking metrics over groups of candidates: NumPy only, exact under ties, per-user values first and means last.

A group is one user's candidate list with one positive or several. Scores and labels are flat arrays; group ``u`` is the
slice ``offsets[u]:offsets[u + 1]``, so lists may differ in length.

`catalogue`: the table of all metrics, and `evaluate_groups`, which computes those that rank
`groups`: what makes groups valid, and where a group's only positive stands
`ranking`: formulas for one positive; `ties`: for several, over tie blocks
`target_ranks`: the same from the targets' places alone, for rankings too long to keep
`pooled_auc`: the AUC over all users' candidates, and its parts by user
`calibration`: of the probabilities; `exposure`: of what the first k places show
`intervals`: intervals over users; `paired`: tests of differences
`crossed`: intervals and tests that cover users and trainings
"""

from msr_adapter.metrics.calibration import Calibration, calibrate
from msr_adapter.metrics.catalogue import (
    METRICS,
    RANKING,
    ExposureMetric,
    GroupMetrics,
    Judgement,
    MetricName,
    ProbabilityMetric,
    RankingMetric,
    evaluate_groups,
    label,
    largest_value,
    metric_row,
)
from msr_adapter.metrics.crossed import CrossedMean, crossed_difference, crossed_mean, holm, training_spread
from msr_adapter.metrics.exposure import Exposure, expose
from msr_adapter.metrics.intervals import difference_interval, mean_interval, metric_intervals, pooled_interval
from msr_adapter.metrics.paired import (
    ALPHA,
    POWER,
    ComparisonFamily,
    SignFlips,
    paired_values,
    sign_flips,
    smallest_difference,
    standard_error,
)
from msr_adapter.metrics.pooled_auc import pooled_auc, pooled_auc_per_user
from msr_adapter.metrics.target_ranks import MISSED, TargetRanks, values_at

__all__ = [
    "ALPHA",
    "METRICS",
    "MISSED",
    "POWER",
    "RANKING",
    "Calibration",
    "ComparisonFamily",
    "CrossedMean",
    "Exposure",
    "ExposureMetric",
    "GroupMetrics",
    "Judgement",
    "MetricName",
    "ProbabilityMetric",
    "RankingMetric",
    "SignFlips",
    "TargetRanks",
    "calibrate",
    "crossed_difference",
    "crossed_mean",
    "difference_interval",
    "evaluate_groups",
    "expose",
    "holm",
    "label",
    "largest_value",
    "mean_interval",
    "metric_intervals",
    "metric_row",
    "paired_values",
    "pooled_auc",
    "pooled_auc_per_user",
    "pooled_interval",
    "sign_flips",
    "smallest_difference",
    "standard_error",
    "training_spread",
    "values_at",
]
