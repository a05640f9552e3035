"""Metrics: hand-worked tables, every tie order by brute force, and scikit-learn on random data."""

import itertools
import math
from collections.abc import Callable
from fractions import Fraction
from importlib import import_module

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score, roc_auc_score

from msr_adapter.metrics import RANKING, evaluate_groups, groups, pooled_auc
from msr_adapter.metrics.groups import Standing, make_groups
from msr_adapter.metrics.ranking import expected_rank

POOLED = import_module("msr_adapter.metrics.pooled_auc")  # the package has a function of that name

# A group: the negatives' scores around one positive. Few distinct values, so that most groups have ties.
_GROUP = st.tuples(st.lists(st.integers(-2, 2), min_size=1, max_size=5), st.integers(-2, 2), st.integers(0, 5))


def _flatten(drawn: list[tuple[list[int], int, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lay groups of (negatives, positive, position of the positive) out as scores, labels, offsets."""
    scores: list[float] = []
    labels: list[int] = []
    offsets = [0]
    for negatives, positive, wanted in drawn:
        place = min(wanted, len(negatives))
        scores += [*negatives[:place], positive, *negatives[place:]]
        labels += [*[0] * place, 1, *[0] * (len(negatives) - place)]
        offsets.append(len(scores))
    return np.array(scores, float), np.array(labels), np.array(offsets)


def _every_order(scores: np.ndarray, labels: np.ndarray, gain: Callable[[int], Fraction | float]) -> float:
    """Average ``gain(rank)`` over every permutation of the candidates that sorts the scores."""
    gains = []
    for order in itertools.permutations(range(len(scores))):
        ranked = [scores[i] for i in order]
        if all(a >= b for a, b in itertools.pairwise(ranked)):
            gains.append(gain([labels[i] for i in order].index(1) + 1))
    return math.fsum(gains) / len(gains)


def _gains(k: int, size: int) -> dict[str, Callable[[int], Fraction | float]]:
    return {
        "gauc": lambda rank: Fraction(size - rank, size - 1),
        f"hr@{k}": lambda rank: Fraction(int(rank <= k)),
        f"recall@{k}": lambda rank: Fraction(int(rank <= k)),
        f"precision@{k}": lambda rank: Fraction(int(rank <= k), k),
        f"mrr@{k}": lambda rank: Fraction(int(rank <= k), rank),
        f"map@{k}": lambda rank: Fraction(int(rank <= k), rank),
        f"ndcg@{k}": lambda rank: 1 / math.log2(rank + 1) if rank <= k else 0.0,
    }


def test_hand_worked_table() -> None:
    # user 0: the positive (.7) is second of 4; user 1: first of 2; user 2: last of 3, user 3: third of 3
    scores = [0.9, 0.7, 0.3, 0.1, 0.8, 0.2, 0.6, 0.5, 0.4, 0.95, 0.85, 0.05]
    labels = [0, 1, 0, 0, 1, 0, 0, 0, 1, 0, 0, 1]
    result = evaluate_groups(scores, labels, [0, 4, 6, 9, 12], k=(1, 2))
    assert result.ranks.tolist() == [2, 1, 3, 3]
    assert result.per_user["gauc"] == pytest.approx([2 / 3, 1, 0, 0])
    assert result.per_user["hr@1"].tolist() == [0, 1, 0, 0]
    assert result.per_user["hr@2"].tolist() == result.per_user["recall@2"].tolist() == [1, 1, 0, 0]
    assert result.per_user["precision@2"].tolist() == [0.5, 0.5, 0, 0]
    assert result.per_user["mrr@2"].tolist() == result.per_user["map@2"].tolist() == [0.5, 1, 0, 0]
    assert result.per_user["ndcg@2"] == pytest.approx([1 / math.log2(3), 1, 0, 0])
    # negatives below .7: 5 of 8 (.3 .1 .2 .6 .5), below .8: 5, below .4: 3 (.3 .1 .2), below .05: 0 -> 13 of 32 pairs
    assert result.pooled["auc"] == 13 / 32
    assert result.means()["mrr@2"] == 0.375


def test_two_tied_with_the_positive() -> None:
    # one above, two tied: ranks 2, 3, 4 with probability 1/3 each
    result = evaluate_groups([9, 5, 5, 5, 1], [0, 0, 1, 0, 0], [0, 5], k=(3,))
    means = result.means()
    assert (result.greater.tolist(), result.equal.tolist(), result.ranks.tolist()) == ([1], [2], [3.0])
    assert means["hr@3"] == 2 / 3
    assert means["mrr@3"] == pytest.approx((1 / 2 + 1 / 3) / 3, abs=1e-15)
    assert means["ndcg@3"] == pytest.approx((1 / math.log2(3) + 1 / 2) / 3, abs=1e-15)
    assert means["auc"] == means["gauc"] == 0.5


@pytest.mark.parametrize("place", [0, 7, 20])
def test_constant_scorer_knows_nothing(place: int) -> None:
    labels = np.tile(np.eye(21, dtype=int)[place], 3)
    means = evaluate_groups(np.full(63, 0.25), labels, [0, 21, 42, 63]).means()
    assert means["hr@10"] == pytest.approx(10 / 21, abs=1e-12)
    assert means["recall@3"] == pytest.approx(3 / 21, abs=1e-12)
    assert means["mrr@3"] == pytest.approx((1 + 1 / 2 + 1 / 3) / 21, abs=1e-12)
    assert means["auc"] == means["gauc"] == 0.5


@settings(max_examples=60, deadline=None)
@given(st.lists(_GROUP, min_size=1, max_size=3), st.integers(1, 7))
def test_equals_the_mean_over_every_tie_order(drawn: list[tuple[list[int], int, int]], k: int) -> None:
    scores, labels, offsets = _flatten(drawn)
    result = evaluate_groups(scores, labels, offsets, RANKING, (k,))
    for user, (first, last) in enumerate(itertools.pairwise(offsets)):
        for name, gain in _gains(k, last - first).items():
            expected = _every_order(scores[first:last], labels[first:last], gain)
            assert result.per_user[name][user] == pytest.approx(expected, abs=1e-12), name


@given(st.lists(_GROUP, min_size=1, max_size=8))
def test_pooled_auc_equals_counting_every_pair(drawn: list[tuple[list[int], int, int]]) -> None:
    scores, labels, offsets = _flatten(drawn)
    pairs = [
        Fraction(int(positive > negative) * 2 + int(positive == negative), 2)
        for positive in scores[labels == 1]
        for negative in scores[labels == 0]
    ]
    assert pooled_auc(make_groups(scores, labels, offsets)) == pytest.approx(float(sum(pairs) / len(pairs)), abs=1e-14)


def _random_groups(users: int, *, distinct: int | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(7)
    sizes = generator.integers(2, 30, users)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    labels = np.zeros(offsets[-1], np.int8)
    labels[offsets[:-1] + generator.integers(0, sizes)] = 1
    scores = generator.standard_normal(offsets[-1]) + labels
    return (np.round(scores * distinct) if distinct else scores), labels, offsets


@pytest.mark.parametrize("distinct", [None, 2])
def test_agrees_with_scikit_learn_on_auc(distinct: int | None) -> None:
    scores, labels, offsets = _random_groups(300, distinct=distinct)
    result = evaluate_groups(scores, labels, offsets, ("auc", "gauc"))
    assert result.pooled["auc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    expected = [roc_auc_score(labels[a:b], scores[a:b]) for a, b in itertools.pairwise(offsets)]
    assert result.per_user["gauc"] == pytest.approx(expected, abs=1e-12)


def test_agrees_with_scikit_learn_on_ndcg_without_ties() -> None:
    scores, labels, offsets = _random_groups(200, distinct=None)
    result = evaluate_groups(scores, labels, offsets, ("ndcg",), (1, 5, 100))
    for k in (1, 5, 100):
        expected = [ndcg_score([labels[a:b]], [scores[a:b]], k=k) for a, b in itertools.pairwise(offsets)]
        assert result.per_user[f"ndcg@{k}"] == pytest.approx(expected, abs=1e-12)


def test_chunks_and_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, labels, offsets = _random_groups(200, distinct=3)
    whole = evaluate_groups(scores, labels, offsets)
    monkeypatch.setattr(groups, "CHUNK_SCORES", 50)
    monkeypatch.setattr(POOLED, "_SMALLEST_BLOCK", 64)
    monkeypatch.setattr(POOLED, "_LARGEST_BLOCK", 64)
    for threads in (1, 3):
        pieces = evaluate_groups(scores, labels, offsets, threads=threads)
        assert pieces.means() == whole.means()
        assert pieces.ranks.tolist() == whole.ranks.tolist()


def test_a_group_larger_than_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "CHUNK_SCORES", 2)
    result = evaluate_groups([3, 2, 1, 0, 5, 4], [0, 0, 1, 0, 1, 0], [0, 4, 6])
    assert result.ranks.tolist() == [3, 1]


def test_float32_and_infinite_scores_are_ranked_as_they_are() -> None:
    scores = np.array([np.inf, 1.0, -np.inf, -np.inf], np.float32)
    result = evaluate_groups(scores, [0, 1, 0, 0], [0, 4], k=(1,))
    assert result.means() == {"auc": 2 / 3, "gauc": 2 / 3} | dict.fromkeys([f"{name}@1" for name in RANKING[2:]], 0)


def test_expected_rank_is_the_middle_of_the_tie() -> None:
    assert expected_rank(Standing(np.array([0, 2]), np.array([3, 0]), np.array([4, 4]))).tolist() == [2.5, 3.0]


def test_only_the_metrics_asked_for_in_their_order() -> None:
    result = evaluate_groups([1, 0], [1, 0], [0, 2], ("ndcg", "auc"), (5, 1))
    assert list(result.means()) == ["ndcg@5", "ndcg@1", "auc"]
    assert list(result.per_user) == ["ndcg@5", "ndcg@1"]


@pytest.mark.parametrize(
    ("scores", "labels", "offsets", "message"),
    [
        ([1, float("nan"), float("nan")], [1, 0, 0], [0, 3], "2 of 3 scores are NaN"),
        ([1, 2], [0, 0], [0, 2], "1 of 1 groups have no positive"),
        ([1, 2, 3, 4], [1, 1, 0, 0], [0, 2, 4], "1 of 2 groups have no positive"),
        ([1, 2, 3, 4], [1, 1, 0, 1], [0, 2, 4], "1 groups have no negative"),
        ([1, 2], [1, 0], [0, 1], "offsets run from 0 to 1, but there are 2 scores"),
        ([1, 2], [1, 0], [0, 0, 2], "1 groups are empty"),
        ([1, 2], [1, 0], [0], "no groups"),
        ([1, 2], [1], [0, 2], "2 scores but labels of shape"),
        ([1, 2], [2, 0], [0, 2], "labels other than 0 and 1"),
        ([1, 2], [0.5, 0], [0, 2], "labels other than 0 and 1"),
        ([1, 2, 3], [1, np.nan, 0], [0, 3], "labels other than 0 and 1"),
        ([[1, 2]], [[1, 0]], [0, 2], "a flat array is needed"),
        ([1], [1], [0, 1], "1 groups have no negative"),
    ],
)
def test_invalid_groups_are_refused_with_counts(scores: list, labels: list, offsets: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate_groups(scores, labels, offsets)


def test_unknown_metric_and_bad_k_are_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown metrics \['brier'\]"):
        evaluate_groups([1, 0], [1, 0], [0, 2], ("brier",))
    with pytest.raises(ValueError, match="at least 1"):
        evaluate_groups([1, 0], [1, 0], [0, 2], k=(0,))


@given(st.lists(_GROUP, min_size=2, max_size=30), st.integers(1, 40), st.floats(0.01, 1e6), st.floats(-1e3, 1e3))
def test_counting_by_crowded_keys_changes_nothing(
    drawn: list[tuple[list[int], int, int]], cells: int, scale: float, shift: float
) -> None:
    """A handful of cells, so that nearly every positive shares its own with others, tied or not."""
    scores, labels, offsets = _flatten(drawn)
    made = make_groups(scores * scale + shift + np.sin(np.arange(len(scores))) // 0.5, labels, offsets)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(POOLED, "make_keys", lambda *_: None)
        expected = pooled_auc(made)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(POOLED, "_CELLS", float(cells))
        patch.setattr(POOLED, "_ALONE", -1.0)
        patch.setattr(POOLED, "_SMALLEST_BLOCK", 8)
        patch.setattr(POOLED, "_LARGEST_BLOCK", 8)
        assert pooled_auc(made, threads=1) == expected
    assert pooled_auc(made) == expected


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("threads", [1, 2])
def test_counting_by_keys_equals_scikit_learn(dtype: type, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    scores, labels, offsets = _random_groups(3000, distinct=None)
    scores = scores.astype(dtype)
    monkeypatch.setattr(POOLED, "_LARGEST_BLOCK", 5000)
    monkeypatch.setattr(POOLED, "_SMALLEST_BLOCK", 5000)
    made = make_groups(scores, labels, offsets)
    assert POOLED.make_keys(scores, np.sort(scores[made.positives])) is not None
    assert pooled_auc(made, threads) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


@pytest.mark.parametrize("odd", [[np.inf, 1.0], [1e300, -1e300], [1e-300, 0.0], [1e30, 0.0], [5.0, 5.0]])
def test_scores_that_keys_do_not_suit(odd: list[float]) -> None:
    scores, labels, offsets = _random_groups(200, distinct=2)
    scores[:2] = odd
    made = make_groups(scores, labels, offsets)
    assert POOLED.make_keys(scores, np.sort(scores[made.positives])) is None
    finite = np.clip(scores, -1e200, 1e200)
    assert pooled_auc(made) == pytest.approx(roc_auc_score(labels, finite), abs=1e-12)
