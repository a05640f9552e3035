"""Metrics from the targets' places alone are those of the whole lists of scores."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msr_adapter.metrics import MISSED, RANKING, TargetRanks, evaluate_groups, values_at

Lists = list[tuple[list[int], list[int]]]
CUT = [name for name in RANKING if name not in ("auc", "gauc")]


@st.composite
def lists(draw: st.DrawFn, several: bool = True) -> Lists:
    """Draw each user's scores, with many ties, and labels with at least one positive."""
    found = []
    for size in draw(st.lists(st.integers(1, 9), min_size=1, max_size=6)):
        scores = draw(st.lists(st.integers(0, 3), min_size=size, max_size=size))
        positives = draw(st.sets(st.integers(0, size - 1), min_size=1, max_size=size if several else 1))
        found.append((scores, [int(place in positives) for place in range(size)]))
    return found


def ranks_of(drawn: Lists) -> TargetRanks:
    """Count by hand what stands above and beside each positive."""
    rows = [(user, sum(other > own for other in scores), sum(other == own for other in scores))
            for user, (scores, labels) in enumerate(drawn)
            for own, label in zip(scores, labels, strict=True) if label]  # fmt: skip
    owner, above, tied = np.array(rows, np.int64).T
    return TargetRanks(owner, above, tied, np.array([len(scores) for scores, _ in drawn]))


@given(lists())
def test_places_give_what_the_scores_give(drawn: Lists) -> None:
    scores, labels = (np.concatenate([one[place] for one in drawn]) for place in (0, 1))
    offsets = np.cumsum([0, *(len(scores) for scores, _ in drawn)])
    whole = evaluate_groups(scores, labels, offsets, CUT, (1, 3, 20)).per_user
    found = values_at(ranks_of(drawn), RANKING, (1, 3, 20))
    assert list(found) == list(whole)
    for name, values in found.items():
        assert values == pytest.approx(whole[name], abs=1e-12), name


@given(lists(), st.data())
def test_a_missed_target_is_one_behind_all_that_any_cut_counts(drawn: Lists, data: st.DataObject) -> None:
    ranks = ranks_of(drawn)
    missed = np.array(data.draw(st.lists(st.booleans(), min_size=len(ranks.owner), max_size=len(ranks.owner))))
    above, tied = np.where(missed, MISSED, ranks.above), np.where(missed, 1, ranks.tied)
    behind = np.where(missed, 10_000 + np.arange(len(missed)), ranks.above)
    found = values_at(TargetRanks(ranks.owner, above, tied, ranks.sizes), CUT, (1, 3, 20))
    far = values_at(TargetRanks(ranks.owner, behind, tied, ranks.sizes + 20_000), CUT, (1, 3, 20))
    for name, values in found.items():
        assert values == pytest.approx(far[name], abs=1e-12), name


def test_a_metric_without_a_cut_off_is_none_of_them() -> None:
    ranks = ranks_of([([1, 0], [1, 0])])
    assert list(values_at(ranks, ("auc", "gauc", "hr"), (5,))) == ["hr@5"]
    with pytest.raises(KeyError):
        ranks.at("gauc", 5)
