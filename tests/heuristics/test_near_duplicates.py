"""Near duplicates: by hand, against comparing every pair, and many of them against few."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msr_adapter.heuristics import title_vectors
from msr_adapter.heuristics.near_duplicates import FEW, jaccard, near_identical, near_pairs, word_pairs


@pytest.mark.parametrize(("texts", "share"), [
    ([], 0.0),
    (["likes dragons"], 0.0),
    (["likes dragons", "likes dragons"], 1.0),
    (["likes red dragons", "LIKES  red dragons!", "prefers calm seas at night"], 2 / 3),
    (["", "", "likes dragons"], 0.0),
    (["a b c d e f g h i j", "a b c d e f g h i z"], 1.0),  # 8 of 10 pairs are common
    (["a b c d e f g h i", "a b c d e f g h z"], 0.0),  # 7 of 9
    (["喜欢龙和大海和红色的封面故事", "喜欢龙和大海和红色的封面故人", "不同的东西"], 2 / 3),
    (["yes", "yes", "no"], 2 / 3),
])  # fmt: skip
def test_near_identical_by_hand(texts: list[str], share: float) -> None:
    assert near_identical(texts) == pytest.approx(share)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.sampled_from("abc"), max_size=6).map(" ".join), max_size=8))
def test_near_identical_is_what_comparing_every_pair_gives(texts: list[str]) -> None:
    def pairs(text: str) -> set[object]:
        words = text.split()
        return set(pairwise(words)) if len(words) > 1 else {text}

    given_ = [text for text in texts if text]
    alike = [
        any(
            len(pairs(one) & pairs(other)) / len(pairs(one) | pairs(other)) >= 0.8
            for at, other in enumerate(given_)
            if at != place
        )
        for place, one in enumerate(given_)
    ]
    assert near_identical(texts) == pytest.approx(sum(alike) / len(alike) if len(alike) > 1 else 0.0)


def test_a_collapse_among_many_is_seen_in_a_sample() -> None:
    assert near_identical([f"The user likes things and stuff of all kinds, {n}" for n in range(3 * FEW)]) == 1.0
    assert near_identical([" ".join(str(n * k) for k in (7, 11, 13)) for n in range(2 * FEW)]) < 0.1


WORDS = st.lists(st.sampled_from("abcdef"), max_size=6).map(" ".join)


@given(st.lists(WORDS, max_size=12))
def test_near_pairs_are_near_and_equal_titles_are_all_found(titles: list[str]) -> None:
    vectors = title_vectors(titles)
    pairs = near_pairs(vectors).tolist()
    sets = [frozenset(title.split()) for title in titles]
    assert all(low < high and len(sets[low] & sets[high]) >= 0.8 * len(sets[low] | sets[high]) for low, high in pairs)
    duplicates = {n for n, one in enumerate(sets) if one and sets.count(one) > 1}
    assert duplicates <= {item for pair in pairs for item in pair}


@given(st.lists(WORDS, min_size=2, max_size=6))
def test_jaccard_is_shared_words_over_all_words(titles: list[str]) -> None:
    sets = [set(title.split()) for title in titles]
    if not any(sets):
        return
    pairs = np.array([(0, other) for other in range(1, len(titles))])
    expected = [len(sets[0] & one) / max(len(sets[0] | one), 1) for one in sets[1:]]
    assert jaccard(title_vectors(titles), pairs) == pytest.approx(expected)


@settings(deadline=None, max_examples=10)
@given(st.lists(WORDS, min_size=2, max_size=40))
def test_among_many_sets_hashing_finds_what_comparing_all_pairs_finds(titles: list[str]) -> None:
    few, many = (near_pairs(title_vectors(some)) for some in (titles, titles + [f"other {n}" for n in range(FEW)]))
    assert set(map(tuple, many.tolist())) <= set(map(tuple, few.tolist()))
    equal = {
        n for n, title in enumerate(titles) if title and [set(t.split()) for t in titles].count(set(title.split())) > 1
    }
    assert equal <= set(many.ravel().tolist())


def test_a_few_near_duplicates_among_many_texts_are_found() -> None:
    titles = [f"title number {n} of {n * n} things" for n in range(2 * FEW)]
    titles[700] = "a b c d e f g h i j"
    titles[1500] = "a b c d e f g h i k"
    assert near_pairs(title_vectors(titles)).tolist() == [[700, 1500]]


def test_nothing_is_near_nothing() -> None:
    assert near_pairs(word_pairs([])).shape == (0, 2)
    assert near_pairs(title_vectors([""] * 3)).shape == (0, 2)
    assert near_pairs(title_vectors([""] * 3 * FEW)).shape == (0, 2)
