"""The one entry: scores and labels in, every ranking metric of every user out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from msr_adapter.arrays import Floats, Integers, Mask
from msr_adapter.metrics import ranking, ties
from msr_adapter.metrics.groups import Groups, count_above, make_groups
from msr_adapter.metrics.pooled_auc import pooled_auc
from msr_adapter.metrics.ties import TieBlocks, tie_blocks

# With one positive Recall@k is HR@k and MAP@k is MRR@k; papers report either name.
_ONE_POSITIVE: dict[str, Callable[[Integers, Integers, int], Floats]] = {
    "hr": ranking.expected_hit_rate,
    "recall": ranking.expected_hit_rate,
    "precision": ranking.expected_precision,
    "mrr": ranking.expected_reciprocal_rank,
    "map": ranking.expected_reciprocal_rank,
    "ndcg": ranking.expected_ndcg,
}
_SEVERAL: dict[str, Callable[[TieBlocks, int], Floats]] = {
    "hr": ties.hit_rate,
    "recall": ties.recall,
    "precision": ties.precision,
    "mrr": ties.reciprocal_rank,
    "map": ties.average_precision,
    "ndcg": ties.ndcg,
}

METRICS: tuple[str, ...] = ("auc", "gauc", *_ONE_POSITIVE)
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
    """Candidates scored above the user's best-scored positive (users,)."""
    equal: Integers
    """Negatives tied with that positive (users,)."""
    groups: Groups
    blocks: TieBlocks | None = None
    """The tie blocks, where a user has several positives."""

    @property
    def ranks(self) -> Floats:
        """Expected rank of each user's best-ranked positive (users,), 1 = best."""
        return ranking.expected_rank(self.greater, self.equal) if self.blocks is None else ties.first_rank(self.blocks)

    @property
    def tied(self) -> Mask:
        """Whether a positive of the user ties with a negative (users,)."""
        if self.blocks is None:
            return self.equal > 0
        return self.blocks.per_group((self.blocks.size > self.blocks.relevant).astype(np.float64)) > 0

    def at(self, metric: str, k: int) -> Floats:
        """Return ``metric`` cut off at ``k`` of every user (users,), whatever was asked for before. O(users)."""
        if self.blocks is None:
            return _ONE_POSITIVE[metric](self.greater, self.equal, k)
        return _SEVERAL[metric](self.blocks, k)

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
    """Evaluate flat ``scores`` (n,) and 0/1 ``labels`` (n,) in groups ``offsets`` (users + 1,), each with positives.

    Ties have their exact expected value. ``threads`` serve the pooled AUC alone. With one positive a group O(n)
    without ``auc``; else O(n log n). Memory beside input and output is a few chunks. Raises ValueError on invalid
    groups (see `make_groups`), an unknown metric, k < 1, or a group without negatives when an AUC is asked for.
    """
    _check_names(metrics, k)
    groups = make_groups(scores, labels, offsets)
    if {"auc", "gauc"} & set(metrics) and (alone := int(np.count_nonzero(groups.sizes == groups.counts))):
        raise ValueError(f"{alone} groups have no negative, so they have no AUC")
    standing = _stand(groups)
    names, per_user = [], {}
    for metric in metrics:
        values = _per_user(metric, standing, k)
        per_user.update(values)
        names += list(values) or [metric]
    pooled = {"auc": pooled_auc(groups, threads)} if "auc" in metrics else {}
    unique = tuple(dict.fromkeys(names))
    return GroupMetrics(unique, per_user, pooled, standing.greater, standing.equal, groups, standing.blocks)


def _check_names(metrics: Sequence[str], k: Sequence[int]) -> None:
    if unknown := sorted(set(metrics) - set(METRICS)):
        raise ValueError(f"unknown metrics {unknown}; known: {list(METRICS)}")
    if any(depth < 1 for depth in k):
        raise ValueError(f"k {list(k)} must be at least 1")


def _stand(groups: Groups) -> GroupMetrics:
    """Find where the positives stand; no metric yet."""
    if groups.single:
        return GroupMetrics((), {}, {}, *count_above(groups), groups)
    blocks = tie_blocks(groups)
    equal = (blocks.size - blocks.relevant)[blocks.first]
    return GroupMetrics((), {}, {}, blocks.above[blocks.first], equal, groups, blocks)


def _per_user(metric: str, standing: GroupMetrics, k: Sequence[int]) -> dict[str, Floats]:
    if metric == "auc":
        return {}
    if metric == "gauc":
        return {"gauc": _user_auc(standing)}
    return {f"{metric}@{depth}": standing.at(metric, depth) for depth in k}


def _user_auc(standing: GroupMetrics) -> Floats:
    if standing.blocks is not None:
        return ties.auc(standing.blocks)
    return ranking.user_auc(standing.greater, standing.equal, standing.groups.sizes)


# What a ranking was found to be worth.


@dataclass(frozen=True)
class Judgement:
    """One model, judged on some users."""

    value: float
    """The metric; higher is better."""
    low: float
    """Lower end of its interval over users."""
    high: float
    """Upper end."""
    loss: float
    """Mean negative log-probability of the right answer, true items and others weighing the same."""
    users: int
    candidates: int
