"""Reciprocal rank fusion by hand, exact search against brute force, and every retriever on a small log."""

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from msr_adapter.arrays import Codes, Vectors
from msr_adapter.config.schema import FusionConfig
from msr_adapter.config.schema.embedding import FusedName
from msr_adapter.retrieval import (
    RETRIEVER_NAMES,
    ContentVectors,
    KnownLog,
    RetrievalUser,
    RetrieverInputs,
    vector_search,
)
from msr_adapter.retrieval.by_content import query_vectors
from msr_adapter.retrieval.fusion import reciprocal_rank_fusion
from msr_adapter.retrieval.retrievers import members, needs_content, row_of
from msr_adapter.retrieval.vector_search import ExactIndex, FaissIndex, make_index

NOTHING = np.empty(0, np.int32)
BY_ID = np.arange(100)


def codes(*items: int) -> Codes:
    return np.array(items, np.int32)


def test_ranks_are_fused_as_by_hand() -> None:
    """Ranks from 1: item 7 is first and second, item 2 second and third, items 5 and 9 stand in one list each."""
    items, scores = reciprocal_rank_fusion([codes(7, 2, 5), codes(9, 7, 2)], (1, 1), 60, BY_ID)
    assert items.tolist() == [7, 2, 9, 5]
    assert scores == pytest.approx([1 / 61 + 1 / 62, 1 / 62 + 1 / 63, 1 / 61, 1 / 63])


def test_weights_and_k_count() -> None:
    items, scores = reciprocal_rank_fusion([codes(1, 2), codes(2, 3)], (0.5, 3), 2, BY_ID)
    assert items.tolist() == [2, 3, 1]
    assert scores == pytest.approx([0.5 / 4 + 3 / 3, 3 / 4, 0.5 / 3])


def test_equal_scores_stand_in_the_order_given_whichever_list_they_come_from() -> None:
    """Each item has one first, one second and one third place; the sums differ in their last bits."""
    lists = [codes(1, 2, 3), codes(2, 3, 1), codes(3, 1, 2)]
    ranks = np.array([9, 2, 0, 1])
    assert reciprocal_rank_fusion(lists, (1, 1, 1), 60, ranks)[0].tolist() == [2, 3, 1]
    assert reciprocal_rank_fusion(lists[::-1], (1, 1, 1), 60, ranks)[0].tolist() == [2, 3, 1]


@given(st.lists(st.lists(st.integers(0, 20), unique=True), min_size=1, max_size=4), st.integers(1, 100))
def test_fusion_is_the_definition(lists: list[list[int]], k: int) -> None:
    every = {item for one in lists for item in one}
    scores = {item: sum(1 / (k + one.index(item) + 1) for one in lists if item in one) for item in every}
    found, given_scores = reciprocal_rank_fusion([codes(*one) for one in lists], [1.0] * len(lists), k, BY_ID)
    assert found.tolist() == sorted(every, key=lambda item: (-round(scores[item], 12), item))
    assert given_scores == pytest.approx([scores[item] for item in found.tolist()])


def brute_force(items: Vectors, query: Vectors, count: int, barred: Codes, ranks: Sequence[int]) -> list[int]:
    cosines = {place: float(np.dot(items[place].astype(float), query.astype(float))) for place in range(len(items))}
    there = [place for place in cosines if items[place].any() and place not in barred.tolist()]
    # np.dot may round otherwise than the search's own sum: what is nearer than that is the same.
    return sorted(there, key=lambda place: (-round(cosines[place], 9), ranks[place]))[:count]


_VECTORS = arrays.arrays(np.int8, st.tuples(st.integers(1, 30), st.just(3)), elements=st.integers(-2, 2))


@given(_VECTORS, st.integers(1, 35), st.lists(st.integers(0, 29), unique=True), st.randoms(use_true_random=False))
def test_exact_search_is_brute_force_with_ties(raw: Any, count: int, barred: list[int], draw: Any) -> None:
    """Few directions in three dimensions: many items are the very same, some have no vector."""
    lengths = np.linalg.norm(raw, axis=1, keepdims=True)
    items = (raw / np.where(lengths, lengths, 1)).astype(np.float32)
    ranks = list(range(len(items)))
    draw.shuffle(ranks)
    bars = codes(*(item for item in barred if item < len(items)))
    queries = items[:5]
    found = ExactIndex(items, np.array(ranks)).search(queries, count, [bars] * len(queries))
    for query, mine in zip(queries, found, strict=True):
        assert mine.tolist() == brute_force(items, query, count, bars, ranks)


