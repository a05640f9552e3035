"""The table of all metrics, and the one entry to those that rank: scores and labels in, every user's metrics out.

Adding a metric is a row of `METRICS`, its name in `MetricName`, and its function: of the positive's place for one that
ranks, of `Calibration` or `Exposure` for the others.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from msr_adapter.arrays import Floats, Integers, Mask
from msr_adapter.metrics import ranking, ties
from msr_adapter.metrics.calibration import Calibration
from msr_adapter.metrics.exposure import Exposure
from msr_adapter.metrics.groups import Groups, Standing, count_above, make_groups
from msr_adapter.metrics.pooled_auc import pooled_auc
from msr_adapter.metrics.ties import TieBlocks, tie_blocks

MetricName = Literal[
    "auc", "gauc", "hr", "recall", "precision", "mrr", "map", "ndcg",
    "log_loss", "brier", "ece", "coverage", "gini", "popularity", "novelty",
]  # fmt: skip
"""What a protocol may ask for: the rows of `METRICS`."""


@dataclass(frozen=True)
class Metric:
    """One row: everything that is said about a metric anywhere."""

    name: MetricName
    label: str
    """As papers and the report write it."""
    better: Literal["higher", "lower", "neither"]
    at_k: bool
    """Whether it is cut off at each k of the protocol."""
    about: str
    """What it is, in one line; ``{k}`` stands for the cut-off."""


@dataclass(frozen=True)
class RankingMetric(Metric):
    """Of where the positives stand in their lists."""

    one: Callable[[Standing, int], Floats] | None = None
    """Its value for every user (users,) with one positive each."""
    several: Callable[[TieBlocks, int], Floats] | None = None
    """The same where a user may have several."""
    pooled: Callable[[Groups, int | None], float] | None = None
    """For a metric of all users' candidates together, which no single user has: instead of the two above."""
    needs_negatives: bool = False
    same_with_one_positive: MetricName | None = None
    """The metric that it equals where every user has one positive."""
    most: Callable[[int, int], float] = lambda k, positives: 1.0
    """The largest value that a user with so many positives can have."""


@dataclass(frozen=True)
class ProbabilityMetric(Metric):
    """Of whether the probabilities are true."""

    value: Callable[[Calibration], float]


@dataclass(frozen=True)
class ExposureMetric(Metric):
    """Of what the first k places show of the catalogue."""

    value: Callable[[Exposure], float | Floats]
    """One number, or one of each user, whose mean is reported."""


METRICS: tuple[RankingMetric | ProbabilityMetric | ExposureMetric, ...] = (
    RankingMetric(
        "auc", "AUC", "higher", False,
        "share of all pairs of a positive and a negative, of whichever users, that are in the right order",
        pooled=pooled_auc, needs_negatives=True,
    ),
    RankingMetric(
        "gauc", "GAUC", "higher", False,
        "mean over users of the share of the user's own pairs that are in the right order",
        lambda standing, k: ranking.user_auc(standing), lambda blocks, k: ties.auc(blocks), needs_negatives=True,
    ),
    RankingMetric(
        "hr", "HR", "higher", True, "share of users with a positive among the first {k}",
        ranking.hit_rate, ties.hit_rate,
    ),
    RankingMetric(
        "recall", "Recall", "higher", True, "share of a user's positives that is among the first {k}",
        ranking.hit_rate, ties.recall, same_with_one_positive="hr",
    ),
    RankingMetric(
        "precision", "Precision", "higher", True, "share of the first {k} places that hold a positive",
        ranking.precision, ties.precision, most=lambda k, positives: min(k, positives) / k,
    ),
    RankingMetric(
        "mrr", "MRR", "higher", True, "1 over the rank of the best-ranked positive, 0 beyond rank {k}",
        ranking.reciprocal_rank, ties.reciprocal_rank,
    ),
    RankingMetric(
        "map", "MAP", "higher", True, "mean precision at the ranks of the positives among the first {k}",
        ranking.reciprocal_rank, ties.average_precision, same_with_one_positive="mrr",
    ),
    RankingMetric(
        "ndcg", "NDCG", "higher", True, "positives among the first {k}, discounted by the logarithm of their ranks",
        ranking.ndcg, ties.ndcg,
    ),
    ProbabilityMetric(
        "log_loss", "Log loss", "lower", False, "mean negative logarithm of the probability of what happened",
        lambda found: found.log_loss,
    ),
    ProbabilityMetric(
        "brier", "Brier score", "lower", False, "mean squared distance of the probability from what happened",
        lambda found: found.brier,
    ),
    ProbabilityMetric(
        "ece", "Calibration error", "lower", False,
        "mean distance of the probability from the share of positives, in bins of equal width",
        lambda found: found.ece,
    ),
    ExposureMetric(
        "coverage", "Coverage", "higher", True, "share of the catalogue that reaches a top-{k}",
        lambda found: found.coverage,
    ),
    ExposureMetric(
        "gini", "Gini", "lower", True,
        "inequality of how often items reach a top-{k}: 0 all alike, 1 one item always",
        lambda found: found.gini,
    ),
    ExposureMetric(
        "popularity", "Popularity", "neither", True, "mean number of training interactions of a top-{k} item",
        lambda found: found.popularity,
    ),
    ExposureMetric(
        "novelty", "Novelty", "neither", True,
        "mean self-information of a top-{k} item in bits: rare items have more",
        lambda found: found.novelty,
    ),
)  # fmt: skip

_RANKING = {row.name: row for row in METRICS if isinstance(row, RankingMetric)}
RANKING: tuple[MetricName, ...] = tuple(_RANKING)
"""The metrics that rank, in their order."""


