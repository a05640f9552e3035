"""Paired tests: hand-worked p-values, every sign by brute force, error rates and power by simulation."""

import itertools

import numpy as np
import pytest
from scipy import stats

from msr_adapter.metrics import (
    SignFlips,
    evaluate_groups,
    paired_values,
    pooled_auc,
    pooled_auc_per_user,
    sign_flips,
    smallest_difference,
    standard_error,
)
from msr_adapter.metrics.groups import make_groups


def _alone(differences: np.ndarray, samples: int, seed: int) -> np.ndarray:
    """p-values of the columns of ``differences`` (users, comparisons), each for itself."""
    return _flips(differences, samples, seed).p


def _flips(differences: np.ndarray, samples: int, seed: int) -> SignFlips:
    """The columns of ``differences`` against zero, all in one family."""
    values = np.concatenate([differences, np.zeros((len(differences), 1))], axis=1)
    count = differences.shape[1]
    return sign_flips(values, [(column, count) for column in range(count)], [range(count)], samples, seed)


def test_three_users_by_hand() -> None:
    # differences 3 1 -1: |sum| = 3; the eight sign patterns give 3 1 5 3 -3 -5 -1 -3: six reach 3
    differences = np.array([[3.0], [1.0], [-1.0]])
    assert _alone(differences, 10, 0).tolist() == [6 / 8]


def test_few_users_try_every_sign() -> None:
    differences = np.random.default_rng(0).standard_normal((9, 2)) + 0.5
    every_sign = list(itertools.product((1, -1), repeat=9))
    expected = [
        np.mean([abs(np.dot(signs, column)) >= abs(column.sum()) - 1e-9 for signs in every_sign])
        for column in differences.T
    ]
    assert _alone(differences, 10, 0) == pytest.approx(expected)
    with_ties = np.concatenate([differences, np.zeros((500, 2))])  # users without a difference change nothing
    assert _alone(with_ties, 10, 0) == pytest.approx(expected)


def test_the_step_down_maximum_by_brute_force() -> None:
    generator = np.random.default_rng(1)
    values = generator.standard_normal((8, 4)) + np.array([0, 0.3, 0.9, 0.1])
    pairs = list(itertools.combinations(range(4), 2))
    gaps = np.stack([values[:, one] - values[:, other] for one, other in pairs], axis=1)

    def standardised(signs: tuple[int, ...]) -> np.ndarray:
        flipped = np.array(signs)[:, None] * gaps
        return np.abs(stats.ttest_1samp(flipped, 0).statistic)

    every_sign = [standardised(signs) for signs in itertools.product((1, -1), repeat=8)]
    observed = standardised((1,) * 8)
    order, expected, floor = np.argsort(-observed), np.empty(len(pairs)), 0.0
    for place, row in enumerate(order):
        rest = order[place:]
        share = np.mean([each[rest].max() >= observed[row] - 1e-9 for each in every_sign])
        floor = expected[row] = max(floor, float(share))
    found = sign_flips(values, pairs, [range(6), [5, 2]], 100, 0)
    assert found.families[0].adjusted == pytest.approx(expected)
    assert (found.families[0].adjusted >= found.p - 1e-12).all()
    # A family of two of them, in its own order, has no price for the others.
    two = [np.mean([max(each[5], each[2]) >= max(observed[5], observed[2]) - 1e-9 for each in every_sign])]
    assert min(found.families[1].adjusted) == pytest.approx(two[0])
    assert (found.families[1].adjusted <= expected[[5, 2]] + 1e-12).all()


def test_independent_comparisons_cost_what_sidak_says() -> None:
    differences = np.random.default_rng(2).standard_normal((300, 10))
    found = _flips(differences, 20_000, 1)
    most_striking = int(found.p.argmin())
    assert found.families[0].adjusted[most_striking] == pytest.approx(1 - (1 - found.p.min()) ** 10, abs=0.02)
    assert found.families[0].critical == pytest.approx(stats.norm.isf((1 - 0.95**0.1) / 2), abs=0.06)


def test_the_same_comparison_ten_times_costs_as_much_as_once() -> None:
    differences = np.random.default_rng(2).standard_normal((300, 1)) + 0.1
    one, ten = _flips(differences, 5000, 1), _flips(np.repeat(differences, 10, axis=1), 5000, 1)
    assert ten.families[0].adjusted.tolist() == [one.p[0]] * 10
    assert one.families[0].critical == pytest.approx(1.96, abs=1e-3)
    assert ten.families[0].critical == pytest.approx(1.96, abs=0.05)


def test_equal_scorers_have_p_one() -> None:
    found = _flips(np.zeros((40, 2)), 100, 0)
    assert found.p.tolist() == found.families[0].adjusted.tolist() == [1, 1]
    noise = np.full((40, 1), 1e-16)  # rounding is no difference
    assert _alone(noise, 100, 0).tolist() == [1]


def test_nothing_to_compare() -> None:
    found = sign_flips(np.ones((3, 1)), [], [[], []], 100, 0)
    assert (len(found.p), [len(family.adjusted) for family in found.families]) == (0, [0, 0])


def test_agrees_with_the_t_test_on_many_users() -> None:
    differences = np.random.default_rng(2).standard_normal((400, 1)) + 0.12
    expected = stats.ttest_1samp(differences[:, 0], 0).pvalue
    assert _alone(differences, 20_000, 1)[0] == pytest.approx(expected, abs=0.01)


