"""The one entry: scores and labels in, every metric of every user out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from msr_adapter.metrics.groups import Groups, Integers, count_above, make_groups
from msr_adapter.metrics.pooled import pooled_auc
from msr_adapter.metrics.ranking import (
    Floats,
    expected_hit_rate,
    expected_ndcg,
    expected_rank,
    expected_reciprocal_rank,
    user_auc,
)

_AT_K: dict[str, Callable[[Integers, Integers, int], Floats]] = {
    "hr": expected_hit_rate,
    "recall": expected_hit_rate,  # the same number with one positive per user; papers report either name
    "mrr": expected_reciprocal_rank,
    "ndcg": expected_ndcg,
}

METRICS: tuple[str, ...] = ("auc", "gauc", *_AT_K)
"""``auc`` is pooled over users, ``gauc`` is the mean of per-user AUCs, the others are cut off at each k."""


@dataclass(frozen=True)
class GroupMetrics:
    """Metrics of one scorer, keyed ``auc``, ``gauc``, ``hr@5``, ..."""

    names: tuple[str, ...]
    """Keys in the order asked for."""
    per_user: dict[str, Floats]
    """Every metric but ``auc``, which no single user has: float64 (users,)."""
    pooled: dict[str, float]
    """``auc``, if asked for."""
    greater: Integers
    """Candidates scored above the positive (users,)."""
    equal: Integers
    """Negatives tied with the positive (users,)."""
    groups: Groups

    @property
    def ranks(self) -> Floats:
        """Expected rank of each user's positive (users,), 1 = best."""
        return expected_rank(self.greater, self.equal)

    def means(self) -> dict[str, float]:
        """Return metric -> mean over users (pooled value for ``auc``), in the order asked for."""
        return {
            name: self.pooled[name] if name in self.pooled else float(self.per_user[name].mean()) for name in self.names
        }


def evaluate_groups(
    scores: npt.ArrayLike,
    labels: npt.ArrayLike,
    offsets: npt.ArrayLike,
    metrics: Sequence[str] = METRICS,
    k: Sequence[int] = (3, 5, 10),
    *,
    threads: int | None = None,
) -> GroupMetrics:
    """Evaluate flat ``scores`` (n,) and 0/1 ``labels`` (n,) in groups ``offsets`` (users + 1,), one positive each.

    Ties have their exact expected value. ``threads`` serve the pooled AUC alone. O(n) without ``auc``, O(n log n)
    with it; memory beside input and output is a few chunks. Raises ValueError on invalid groups (see `make_groups`),
    an unknown metric, k < 1, or a group without negatives when an AUC is asked for.
    """
    _check_names(metrics, k)
    groups = make_groups(scores, labels, offsets)
    if {"auc", "gauc"} & set(metrics) and (alone := int(np.count_nonzero(groups.sizes == 1))):
        raise ValueError(f"{alone} groups have no negative, so they have no AUC")
    greater, equal = count_above(groups)
    names, per_user = [], {}
    for metric in metrics:
        values = _per_user(metric, groups, greater, equal, k)
        per_user.update(values)
        names += list(values) or [metric]
    pooled = {"auc": pooled_auc(groups, threads)} if "auc" in metrics else {}
    return GroupMetrics(tuple(dict.fromkeys(names)), per_user, pooled, greater, equal, groups)


def _check_names(metrics: Sequence[str], k: Sequence[int]) -> None:
    if unknown := sorted(set(metrics) - set(METRICS)):
        raise ValueError(f"unknown metrics {unknown}; known: {list(METRICS)}")
    if any(depth < 1 for depth in k):
        raise ValueError(f"k {list(k)} must be at least 1")


def _per_user(metric: str, groups: Groups, greater: Integers, equal: Integers, k: Sequence[int]) -> dict[str, Floats]:
    if metric == "auc":
        return {}
    if metric == "gauc":
        return {"gauc": user_auc(greater, equal, groups.sizes)}
    return {f"{metric}@{depth}": _AT_K[metric](greater, equal, depth) for depth in k}
