"""Intervals over users: how much would the numbers move with other users of the same kind?

One formula for all metrics, Wilson's score interval with an effective number of users. For hits it is Wilson's own
(1927). A mean of other values in [0, 1] varies less than a share of hits with that mean, by a factor that the users
tell: so the users count for more than their number, as interviews do in a survey (Kish, "Survey Sampling", 1965; Korn
and Graubard, 1998; Dean and Pagano, 2015). Such an interval stays inside the range, reaches further away from the edge
than towards it, and is never of zero width. No draws: equal values, equal interval. How often it covers the truth is
simulated by benchmarks/intervals.py.
"""

from collections.abc import Mapping
from statistics import NormalDist

import numpy as np

from msr_adapter.arrays import Floats
from msr_adapter.metrics.catalogue import GroupMetrics, largest_value

_UNSEEN = 0.1
"""Users' worth of spread that is added to what the users show: a few equal users do not prove that all are equal."""

Ends = tuple[float, float]


def metric_intervals(result: GroupMetrics, values: Mapping[str, Floats], level: float) -> dict[str, Ends]:
    """Return metric -> the ends of its interval at ``level`` (0.95 = 95%); ``values``: `paired.paired_values`."""
    positives = int(result.groups.counts.max())
    return {
        name: pooled_interval(values[name], level) if name in result.pooled
        else mean_interval(values[name], level, largest_value(name, positives))
        for name in result.names
    }  # fmt: skip


def mean_interval(values: Floats, level: float, most: float = 1.0) -> Ends:
    """Return the interval of the mean of ``values`` (users,) from 0 to ``most``: Wilson's where all are at the ends.

    One user tells as little as one hit. O(users) time.
    """
    mean = min(float(values.mean()) / most, 1.0)
    # No values between 0 and 1 vary more around their mean than hits do.
    low, high = _score_interval(mean, min(_variance(values / most), mean * (1 - mean)), len(values), level)
    return low * most, high * most


def pooled_interval(values: Floats, level: float) -> Ends:
    """Return the interval of the pooled AUC from its parts by user (users,), see `pooled_auc_per_user`."""
    return _score_interval(float(values.mean()), _variance(values), len(values), level)


def difference_interval(first: Floats, second: Floats, level: float) -> Ends:
    """Return the interval of the mean of ``first`` minus ``second`` (users,), the same users' values.

    What users gain and what they lose are two means with an interval each; those are put together (Zou and Donner,
    "Construction of confidence limits about effect measures", 2008). So even differences that few users have, all to
    one side, have an interval that reaches beyond what was seen. O(users) time.
    """
    gaps = first - second
    largest = float(np.abs(gaps).max()) or 1.0
    gains, losses = np.maximum(gaps, 0) / largest, np.maximum(-gaps, 0) / largest
    gain, loss = float(gains.mean()), float(losses.mean())
    gain_low, gain_high = mean_interval(gains, level)
    loss_low, loss_high = mean_interval(losses, level)
    spread = np.sqrt(_variance(gains) * _variance(losses))
    # No user both gains and loses.
    together = -gain * loss * len(gaps) / max(len(gaps) - 1, 1) / spread if spread > 0 else 0.0
    down = _combined(gain - gain_low, loss_high - loss, together)
    up = _combined(gain_high - gain, loss - loss_low, together)
    middle = gain - loss
    return (middle - down) * largest, (middle + up) * largest


def _combined(one: float, other: float, correlation: float) -> float:
    """Return the distance of a difference's limit from those of its two parts."""
    return float(np.sqrt(max(one * one - 2 * correlation * one * other + other * other, 0.0)))


def _score_interval(mean: float, variance: float, users: int, level: float) -> Ends:
    unseen, largest = _UNSEEN / users, max(mean * (1 - mean), 0.0)
    effective = users * (largest + unseen) / (variance + unseen)
    z = NormalDist().inv_cdf((1 + level) / 2)
    weight = z * z / effective
    centre = (mean + weight / 2) / (1 + weight)
    half = float(np.sqrt(weight * (largest + weight / 4))) / (1 + weight)
    return max(centre - half, 0.0), min(centre + half, 1.0)


def _variance(values: Floats) -> float:
    """Return the users' variance; of one user, the largest there can be."""
    return float(values.var(ddof=1)) if len(values) > 1 else 0.25