def test_random_signs_do_not_depend_on_the_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    differences = np.random.default_rng(2).standard_normal((30, 3)) + 0.2
    whole = _flips(differences, 500, 1)
    monkeypatch.setattr("msr_adapter.metrics.paired._CHUNK", 64)
    again = _flips(differences, 500, 1)
    assert again.p.tolist() == whole.p.tolist()
    assert again.families[0].adjusted.tolist() == whole.families[0].adjusted.tolist()
    assert whole.p.min() >= 1 / 501


def _scored(users: int, seed: int, gain: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = np.zeros((users, 6), np.int8)
    labels[np.arange(users), generator.integers(0, 6, users)] = 1
    levels = np.repeat(generator.standard_normal(users), 6)  # users' levels differ: one user's scores go together
    scores = generator.standard_normal(users * 6) + gain * labels.ravel() + levels
    return scores, labels.ravel(), np.arange(users + 1) * 6


def test_users_values_of_the_pooled_auc_have_its_mean_and_its_variance() -> None:
    made = make_groups(*_scored(200, 0))
    values = pooled_auc_per_user(made)
    assert values.mean() == pytest.approx(pooled_auc(made), abs=1e-12)
    repeats = [pooled_auc(make_groups(*_scored(200, seed))) for seed in range(1, 300)]
    assert values.std() / np.sqrt(200) == pytest.approx(np.std(repeats), rel=0.2)


def test_influence_is_what_leaving_a_user_out_changes() -> None:
    scores, labels, offsets = _scored(400, 3)
    scores = np.round(scores * 2)  # ties
    values, whole = (
        pooled_auc_per_user(make_groups(scores, labels, offsets)),
        pooled_auc(make_groups(scores, labels, offsets)),
    )
    for user in (0, 17, 399):
        kept = np.r_[0 : offsets[user], offsets[user + 1] : len(scores)]
        left = pooled_auc(make_groups(scores[kept], labels[kept], offsets[:-1]))
        assert 400 * whole - 399 * left == pytest.approx(values[user], abs=0.02)  # jackknife pseudo-value


def test_paired_values_have_the_metrics_as_means() -> None:
    result = evaluate_groups(*_scored(50, 1))
    values = paired_values(result)
    assert list(values) == list(result.names)
    assert {name: column.mean() for name, column in values.items()} == pytest.approx(result.means(), abs=1e-12)


def _two_scorers(users: int, seed: int, gain: float) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Two noisy scorers of the same candidates; the second one is better by ``gain``."""
    first, labels, offsets = _scored(users, seed)
    generator = np.random.default_rng((seed, 1))
    one = first + generator.standard_normal(len(first))
    two = first + generator.standard_normal(len(first)) + gain * labels
    metrics, k = ("auc", "gauc", "hr"), (1,)
    made = [evaluate_groups(scores, labels, offsets, metrics, k) for scores in (one, two)]
    return paired_values(made[0]), paired_values(made[1])


def test_false_alarms_are_as_rare_as_promised() -> None:
    rejected = np.zeros(3)
    for seed in range(300):
        one, two = _two_scorers(60, seed, gain=0)
        differences = np.stack([two[name] - one[name] for name in one], axis=1)
        rejected += _alone(differences, 300, seed) <= 0.05
    assert (rejected <= 27).all()  # 15 expected of 300; the bounds are 3.2 standard deviations away
    assert (rejected[:2] >= 3).all()  # hits come in ones, so the test of HR@1 is careful


def test_the_smallest_difference_is_found_in_four_of_five_experiments() -> None:
    # normal differences with SD 1, 80 users: the smallest difference by the formula is really shown 80% of the time
    effect = smallest_difference(1 / np.sqrt(80))
    assert effect == pytest.approx(2.8016 / np.sqrt(80), rel=1e-4)
    generator = np.random.default_rng(4)
    found = 0
    for seed in range(300):
        found += int(_alone(generator.standard_normal((80, 1)) + effect, 400, seed)[0] <= 0.05)
    assert 215 <= found <= 262  # 240 expected, less a little for the t distribution; 3.5 standard deviations


def test_the_smallest_difference_of_several_is_found_in_four_of_five_experiments() -> None:
    # Ten comparisons, one of them true: its smallest difference by the critical value is shown 80% of the time.
    generator, found = np.random.default_rng(7), 0
    for seed in range(300):
        differences = generator.standard_normal((80, 10))
        family = _flips(differences, 400, seed).families[0]
        differences[:, 4] += smallest_difference(1 / np.sqrt(80), family.critical)
        found += int(_flips(differences, 400, seed).families[0].adjusted[4] <= 0.05)
    assert 210 <= found <= 262
    assert smallest_difference(1.0, 2.8) == pytest.approx(2.8 + 0.8416, abs=1e-4)


def test_standard_errors_of_a_difference() -> None:
    scores, labels, offsets = _scored(150, 5)
    one, two = (
        paired_values(evaluate_groups(values, labels, offsets)) for values in (scores, scores + np.sin(np.arange(900)))
    )
    for name in ("gauc", "hr@3", "auc"):
        error = standard_error(one[name], two[name])
        assert error == pytest.approx(stats.sem(one[name] - two[name]))
        assert standard_error(one[name], one[name]) == standard_error(one[name][:1], two[name][:1]) == 0
    repeats = []
    for seed in range(200):
        scores, labels, offsets = _scored(150, seed)
        pair = (scores, scores + np.sin(np.arange(900)))
        repeats.append([pooled_auc(make_groups(values, labels, offsets)) for values in pair])
    spread = np.std(np.subtract(*np.transpose(repeats)))
    assert standard_error(one["auc"], two["auc"]) == pytest.approx(spread, rel=0.25)
