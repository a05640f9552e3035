"""The heuristics: worked by hand, against a brute force, against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer

from msr_adapter.heuristics import TrainingLog, has_timestamps, popularity, recency, title_overlap, title_vectors

DAY = 86_400_000
YEAR_2024 = 1_704_067_200_000


def rows(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def test_popularity_is_the_count_of_the_item() -> None:
    assert popularity(rows(2, 0, 2, 1), rows(5, 0, 3)).tolist() == [3.0, 5.0, 3.0, 0.0]


def test_positions_and_row_numbers_are_no_timestamps() -> None:
    assert has_timestamps(rows(YEAR_2024))
    assert not has_timestamps(rows(0, 1, 2, 359_707))
    assert not has_timestamps(rows())


def test_recency_by_hand() -> None:
    log = TrainingLog(rows(0, 0, 1, 2), rows(10, 40, 30, 50), 4)
    scores = recency(rows(0, 1, 2, 3, 0), rows(45, 45, 45, 45, 1_000_000), log)
    assert scores[[0, 1, 4]].tolist() == [-5.0, -15.0, -999_960.0]
    # Item 2 is seen at 50, later than 45; item 3 never: both are below an item that was seen very long ago.
    assert scores[2] == scores[3] < scores[4]


def test_recency_does_not_count_the_moment_itself() -> None:
    scores = recency(rows(0, 0), rows(40, 41), TrainingLog(rows(0, 0), rows(10, 40), 1))
    assert scores.tolist() == [-30.0, -1.0]


def test_recency_before_the_log_began_and_without_a_log() -> None:
    assert len(set(recency(rows(0, 1), rows(5, 10), TrainingLog(rows(0, 1), rows(10, 20), 2)))) == 1
    assert recency(rows(0, 1), rows(5, 5), TrainingLog(rows(), rows(), 2)).tolist() == [0.0, 0.0]
    assert recency(rows(), rows(), TrainingLog(rows(0), rows(1), 2)).tolist() == []


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 30)), min_size=1, max_size=30),
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 40)), min_size=1, max_size=20),
    st.integers(1, 40),
)
def test_recency_is_what_a_search_row_by_row_finds(
    log: list[tuple[int, int]], asked: list[tuple[int, int]], chunk: int
) -> None:
    items, times = np.array(asked).T
    known = np.arange(len(log)) % 3 > 0
    scores = recency(items, times, TrainingLog(*np.array(log).T, 5, known), chunk)
    unseen = []
    for score, (item, time) in zip(scores, asked, strict=True):
        earlier = [seen for row, (other, seen) in enumerate(log) if other == item and seen < time and row % 3]
        unseen += [score] if not earlier else []
        assert not earlier or score == max(earlier) - time
    assert len(set(unseen)) <= 1
    assert all(low < score for low in unseen for score in scores if score != low)


def test_recency_survives_times_that_do_not_fit_beside_the_items() -> None:
    far, items = 2**61, 2**20
    scores = recency(rows(7, 8), rows(far, far), TrainingLog(rows(7, 8), rows(far // 2, 0), items))
    assert scores == pytest.approx([-far / 2, -far], rel=1e-6)


def overlap_of(titles: list[str], history: list[int], candidates: list[int]) -> list[float]:
    one = rows(0, len(candidates))
    return title_overlap(
        title_vectors(titles), rows(*candidates), one, rows(*history), rows(0, len(history))
    ).tolist()  # fmt: skip


def test_overlap_by_hand() -> None:
    # Each word stands in one or two of four titles; "red" is the commoner, so it weighs less.
    titles = ["red fox", "RED, dog!", "blue sky", ""]
    rare, common = np.log(5 / 2) + 1, np.log(5 / 3) + 1
    expected = common**2 / (common**2 + rare**2)
    assert overlap_of(titles, [0], [0, 1, 2, 3]) == pytest.approx([1, expected, 0, 0])
    assert overlap_of(titles, [3], [0, 3]) == [0, 0]
    assert overlap_of(titles, [], [0]) == [0]


def test_overlap_reads_scripts_without_blanks_sign_by_sign() -> None:
    titles = ["狗和猫", "猫", "собака", "Café déjà", "a"]
    assert overlap_of(titles, [0], [1, 2])[0] > 0.4
    assert overlap_of(titles, [0], [1, 2])[1] == 0
    assert overlap_of(titles, [3], [3]) == pytest.approx([1])


def test_titles_without_any_word_have_no_overlap() -> None:
    assert overlap_of(["", "!!", "  "], [0, 1], [1, 2]) == [0, 0]


def test_vectors_are_those_of_scikit_learn() -> None:
    titles = ["the red fox", "the dog the dog", "red red dog", "x"]
    ours = title_vectors(titles)
    dense = np.zeros((len(titles), ours.vocabulary))
    for item in range(len(titles)):
        here = slice(ours.offsets[item], ours.offsets[item + 1])
        dense[item, ours.words[here]] = ours.weights[here]
    theirs = TfidfVectorizer(token_pattern=r"\w+").fit_transform(titles).toarray()
    ordered = [np.array(sorted(matrix.T.round(12).tolist())) for matrix in (dense, theirs)]  # words in any order
    assert ordered[0] == pytest.approx(ordered[1])


WORDS = st.lists(st.sampled_from("abcdefg"), max_size=5).map(" ".join)


@given(st.data())
def test_overlap_is_the_cosine_whatever_the_chunks(data: st.DataObject) -> None:
    titles = data.draw(st.lists(WORDS, min_size=1, max_size=6))
    item = st.integers(0, len(titles) - 1)
    histories = data.draw(st.lists(st.lists(item, max_size=4), min_size=1, max_size=5))
    lists = [data.draw(st.lists(item, min_size=1, max_size=4)) for _ in histories]
    flat = [rows(*(one for group in groups for one in group)) for groups in (lists, histories)]
    bounds = [rows(0, *np.cumsum([len(group) for group in groups])) for groups in (lists, histories)]
    chunk = data.draw(st.integers(1, 12))
    ours = title_overlap(title_vectors(titles), flat[0], bounds[0], flat[1], bounds[1], chunk)
    brute = [cosine(titles, past, one) for past, group in zip(histories, lists, strict=True) for one in group]
    assert ours == pytest.approx(brute, abs=1e-12)


def cosine(titles: list[str], history: list[int], candidate: int) -> float:
    """Compute it with scikit-learn's dense rows, one pair at a time."""
    if not any(titles):
        return 0.0
    dense = TfidfVectorizer(token_pattern=r"\w+").fit_transform(titles).toarray()
    profile = dense[history].sum(axis=0)
    norm = np.linalg.norm(profile)
    return float(dense[candidate] @ profile / norm) if norm else 0.0
