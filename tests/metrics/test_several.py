"""Several positives in a group: a hand-worked table, every tie order by brute force, and the one-positive formulas."""

import itertools
import math
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from msr_adapter.metrics import RANKING, evaluate_groups, groups, paired_values
from msr_adapter.metrics.groups import make_groups

# A group: its candidates as (score, label), at least one positive. Few distinct scores, so that most groups have ties.
_GROUP = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1)), min_size=1, max_size=6).filter(
    lambda group: any(label for _, label in group)
)
Metric = Callable[[Sequence[int], int], Fraction | float]


def _average_precision(ranked: Sequence[int], k: int) -> Fraction:
    precisions = [Fraction(sum(ranked[: i + 1]), i + 1) for i in range(min(k, len(ranked))) if ranked[i]]
    return sum(precisions, Fraction(0)) / sum(ranked)


def _dcg(ranked: Sequence[int], k: int) -> float:
    return math.fsum(label / math.log2(place + 1) for place, label in enumerate(ranked[:k], start=1))


# Textbook definitions on a ranked list of labels, one order at a time.
BRUTE: dict[str, Metric] = {
    "hr": lambda ranked, k: Fraction(int(any(ranked[:k]))),
    "recall": lambda ranked, k: Fraction(sum(ranked[:k]), sum(ranked)),
    "precision": lambda ranked, k: Fraction(sum(ranked[:k]), k),
    "mrr": lambda ranked, k: Fraction(1, ranked.index(1) + 1) if 1 in ranked[:k] else Fraction(0),
    "map": _average_precision,
    "ndcg": lambda ranked, k: _dcg(ranked, k) / _dcg(sorted(ranked, reverse=True), k),
}


def _orders(group: Sequence[tuple[int, int]]) -> list[list[int]]:
    """The ranked labels of every permutation of the candidates that sorts the scores."""
    return [
        [label for _, label in order]
        for order in itertools.permutations(group)
        if all(a[0] >= b[0] for a, b in itertools.pairwise(order))
    ]


