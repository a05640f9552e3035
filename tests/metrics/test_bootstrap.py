"""Bootstrap over users: against explicit resampling, its determinism, and its coverage."""

import importlib
import importlib.util

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from msr_adapter.metrics import bootstrap, evaluate_groups, percentile_interval
from msr_adapter.metrics.bootstrap import resamples
from tests.support.paths import ROOT


def _groups(users: int, seed: int = 3, shift: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ragged groups with ties; the positive scores ``shift`` higher on average."""
    generator = np.random.default_rng(seed)
    sizes = generator.integers(2, 9, users)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    labels = np.zeros(offsets[-1], np.int8)
    labels[offsets[:-1] + generator.integers(0, sizes)] = 1
    return np.round(generator.standard_normal(offsets[-1]) + shift * labels, 1), labels, offsets


def test_equals_recomputing_every_metric_on_the_resampled_users() -> None:
    scores, labels, offsets = _groups(25)
    result = evaluate_groups(scores, labels, offsets)
    draws = bootstrap(result, samples=6, seed=1)
    weights = np.concatenate(list(resamples(25, 6, 1)))
    for sample, counts in enumerate(weights):
        users = np.repeat(np.arange(25), counts)
        rows = [np.arange(offsets[user], offsets[user + 1]) for user in users]
        bounds = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
        index = np.concatenate(rows)
        again = evaluate_groups(scores[index], labels[index], bounds).means()
        assert {name: values[sample] for name, values in draws.items()} == pytest.approx(again, abs=1e-12)
        assert draws["auc"][sample] == pytest.approx(roc_auc_score(labels[index], scores[index]), abs=1e-12)


def test_each_resample_draws_as_many_users_as_there_are() -> None:
    weights = np.concatenate(list(resamples(40, 300, 0)))
    assert weights.shape == (300, 40)
    assert set(weights.sum(axis=1)) == {40}
    assert weights.mean(axis=0) == pytest.approx(np.ones(40), abs=0.3)


def test_same_seed_same_draws_whatever_threads_and_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    result = evaluate_groups(*_groups(30))
    first = bootstrap(result, samples=40, seed=5, threads=1)
    monkeypatch.setattr(importlib.import_module("msr_adapter.metrics.bootstrap"), "_CHUNK_COUNTS", 100)
    second = bootstrap(result, samples=40, seed=5, threads=3)
    other = bootstrap(result, samples=40, seed=6)
    for name, values in first.items():
        assert values == pytest.approx(second[name], abs=1e-14)
    assert first["auc"].tolist() == second["auc"].tolist() != other["auc"].tolist()


def test_draws_of_two_scorers_are_paired() -> None:
    scores, labels, offsets = _groups(60)
    one = bootstrap(evaluate_groups(scores, labels, offsets), 50, seed=2)
    same_order = bootstrap(evaluate_groups(scores * 3 + 1, labels, offsets), 50, seed=2)
    assert all(one[name].tolist() == same_order[name].tolist() for name in one)


def test_only_the_pooled_metric() -> None:
    draws = bootstrap(evaluate_groups(*_groups(10), ("auc",)), 20, seed=0)
    assert list(draws) == ["auc"]
    assert draws["auc"].shape == (20,)


def test_percentile_interval_is_central() -> None:
    assert percentile_interval(np.arange(101.0), 0.9) == pytest.approx((5.0, 95.0), abs=1e-12)


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    # HR@1 of users who each succeed with probability .3; 90% intervals of 200 experiments with 60 users
    generator = np.random.default_rng(11)
    covered = 0
    for experiment in range(200):
        hits = generator.random(60) < 0.3
        scores = np.stack([np.where(hits, 2.0, 0.0), np.ones(60)], axis=1).ravel()
        result = evaluate_groups(scores, np.tile([1, 0], 60), np.arange(61) * 2, ("hr",), (1,))
        low, high = percentile_interval(bootstrap(result, 200, seed=experiment)["hr@1"], 0.9)
        covered += low <= 0.3 <= high
    assert 160 <= covered <= 198  # 180 expected; 4.7 standard deviations either side


def test_pooled_interval_is_as_wide_as_the_spread_of_repeated_experiments() -> None:
    repeats = [evaluate_groups(*_groups(150, seed), ("auc",)).pooled["auc"] for seed in range(100, 220)]
    draws = bootstrap(evaluate_groups(*_groups(150, 99), ("auc",)), 400, seed=0)["auc"]
    assert np.std(draws) == pytest.approx(np.std(repeats), rel=0.35)


def _coverage(sets: int) -> dict[str, float]:
    """Run the simulation of the benchmark: 300 users per data set, 95% intervals."""
    path = ROOT / "benchmarks" / "intervals.py"
    spec = importlib.util.spec_from_file_location("coverage_benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return dict(module.covered(module.truth(), sets, users=300, samples=1000 if sets >= 500 else 300))


def test_intervals_of_means_and_of_the_pooled_auc_cover_the_truth() -> None:
    found = _coverage(60)
    assert set(found) == {"auc", "gauc", "hr@5", "mrr@5", "ndcg@5"}
    assert min(found.values()) >= 0.85  # 57 of 60 expected; 3.6 standard deviations


@pytest.mark.slow
def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    """The numbers of docs/results.md."""
    found = _coverage(500)
    assert min(found.values()) >= 0.93
    assert max(found.values()) <= 0.97