def metric_row(metric: str) -> Metric | None:
    """Return the row of ``hr`` or ``hr@5``; None for a name that is not in the table."""
    return next((row for row in METRICS if row.name == metric.partition("@")[0]), None)


def label(metric: str) -> str:
    """Return how papers write a metric: ``hr@5`` -> ``HR@5``; a name that is not in the table stays as it is."""
    row = metric_row(metric)
    return metric.replace(row.name, row.label, 1) if row else metric


def largest_value(metric: str, positives: int) -> float:
    """Return the largest value that a user with so many ``positives`` can have in a metric that ranks, as ``hr@5``."""
    row, depth = metric_row(metric), metric.partition("@")[2]
    return row.most(int(depth or 0), positives) if isinstance(row, RankingMetric) else 1.0


@dataclass(frozen=True)
class GroupMetrics:
    """Metrics of one scorer, keyed ``auc``, ``gauc``, ``hr@5``, ..."""

    names: tuple[str, ...]
    """Keys in the order asked for."""
    per_user: dict[str, Floats]
    """Every metric that a single user has: float64 (users,)."""
    pooled: dict[str, float]
    """Those of all users together: ``auc``, if asked for."""
    groups: Groups
    standing: Standing
    """Where each user's best-scored positive stands."""
    blocks: TieBlocks | None = None
    """The tie blocks, where a user has several positives."""

    @property
    def greater(self) -> Integers:
        """Candidates scored above the user's best-scored positive (users,)."""
        return self.standing.greater

    @property
    def equal(self) -> Integers:
        """Negatives tied with that positive (users,)."""
        return self.standing.equal

    @property
    def ranks(self) -> Floats:
        """Expected rank of each user's best-ranked positive (users,), 1 = best."""
        return ranking.expected_rank(self.standing) if self.blocks is None else ties.first_rank(self.blocks)

    @property
    def tied(self) -> Mask:
        """Whether a positive of the user ties with a negative (users,)."""
        if self.blocks is None:
            return self.equal > 0
        return self.blocks.per_group((self.blocks.size > self.blocks.relevant).astype(np.float64)) > 0

    def at(self, metric: str, k: int = 0) -> Floats:
        """Return ``metric`` cut off at ``k`` of every user (users,), whatever was asked for before. O(users).

        Raises KeyError on a name that is no metric of single users.
        """
        row = _RANKING[metric]  # type: ignore[index]
        if row.one is None or row.several is None:
            raise KeyError(metric)
        return row.one(self.standing, k) if self.blocks is None else row.several(self.blocks, k)

    def means(self) -> dict[str, float]:
        """Return metric -> mean over users (the pooled value where there is one), in the order asked for."""
        return {
            name: self.pooled[name] if name in self.pooled else float(self.per_user[name].mean()) for name in self.names
        }


def evaluate_groups(
    scores: npt.ArrayLike,
    labels: npt.ArrayLike,
    offsets: npt.ArrayLike,
    metrics: Sequence[str] = RANKING,
    k: Sequence[int] = (3, 5, 10),
    *,
    threads: int | None = None,
) -> GroupMetrics:
    """Evaluate flat ``scores`` (n,) and 0/1 ``labels`` (n,) in groups ``offsets`` (users + 1,), each with positives.

    Ties have their exact expected value. ``threads`` serve the pooled AUC alone. With one positive a group O(n)
    without ``auc``; else O(n log n). Memory beside input and output is a few chunks. Raises ValueError on invalid
    groups (see `make_groups`), an unknown metric, k < 1, or a group without negatives when an AUC is asked for.
    """
    if unknown := sorted(set(metrics) - set(_RANKING)):
        raise ValueError(f"unknown metrics {unknown}; known: {list(_RANKING)}")
    if any(depth < 1 for depth in k):
        raise ValueError(f"k {list(k)} must be at least 1")
    rows = [row for row in map(metric_row, metrics) if isinstance(row, RankingMetric)]
    groups = make_groups(scores, labels, offsets)
    needed = any(row.needs_negatives for row in rows)
    if needed and (alone := int(np.count_nonzero(groups.sizes == groups.counts))):
        raise ValueError(f"{alone} groups have no negative, so they have no AUC")
    places = _stand(groups)
    names: list[str] = []
    pooled: dict[str, float] = {}
    per_user: dict[str, Floats] = {}
    for row in rows:
        keys = {f"{row.name}@{depth}": depth for depth in k} if row.at_k else {row.name: 0}
        names += keys
        if row.pooled is not None:
            pooled[row.name] = row.pooled(groups, threads)
        else:
            per_user |= {key: places.at(row.name, depth) for key, depth in keys.items()}
    return GroupMetrics(tuple(dict.fromkeys(names)), per_user, pooled, groups, places.standing, places.blocks)


def _stand(groups: Groups) -> GroupMetrics:
    """Find where the positives stand; no metric yet."""
    if groups.single:  # two counts per user are enough: nothing is sorted
        return GroupMetrics((), {}, {}, groups, count_above(groups))
    blocks = tie_blocks(groups)
    best = blocks.first
    standing = Standing(blocks.above[best], (blocks.size - blocks.relevant)[best], blocks.sizes)
    return GroupMetrics((), {}, {}, groups, standing, blocks)


@dataclass(frozen=True)
class Judgement:
    """What a ranking was found to be worth: one model, judged on some users."""

    value: float
    """The metric; higher is better."""
    low: float
    """Lower end of its interval over users."""
    high: float
    """Upper end."""
    loss: float
    """Mean negative log-probability of the right answer, positives and negatives weighing the same."""
    users: int
    candidates: int
    error: float = 0.0
    """Standard error of the metric over users."""
