"""Intervals over users: hand-worked and published values, an independent formula, the edges, and coverage."""

import importlib.util
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from msr_adapter.metrics import (
    difference_interval,
    evaluate_groups,
    mean_interval,
    metric_intervals,
    paired_values,
    pooled_interval,
)
from tests.support.paths import ROOT

shares = st.lists(st.floats(0, 1), min_size=1, max_size=40).map(np.array)


def _hits(hits: int, users: int) -> np.ndarray:
    return np.repeat([1.0, 0.0], [hits, users - hits])


@pytest.mark.parametrize(("hits", "users"), [(0, 20), (1, 30), (15, 148), (81, 263), (29, 29), (1, 1), (0, 1)])
def test_hits_have_wilsons_interval(hits: int, users: int) -> None:
    expected = stats.binomtest(hits, users).proportion_ci(0.95, method="wilson")
    assert mean_interval(_hits(hits, users), 0.95) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilsons_interval_as_published() -> None:
    # Newcombe, "Two-sided confidence intervals for the single proportion", 1998, table I, method 3
    assert mean_interval(_hits(81, 263), 0.95) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert mean_interval(_hits(0, 20), 0.95) == pytest.approx((0, 0.1611), abs=5e-5)


def test_a_metric_whose_largest_value_is_a_fifth_has_the_interval_of_its_hits() -> None:
    scores, labels = np.random.default_rng(0).standard_normal(40 * 8), np.tile(np.eye(8, dtype=np.int8)[0], 40)
    result = evaluate_groups(scores, labels, np.arange(41) * 8, ("hr", "precision", "recall", "map"), (1, 5))
    ends = metric_intervals(result, paired_values(result), 0.95)
    assert ends["precision@5"] == pytest.approx(tuple(end / 5 for end in ends["hr@5"]))
    assert ends["recall@5"] == ends["hr@5"]
    assert ends["map@1"] == ends["hr@1"]
    two = evaluate_groups(scores, np.tile([1, 1, 0, 0, 0, 0, 0, 0], 40), np.arange(41) * 8, ("precision",), (5,))
    low, high = metric_intervals(two, paired_values(two), 0.95)["precision@5"]
    assert low < two.means()["precision@5"] < high < 0.4


def test_many_users_have_the_interval_of_the_normal_distribution() -> None:
    values = np.random.default_rng(1).beta(2, 3, 20_000)
    error = values.std(ddof=1) / np.sqrt(20_000)
    expected = (values.mean() - 1.96 * error, values.mean() + 1.96 * error)
    assert mean_interval(values, 0.95) == pytest.approx(expected, abs=2e-5)
    assert mean_interval(values, 0.5)[0] > mean_interval(values, 0.95)[0]


@given(shares)
def test_an_interval_holds_the_mean_lies_inside_the_range_and_has_a_width(values: np.ndarray) -> None:
    low, high = mean_interval(values, 0.95)
    assert 0 <= low <= values.mean() + 1e-9
    assert values.mean() - 1e-9 <= high <= 1
    assert high - low > 1e-4
    # Nothing tells the two ends of the range apart.
    assert mean_interval(1 - values, 0.95) == pytest.approx((1 - high, 1 - low), abs=1e-9)


@given(shares, st.integers(0, 2**32 - 1))
def test_a_difference_holds_its_mean_has_a_width_and_a_mirror(first: np.ndarray, seed: int) -> None:
    second = np.random.default_rng(seed).random(len(first))
    low, high = difference_interval(first, second, 0.95)
    mean = first.mean() - second.mean()
    assert -1 - 1e-9 <= low <= mean + 1e-9
    assert mean - 1e-9 <= high <= 1 + 1e-9
    assert high > low
    assert difference_interval(second, first, 0.95) == pytest.approx((-high, -low))
    same = difference_interval(first, first, 0.95)
    assert same[0] == -same[1] < 0


