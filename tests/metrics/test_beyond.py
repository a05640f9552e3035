"""Calibration and what the first k places show: hand-worked tables, brute force over tie orders, faults."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msr_adapter.metrics import calibrate, calibration, expose, exposure, groups
from msr_adapter.metrics.exposure import top_probabilities


def test_calibration_by_hand() -> None:
    # bins of width 1/2: [.2 .4] one of two true, [.5 .9] both true
    found = calibrate([0.2, 0.4, 0.5, 0.9], [0, 1, 1, 1], bins=2)
    assert found.log_loss == pytest.approx(-(math.log(0.8) + math.log(0.4) + math.log(0.5) + math.log(0.9)) / 4)
    assert found.brier == pytest.approx((0.04 + 0.36 + 0.25 + 0.01) / 4)
    assert found.counts.tolist() == [2, 2]
    assert found.mean_scores == pytest.approx([0.3, 0.7])
    assert found.rates.tolist() == [0.5, 1]
    assert found.ece == pytest.approx((2 * 0.2 + 2 * 0.3) / 4)
    assert found.edges.tolist() == [0, 0.5, 1]


def test_an_empty_bin_has_no_rate_and_no_weight() -> None:
    found = calibrate([0.05, 1.0], [0, 1])
    assert found.counts.tolist() == [1, *[0] * 8, 1]
    assert np.isnan(found.rates[1:9]).all()
    assert found.ece == pytest.approx(0.025)


def test_true_probabilities_are_calibrated() -> None:
    generator = np.random.default_rng(0)
    probabilities = generator.random(200_000)
    labels = generator.random(200_000) < probabilities
    assert calibrate(probabilities, labels).ece < 0.01
    assert calibrate(probabilities**3, labels).ece > 0.2


def test_calibration_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(1)
    probabilities, labels = generator.random(1000), generator.integers(0, 2, 1000)
    whole = calibrate(probabilities, labels)
    monkeypatch.setattr(calibration, "CHUNK_SCORES", 7)
    pieces = calibrate(probabilities, labels)
    assert (pieces.log_loss, pieces.brier, pieces.ece) == pytest.approx((whole.log_loss, whole.brier, whole.ece))
    assert pieces.counts.tolist() == whole.counts.tolist()


@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        ([0.5, 1.5], [0, 1], "outside"),
        ([float("nan")], [1], "outside"),
        ([0.5], [0, 1], "fit"),
        ([], [], "fit"),
        ([0.5, 0.5], [0.5, 0], "labels other than 0 and 1"),
        ([0.5, 0.5], [2, 0], "labels other than 0 and 1"),
        ([0.5, 0.5], [-1, 0], "labels other than 0 and 1"),
        ([0.5], [float("nan")], "labels other than 0 and 1"),
    ],
)
def test_wrong_probabilities_are_refused(probabilities: list, labels: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        calibrate(probabilities, labels)


def test_exposure_by_hand() -> None:
    # catalogue of 4 items, popularity 1 3 0 4; user 0 is shown items 1 and 0, user 1 items 1 and 2 of 3 candidates
    found = expose([3, 2, 1, 9, 8, 7], [0, 3, 6], [1, 0, 3, 1, 2, 0], [1, 3, 0, 4], k=2)
    assert found.coverage == 3 / 4
    assert found.popularity.tolist() == [2, 1.5]
    bits = [-math.log2(max(count, 1) / 8) for count in (1, 3, 0, 4)]
    assert found.novelty == pytest.approx([(bits[1] + bits[0]) / 2, (bits[1] + bits[2]) / 2])
    # exposures 1 2 1 0: mean absolute difference over all pairs = 2 * (0+1+1+1+0+1+1+2+... ) by definition below
    shown = [1, 2, 1, 0]
    expected = sum(abs(a - b) for a in shown for b in shown) / (2 * 4 * sum(shown))
    assert found.gini == pytest.approx(expected)


def test_gini_of_equal_and_of_concentrated_exposure() -> None:
    scores, offsets = np.tile([1.0, 0.0], 10), np.arange(11) * 2
    everything = expose(scores, offsets, np.arange(20), np.ones(20), k=2)
    assert everything.gini == pytest.approx(0)
    assert everything.coverage == 1
    one = expose(scores, offsets, np.tile([0, 1], 10), np.ones(100), k=1)
    assert one.gini == pytest.approx(0.99)
    assert one.coverage == 0.01


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=5), min_size=1, max_size=3), st.integers(1, 6))
def test_exposure_is_the_mean_over_every_tie_order(drawn: list[list[int]], k: int) -> None:
    popularity = np.array([5, 0, 1, 2, 9])
    items = [(user + place) % 5 for user, group in enumerate(drawn) for place in range(len(group))]
    offsets = np.concatenate([[0], np.cumsum([len(group) for group in drawn])])
    found = expose(np.concatenate(drawn).astype(float), offsets, items, popularity, k)
    shown = [
        [
            [items[offsets[user] + row] for row in order[:k]]
            for order in itertools.permutations(range(len(group)))
            if all(group[a] >= group[b] for a, b in itertools.pairwise(order))
        ]
        for user, group in enumerate(drawn)
    ]
    covered = [len({item for chosen in orders for item in chosen}) / 5 for orders in itertools.product(*shown)]
    assert found.coverage == pytest.approx(np.mean(covered), abs=1e-12)
    for user, orders in enumerate(shown):
        assert found.popularity[user] == pytest.approx(np.mean([popularity[order].mean() for order in orders]))
        bits = -np.log2(np.maximum(popularity, 1) / popularity.sum())
        assert found.novelty[user] == pytest.approx(np.mean([bits[order].mean() for order in orders]))


@pytest.mark.parametrize("ragged", [False, True])
def test_chances_of_a_place_add_up_to_the_places(ragged: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(5)
    sizes = generator.integers(1, 30, 80) if ragged else np.full(80, 21)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    scores = np.round(generator.standard_normal(offsets[-1]) * 2)
    scores[:3] = [-np.inf, np.inf, -np.inf][: len(scores[:3])]
    chances = top_probabilities(scores, offsets, 10)
    assert np.add.reduceat(chances, offsets[:-1]) == pytest.approx(np.minimum(sizes, 10))
    assert chances.min() >= 0
    assert chances.max() <= 1
    items, popularity = generator.integers(0, 50, len(scores)), generator.integers(0, 9, 50)
    whole = expose(scores, offsets, items, popularity, 10)
    monkeypatch.setattr(groups, "CHUNK_SCORES", 50)
    pieces = exposure.expose(scores, offsets, items, popularity, 10)
    assert (pieces.coverage, pieces.gini) == pytest.approx((whole.coverage, whole.gini), abs=1e-12)
    assert pieces.novelty.tolist() == whole.novelty.tolist()
