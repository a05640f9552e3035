"""Paired tests: hand-worked p-values, every sign by brute force, error rates and power by simulation."""

import itertools

import numpy as np
import pytest
from scipy import stats

from msr_adapter.metrics import (
    bootstrap,
    evaluate_groups,
    holm,
    paired_values,
    pooled_auc,
    pooled_auc_per_user,
    sign_flip_test,
    smallest_difference,
    standard_errors,
)
from msr_adapter.metrics.groups import make_groups


def test_three_users_by_hand() -> None:
    # differences 3 1 -1: |sum| = 3; the eight sign patterns give 3 1 5 3 -3 -5 -1 -3: six reach 3
    differences = np.array([[3.0], [1.0], [-1.0]])
    assert sign_flip_test(differences, 10, 0).tolist() == [6 / 8]


def test_few_users_try_every_sign() -> None:
    differences = np.random.default_rng(0).standard_normal((9, 2)) + 0.5
    every_sign = list(itertools.product((1, -1), repeat=9))
    expected = [
        np.mean([abs(np.dot(signs, column)) >= abs(column.sum()) - 1e-9 for signs in every_sign])
        for column in differences.T
    ]
    assert sign_flip_test(differences, 10, 0) == pytest.approx(expected)
    with_ties = np.concatenate([differences, np.zeros((500, 2))])  # users without a difference change nothing
    assert sign_flip_test(with_ties, 10, 0) == pytest.approx(expected)


def test_equal_scorers_have_p_one() -> None:
    assert sign_flip_test(np.zeros((40, 2)), 100, 0).tolist() == [1, 1]


def test_agrees_with_the_t_test_on_many_users() -> None:
    differences = np.random.default_rng(2).standard_normal((400, 1)) + 0.12
    expected = stats.ttest_1samp(differences[:, 0], 0).pvalue
    assert sign_flip_test(differences, 20_000, 1)[0] == pytest.approx(expected, abs=0.01)


def test_random_signs_do_not_depend_on_the_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    differences = np.random.default_rng(2).standard_normal((30, 3)) + 0.2
    whole = sign_flip_test(differences, 500, 1)
    monkeypatch.setattr("msr_adapter.metrics.paired._CHUNK_SIGNS", 64)
    assert sign_flip_test(differences, 500, 1).tolist() == whole.tolist()
    assert whole.min() >= 1 / 501


def test_holm_by_hand() -> None:
    # sorted: .01 x 4 = .04, .02 x 3 = .06, .03 x 2 = .06, .5 x 1
    assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert holm([0.9, 0.8]).tolist() == [1, 1]
    assert len(holm([])) == 0


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
        rejected += sign_flip_test(differences, 300, seed) <= 0.05
    assert (rejected <= 27).all()  # 15 expected of 300; the bounds are 3.2 standard deviations away
    assert (rejected[:2] >= 3).all()  # hits come in ones, so the test of HR@1 is careful


def test_the_smallest_difference_is_found_in_four_of_five_experiments() -> None:
    # normal differences with SD 1, 80 users: the smallest difference by the formula is really shown 80% of the time
    effect = smallest_difference(1 / np.sqrt(80))
    assert effect == pytest.approx(2.8016 / np.sqrt(80), rel=1e-4)
    generator = np.random.default_rng(4)
    found = 0
    for seed in range(300):
        found += int(sign_flip_test(generator.standard_normal((80, 1)) + effect, 400, seed)[0] <= 0.05)
    assert 215 <= found <= 262  # 240 expected, less a little for the t distribution; 3.5 standard deviations


def test_standard_errors_of_a_difference() -> None:
    scores, labels, offsets = _scored(150, 5)
    one, two = (evaluate_groups(values, labels, offsets) for values in (scores, scores + np.sin(np.arange(900))))
    draws = [bootstrap(result, 1500, 0) for result in (one, two)]
    errors = standard_errors(one, two, *draws, one.names)
    assert list(errors) == list(one.names)
    for name in ("gauc", "hr@3", "auc"):
        assert errors[name] == pytest.approx(np.std(draws[0][name] - draws[1][name]), rel=0.08), name
    influence = paired_values(one)["auc"] - paired_values(two)["auc"]
    assert errors["auc"] == pytest.approx(influence.std() / np.sqrt(150), rel=0.1)