def test_equal_vectors_tie_wherever_they_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Matrix products round by place: 1,000 copies of one vector stand in the order given, in blocks of any size."""
    draw = np.random.default_rng(0)
    one = draw.normal(size=(1, 37)).astype(np.float32)
    items = np.repeat(one / np.linalg.norm(one), 1_000, axis=0)
    ranks = draw.permutation(1_000)
    wanted = np.argsort(ranks)[:20].tolist()
    for block in (1, 5_000, 2**24):
        monkeypatch.setattr(vector_search, "_BLOCK", block)
        found = ExactIndex(items, ranks).search(items[:7], 20, [NOTHING] * 7)
        assert [one.tolist() for one in found] == [wanted] * 7


def test_faiss_finds_nearly_all_that_exact_search_finds_and_the_same_each_time() -> None:
    pytest.importorskip("faiss")
    draw = np.random.default_rng(1)
    centres = draw.normal(size=(50, 16))
    items = centres[draw.integers(0, 50, 5_000)] + draw.normal(size=(5_000, 16))
    items = (items / np.linalg.norm(items, axis=1, keepdims=True)).astype(np.float32)
    items[7] = 0
    barred = [codes(*draw.choice(5_000, 30, replace=False)) for _ in range(40)]
    exact, index = ExactIndex(items, np.arange(5_000)), FaissIndex(items, np.arange(5_000))
    wanted = exact.search(items[10:50], 50, barred)
    found = index.search(items[10:50], 50, barred)
    hits = [len(np.intersect1d(one, other)) / 50 for one, other in zip(wanted, found, strict=True)]
    assert np.mean(hits) > 0.9
    assert all(len(one) == 50 and not np.isin(one, bar).any() for one, bar in zip(found, barred, strict=True))
    again = FaissIndex(items, np.arange(5_000)).search(items[10:50], 50, barred)
    assert all(np.array_equal(one, other) for one, other in zip(found, again, strict=True))


def test_which_index_is_made() -> None:
    items = np.eye(3, dtype=np.float32)
    assert isinstance(make_index(items, np.arange(3)), ExactIndex)
    assert isinstance(make_index(items, np.arange(3), "exact"), ExactIndex)


# Users 0 and 1 have items 0 and 1, user 2 has 1 and 2; items 3 and 4 are nobody's.
LOG = KnownLog(np.array([0, 2, 4, 6]), codes(0, 1, 0, 1, 1, 2), 5)
ITEMS = np.array([[1, 0], [0.6, 0.8], [0, 1], [0.8, 0.6], [0, 0]], np.float32)


def inputs(summaries: dict[str, Sequence[float]], **settings: Any) -> RetrieverInputs:
    def of_users(users: Sequence[RetrievalUser]) -> Vectors:
        return np.array([summaries.get(one.id, (0, 0)) for one in users], np.float32)

    fusion = settings.pop("fusion", FusionConfig())
    return RetrieverInputs(LOG, ContentVectors(ITEMS, of_users, **settings), fusion)


def test_popular_items_come_by_their_number_then_by_id() -> None:
    users = [RetrievalUser("a", codes(1), codes(1)), RetrievalUser("b", NOTHING, NOTHING)]
    found = row_of("popular").make(inputs({}), 3)(users)
    assert [one.items.tolist() for one in found] == [[0, 2, 3], [1, 0, 2]]


def test_content_is_the_summary_else_the_mean_of_the_history_else_what_is_popular() -> None:
    """The summary points at item 2; the mean of items 0 and 1 is (1.6, .8), which item 3 is nearest to."""
    users = [
        RetrievalUser(name, history, history)
        for name, history in (("told", codes(0)), ("mute", codes(0, 1)), ("new", NOTHING))
    ]
    found = row_of("embedding").make(inputs({"told": (0, 1)}), 4)(users)
    assert [one.items.tolist() for one in found] == [[2, 1, 3, 4], [3, 2, 4], [1, 0, 2, 3]]
    assert [one.filled_from for one in found] == [3, 2, 0]  # item 4 has no vector: it is a popular one, the last
    assert [one.query for one in found] == ["summary", "history", ""]


def test_a_user_with_both_is_searched_by_what_the_settings_say() -> None:
    users = [RetrievalUser("told", codes(0), codes(0)), RetrievalUser("told", NOTHING, NOTHING)]
    content = inputs({"told": (0, 1)}, users="history").content
    assert content is not None
    vectors, queries = query_vectors(content, users)
    assert queries == ["history", "summary"]
    assert vectors.tolist() == [[1, 0], [0, 1]]


def test_fusion_leaves_out_what_fills_its_members_up_and_fills_up_itself() -> None:
    pytest.importorskip("implicit")
    fusion = FusionConfig(retrievers=("item-knn", "embedding"), weights=(1, 2))
    user = RetrievalUser("told", codes(0), codes(0))
    made = inputs({"told": (0, 1)}, fusion=fusion)
    knn, content = (row_of(name).make(made, 4)([user])[0] for name in ("item-knn", "embedding"))
    assert (knn.items[: knn.filled_from].tolist(), content.items[: content.filled_from].tolist()) == ([1], [2, 1, 3])
    (found,) = row_of("fused").make(made, 4)([user])
    assert found.items.tolist() == [1, 2, 3, 4]  # 1/61 + 2/62, 2/61, 2/63
    assert (found.filled_from, found.query) == (3, "summary")


def test_a_user_without_a_history_gets_popular_items_from_every_retriever() -> None:
    pytest.importorskip("implicit")
    user = RetrievalUser("new", NOTHING, codes(0))
    for name in RETRIEVER_NAMES:
        (found,) = row_of(name).make(inputs({}), 3)([user])
        assert found.items.tolist() == [1, 2, 3], name


def test_the_table_says_what_is_needed() -> None:
    assert set(get_args(FusedName)) == {name for name in RETRIEVER_NAMES if not row_of(name).fuses}
    assert [row.name for row in members("fused", FusionConfig())] == ["popular", "item-knn", "embedding"]
    assert needs_content("embedding", FusionConfig())
    assert needs_content("fused", FusionConfig())
    assert not needs_content("fused", FusionConfig(retrievers=("popular",)))
    assert not needs_content("item-knn", FusionConfig())


@pytest.mark.parametrize(("settings", "said"), [
    ({"retrievers": ["popular", "popular"]}, "twice"),
    ({"retrievers": ["popular"], "weights": [1, 2]}, "2 for 1 retrievers"),
    ({"retrievers": ["popular"], "weights": [0]}, "all are 0"),
    ({"retrievers": []}, "at least 1"),
])  # fmt: skip
def test_a_fusion_that_fuses_nothing_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        FusionConfig.model_validate(settings)
