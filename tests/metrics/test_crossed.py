"""Intervals that cover users and trainings: by hand, beside SciPy, and by simulation with known variances."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from benchmarks.crossed import coverage
from msr_adapter.metrics import crossed_difference, crossed_mean, holm, training_spread
from msr_adapter.metrics.crossed import between_quantiles, student_cdf, student_quantile


@given(st.integers(1, 400), st.floats(0.51, 0.9999))
def test_students_quantile_is_scipys(freedom: int, probability: float) -> None:
    assert student_quantile(probability, freedom) == pytest.approx(stats.t.ppf(probability, freedom), rel=2e-5)


NOISE = 0.015
"""Of a share of 600 trials, two standard errors."""


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 7, 10, 60])
def test_students_distribution_is_scipys(freedom: int) -> None:
    for t in (0.0, 0.1, 1.0, 4.0, 30.0):
        assert student_cdf(t, freedom) == pytest.approx(stats.t.cdf(t, freedom), abs=1e-12)


def test_holm_is_that_of_the_textbook() -> None:
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.6, 0.9])) == pytest.approx([1.0, 1.0])
    assert len(holm(np.empty(0))) == 0


def test_variance_components_worked_by_hand() -> None:
    """Two trainings of three users: means 1 and 3, and what is left is +-0.5 for two of the users."""
    values = np.array([[0.5, 1.0, 1.5], [3.5, 3.0, 2.5]])
    spread = training_spread(values)
    assert spread.between == pytest.approx(2.0)  # of 1 and 3
    rest = np.array([[-0.5, 0.0, 0.5], [0.5, 0.0, -0.5]])
    assert spread.left == pytest.approx(np.square(rest).sum() / 2)
    assert spread.deviation == pytest.approx(np.sqrt(2.0 - spread.left / 3))


def test_the_interval_is_put_together_from_both_parts() -> None:
    rng = np.random.default_rng(0)
    values = 0.5 + 0.1 * rng.standard_normal((3, 50)) + 0.05 * rng.standard_normal((3, 1))
    found = crossed_mean(values)
    users = values.mean(axis=0).var(ddof=1) / 50
    (spread,) = found.spreads
    t = stats.t.ppf(0.975, 2)
    trainings = spread.between / 3 - stats.norm.ppf(0.975) / t * spread.left / 150
    weighed = (stats.t.ppf(0.975, 49) * users + t * trainings) / (users + trainings)
    assert found.half_width(0.95) == pytest.approx(weighed * np.sqrt(users + trainings), rel=1e-5)
    half = stats.t.ppf(0.975, 49) * np.sqrt(users)
    low, high = found.widened((found.mean - half, found.mean + 2 * half), 0.95)
    assert found.mean - low == pytest.approx(found.half_width(0.95), rel=1e-5)
    assert high - found.mean > 2 * half


def test_degrees_of_freedom_between_whole_ones() -> None:
    assert between_quantiles(0.975, 2.0) == pytest.approx(stats.t.ppf(0.975, 2))
    assert stats.t.ppf(0.975, 4) < between_quantiles(0.975, 3.5) < stats.t.ppf(0.975, 3)
    assert between_quantiles(0.975, 3.5) == pytest.approx(stats.t.ppf(0.975, 3.5), rel=0.01)


def test_p_is_the_level_at_which_the_interval_reaches_zero() -> None:
    rng = np.random.default_rng(1)
    found = crossed_difference(0.55 + 0.2 * rng.standard_normal((3, 80)), 0.5 + 0.2 * rng.standard_normal((3, 80)))
    assert found.half_width(1 - found.p) == pytest.approx(abs(found.mean), rel=1e-4)
    other = crossed_difference(rng.random((1, 30)), rng.random((1, 30)))  # users alone: Student's paired test
    assert crossed_mean(np.full((3, 10), 0.5)).p == 0
    assert crossed_difference(np.full((3, 10), 0.5), np.full((1, 10), 0.5)).p == 1
    t = abs(other.mean) / np.sqrt(other.user_variance / 30)
    assert other.p == pytest.approx(2 * stats.t.sf(t, 29), abs=1e-4)


def test_trainings_that_are_all_alike_leave_the_interval_over_users_as_it_is() -> None:
    values = np.repeat(np.random.default_rng(2).random((1, 40)), 4, axis=0)
    found = crossed_mean(values)
    assert found.widened((0.4, 0.6), 0.95) == pytest.approx((0.4, 0.6))
    assert found.spreads[0].deviation == 0


def test_one_user_and_two_trainings_have_an_interval() -> None:
    found = crossed_mean(np.array([[0.2], [0.4]]))
    assert np.isfinite(found.half_width(0.95))
    assert found.trainings_needed() is None


def test_how_many_trainings_a_difference_needs() -> None:
    """Trainings that spread as much as the difference need many; too few users for the difference, no number."""
    rng = np.random.default_rng(3)

    def difference(shift: float, spread: float, users: int) -> int | None:
        own = 0.3 * rng.standard_normal(users)
        one, other = (
            own + level + spread * np.array([-1.0, 0.0, 1.0])[:, None] + 0.05 * rng.standard_normal((3, users))
            for level in (0.5 + shift, 0.5)
        )
        return crossed_difference(one, other).trainings_needed()

    few, some, many = (difference(0.05, spread, 2_000) for spread in (0.0005, 0.02, 0.05))
    assert few is not None
    assert some is not None
    assert many is not None
    assert few <= 3 < some < many
    # By the normal approximation: (1.96 + 0.84)^2 x 2 x spread^2 / shift^2, and a few more for t.
    assert 2 * 2.8**2 * 0.05**2 / 0.05**2 <= many <= 2 * 2.8**2 + 8
    wide = 0.5 + 0.1 * np.tile(np.linspace(-1, 1, 50), (3, 1)) + 0.001 * rng.standard_normal((3, 50))
    assert crossed_difference(wide + 0.005, np.full((1, 50), 0.5)).trainings_needed() is None


def test_the_trainings_that_are_said_to_be_needed_do_find_it() -> None:
    rng, found, trials, shift, spread, users = np.random.default_rng(4), 0, 300, 0.03, 0.02, 500
    needed = 11
    for _ in range(trials):
        own = 0.3 * rng.standard_normal(users)
        one, other = (
            own + level + spread * rng.standard_normal((needed, 1)) + 0.1 * rng.standard_normal((needed, users))
            for level in (shift, 0.0)
        )
        found += crossed_difference(one, other).p < 0.05
    pilot = np.array([-1.0, 0.0, 1.0])[:, None] * spread
    own = 0.3 * rng.standard_normal(users)
    one, other = (own + level + pilot + 0.1 * rng.standard_normal((3, users)) for level in (shift, 0.0))
    assert crossed_difference(one - one.mean() + shift, other - other.mean()).trainings_needed() == pytest.approx(
        needed, abs=2
    )
    assert 0.72 < found / trials < 0.95


@pytest.mark.parametrize("trainings", [3, 5])
@pytest.mark.parametrize(("training_sd", "left"), [(0.0, 0.15), (0.01, 0.15), (0.04, 0.1)])
def test_intervals_cover_the_truth_as_often_as_they_say(trainings: int, training_sd: float, left: float) -> None:
    found = coverage(trainings, 100, (0.2, training_sd, left), 600)
    assert 0.93 - NOISE <= found.mean <= 0.97 + NOISE
    assert 0.93 - NOISE <= found.difference <= 0.97 + NOISE


def test_without_the_trainings_part_intervals_cover_far_less() -> None:
    assert coverage(3, 100, (0.2, 0.04, 0.1), 300).users_alone < 0.85