def test_a_difference_between_hits_is_as_wide_as_its_parts_say() -> None:
    # 20 users: 6 gain a hit, 1 loses one. From Wilson's intervals of 6/20 and 1/20 and their correlation.
    first, second = np.repeat([1.0, 0.0, 1.0], [6, 1, 13]), np.repeat([0.0, 1.0, 1.0], [6, 1, 13])
    gain, loss = (stats.binomtest(count, 20).proportion_ci(0.95, method="wilson") for count in (6, 1))
    correlation = np.corrcoef(first > second, second > first)[0, 1]

    def joined(one: float, other: float) -> float:
        return float(np.sqrt(one**2 - 2 * correlation * one * other + other**2))

    expected = (0.25 - joined(0.3 - gain.low, loss.high - 0.05), 0.25 + joined(gain.high - 0.3, 0.05 - loss.low))
    assert difference_interval(first, second, 0.95) == pytest.approx(expected, abs=1e-9)


def test_many_users_differences_have_the_interval_of_the_normal_distribution() -> None:
    generator = np.random.default_rng(2)
    first = generator.beta(2, 3, 20_000)
    second = np.clip(first + 0.1 * generator.standard_normal(20_000) - 0.02, 0, 1)
    gaps = first - second
    error = gaps.std(ddof=1) / np.sqrt(20_000)
    expected = (gaps.mean() - 1.96 * error, gaps.mean() + 1.96 * error)
    assert difference_interval(first, second, 0.95) == pytest.approx(expected, abs=1e-4)


def test_no_metric_has_an_interval_without_width() -> None:
    labels, offsets = np.tile([1, 0, 0], 30), np.arange(31) * 3
    for scores in (np.zeros(90), np.tile([2.0, 1, 0], 30), np.tile([0.0, 1, 2], 30)):  # all tied, all right, all wrong
        result = evaluate_groups(scores, labels, offsets)
        for name, (low, high) in metric_intervals(result, paired_values(result), 0.95).items():
            assert high - low > 0.001, name
    one = evaluate_groups([2.0, 1, 0], [1, 0, 0], [0, 3])
    for low, high in metric_intervals(one, paired_values(one), 0.95).values():
        assert high - low > 0.05


def test_the_pooled_auc_varies_as_much_as_resampled_users_say() -> None:
    benchmark = _benchmark()
    result = evaluate_groups(*benchmark.simulate(150, np.random.default_rng(5), 0.75), ("auc",))
    low, high = pooled_interval(paired_values(result)["auc"], 0.95)
    generator, draws = np.random.default_rng(6), []
    scores, labels = (column.reshape(150, -1) for column in (result.groups.scores, np.zeros(len(result.groups.scores))))
    labels.ravel()[result.groups.positives] = 1
    for _ in range(300):
        users = generator.integers(0, 150, 150)
        again = evaluate_groups(scores[users].ravel(), labels[users].ravel(), result.groups.offsets, ("auc",))
        draws.append(again.pooled["auc"])
    assert (high - low) / (2 * 1.96) == pytest.approx(np.std(draws), rel=0.12)


def _benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("coverage_benchmark", ROOT / "benchmarks" / "intervals.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("auc", [0.58, 0.93])
def test_intervals_of_few_users_cover_the_truth(auc: float) -> None:
    benchmark = _benchmark()
    found = benchmark.covered(auc, 20, 150, methods=("wilson", "percentile"))
    assert set(found["wilson"]) == {"auc", "gauc", "hr@5", "mrr@5", "ndcg@10"}
    assert min(found["wilson"].values()) >= 0.88  # 95% expected; 4 standard deviations
    if auc == 0.93:  # near the edge, a percentile bootstrap covers about four fifths
        assert found["percentile"]["gauc"] < found["wilson"]["gauc"] - 0.08


@pytest.mark.slow
@pytest.mark.parametrize("auc", [0.58, 0.75, 0.93])
@pytest.mark.parametrize("users", [20, 30, 120, 300])
def test_intervals_cover_the_truth_as_often_as_they_say(auc: float, users: int) -> None:
    """The numbers of docs/metrics.md."""
    found = _benchmark().covered(auc, users, 2000)["wilson"]
    assert min(found.values()) >= (0.91 if users == 20 else 0.92)  # 92 and 93, less two standard deviations
    assert max(found.values()) <= 0.985