def _flatten(drawn: Sequence[Sequence[tuple[int, int]]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    offsets = np.concatenate([[0], np.cumsum([len(group) for group in drawn])])
    rows = [row for group in drawn for row in group]
    return np.array([row[0] for row in rows], float), np.array([row[1] for row in rows]), offsets


def test_hand_worked_table() -> None:
    # ranked labels 1 0 1 0: hits on ranks 1 and 3; 0 1 1: on ranks 2 and 3
    result = evaluate_groups([9, 8, 7, 6, 5, 4, 3], [1, 0, 1, 0, 0, 1, 1], [0, 4, 7], k=(1, 2, 3))
    assert result.per_user["hr@1"].tolist() == [1, 0]
    assert result.per_user["recall@2"].tolist() == [1 / 2, 1 / 2]
    assert result.per_user["precision@3"] == pytest.approx([2 / 3, 2 / 3], abs=1e-15)
    assert result.per_user["mrr@3"].tolist() == [1, 1 / 2]
    assert result.per_user["map@3"] == pytest.approx([(1 + 2 / 3) / 2, (1 / 2 + 2 / 3) / 2], abs=1e-15)
    assert result.per_user["map@1"].tolist() == [1 / 2, 0]
    ideal = 1 + 1 / math.log2(3)
    assert result.per_user["ndcg@3"] == pytest.approx([1.5 / ideal, (1 / math.log2(3) + 0.5) / ideal], abs=1e-15)
    assert result.per_user["gauc"].tolist() == [3 / 4, 0]
    # the negatives are 8, 6 and 5: 9 beats three of them, 7 beats two, 4 and 3 beat none: 5 of 12 pairs
    assert result.pooled["auc"] == pytest.approx(5 / 12, abs=1e-15)
    assert result.ranks.tolist() == [1, 2]
    assert result.groups.best.tolist() == [0, 5]


def test_two_positives_in_a_tie_of_three() -> None:
    # 0 above; tied: 1 1 0, so the negative is on rank 1, 2 or 3 with probability 1/3 each
    result = evaluate_groups([5, 5, 5, 1], [1, 0, 1, 0], [0, 4], k=(1, 2))
    means = result.means()
    assert means["hr@1"] == pytest.approx(2 / 3, abs=1e-15)
    assert means["hr@2"] == 1
    assert means["recall@2"] == pytest.approx((1 / 2 + 1 / 2 + 1) / 3, abs=1e-15)
    assert means["mrr@2"] == pytest.approx((1 / 2 + 1 + 1) / 3, abs=1e-15)
    assert means["map@2"] == pytest.approx((1 / 4 + 1 / 2 + 1) / 3, abs=1e-15)
    assert means["gauc"] == pytest.approx((2 + 2 * 1 / 2) / 4, abs=1e-15)
    assert result.ranks.tolist() == pytest.approx([4 / 3])
    assert result.tied.tolist() == [True]


@settings(max_examples=150, deadline=None)
@given(st.lists(_GROUP, min_size=1, max_size=3), st.integers(1, 7))
@example([[(0, 1)] * 6], 3)
@example([[(1, 1), (1, 1), (1, 0), (1, 0), (1, 0), (0, 1)]], 4)
def test_equals_the_mean_over_every_tie_order(drawn: list[list[tuple[int, int]]], k: int) -> None:
    result = evaluate_groups(*_flatten(drawn), tuple(BRUTE), (k,))
    for user, group in enumerate(drawn):
        orders = _orders(group)
        for name, metric in BRUTE.items():
            expected = math.fsum(metric(order, k) for order in orders) / len(orders)
            assert result.per_user[f"{name}@{k}"][user] == pytest.approx(expected, abs=1e-12), name
        expected = math.fsum(order.index(1) + 1 for order in orders) / len(orders)
        assert result.ranks[user] == pytest.approx(expected, abs=1e-12)
        tied = any(a[0] == b[0] and a[1] != b[1] for a, b in itertools.combinations(group, 2))
        assert result.tied[user] == tied


@given(st.lists(_GROUP.filter(lambda group: not all(label for _, label in group)), min_size=1, max_size=5))
def test_auc_equals_counting_every_pair(drawn: list[list[tuple[int, int]]]) -> None:
    def share(rows: Sequence[tuple[int, int]]) -> float:
        won = [
            Fraction(2 * (positive > negative) + (positive == negative), 2)
            for positive, _ in filter(lambda row: row[1], rows)
            for negative, _ in filter(lambda row: not row[1], rows)
        ]
        return float(sum(won) / len(won))

    result = evaluate_groups(*_flatten(drawn), ("auc", "gauc"))
    assert result.per_user["gauc"] == pytest.approx([share(group) for group in drawn], abs=1e-14)
    assert result.pooled["auc"] == pytest.approx(share([row for group in drawn for row in group]), abs=1e-14)


def _random_groups(users: int, most: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ragged groups with ties and one to ``most`` positives each."""
    generator = np.random.default_rng(seed)
    sizes = generator.integers(most + 1, most + 12, users)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    labels = np.zeros(offsets[-1], np.int8)
    for start, size in zip(offsets, sizes, strict=False):
        labels[start + generator.choice(size, generator.integers(1, most + 1), replace=False)] = 1
    return np.round(generator.standard_normal(offsets[-1]) * 2 + labels), labels, offsets


def test_groups_with_one_positive_are_the_same_on_both_paths() -> None:
    scores, labels, offsets = _random_groups(300, most=1)
    alone = evaluate_groups(scores, labels, offsets)
    both = evaluate_groups(
        np.append(scores, [2, 1, 0]), np.append(labels, [1, 1, 0]), np.append(offsets, offsets[-1] + 3)
    )
    assert alone.blocks is None
    assert both.blocks is not None
    for name, values in alone.per_user.items():
        assert both.per_user[name][:-1] == pytest.approx(values, abs=1e-13), name
    assert both.ranks[:-1] == pytest.approx(alone.ranks, abs=1e-13)
    assert both.tied[:-1].tolist() == alone.tied.tolist()
    assert (both.greater[:-1].tolist(), both.equal[:-1].tolist()) == (alone.greater.tolist(), alone.equal.tolist())


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = _random_groups(120, most=4)
    whole = evaluate_groups(*drawn)
    monkeypatch.setattr(groups, "CHUNK_SCORES", 30)
    pieces = evaluate_groups(*drawn)
    assert pieces.means() == whole.means()
    assert pieces.blocks is not None
    assert len(pieces.ranks) == 120


def test_large_ties_stay_exact() -> None:
    # 60 positives among 400 tied candidates: HR@50 = 1 - C(340, 50) / C(400, 50), exactly in integers
    labels = np.arange(400) % 20 < 3
    result = evaluate_groups(np.zeros(400), labels, [0, 400], ("hr", "mrr", "recall", "map"), (50,))
    missed = Fraction(math.comb(340, 50), math.comb(400, 50))
    assert result.means()["hr@50"] == pytest.approx(float(1 - missed), abs=1e-13)
    first = [Fraction(math.comb(400 - j, 59), math.comb(400, 60)) for j in range(1, 51)]
    expected = sum(chance / j for j, chance in enumerate(first, start=1))
    assert result.means()["mrr@50"] == pytest.approx(float(expected), abs=1e-13)
    assert result.means()["recall@50"] == pytest.approx(50 / 400, abs=1e-13)


def test_a_constant_scorer_has_auc_one_half() -> None:
    scores, labels, offsets = _random_groups(50, most=5)
    means = evaluate_groups(np.full_like(scores, 3), labels, offsets).means()
    assert means["auc"] == pytest.approx(0.5, abs=1e-13)
    assert means["gauc"] == pytest.approx(0.5, abs=1e-13)


def test_users_values_have_the_metrics_as_means() -> None:
    result = evaluate_groups(*_random_groups(20, most=3))
    assert {name: column.mean() for name, column in paired_values(result).items()} == pytest.approx(result.means())


def test_any_metric_at_any_depth_afterwards() -> None:
    for most in (1, 4):
        drawn = _random_groups(30, most)
        result = evaluate_groups(*drawn, ("gauc",))
        for name in RANKING[2:]:
            again = evaluate_groups(*drawn, (name,), (7,))
            assert result.at(name, 7).tolist() == again.per_user[f"{name}@7"].tolist()


def test_the_best_positive_is_the_first_of_equals() -> None:
    made = make_groups([1, 3, 3, 0, 5, 7], [1, 1, 1, 0, 1, 0], [0, 4, 6])
    assert made.best.tolist() == [1, 4]
    assert made.owners.tolist() == [0, 0, 0, 1]
