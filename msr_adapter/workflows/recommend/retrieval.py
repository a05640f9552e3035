"""Candidates per user, best first: popular items, nearest neighbours, the whole catalogue, or those of a file."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from msr_adapter.arrays import Codes, Integers
from msr_adapter.heuristics.item_similarity import item_similarity
from msr_adapter.workflows.recommend.histories import Histories
from msr_adapter.workflows.recommend.request import Retrieval

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_EMPTY = np.empty(0, np.int32)


@dataclass(frozen=True)
class Found:
    """The candidates of one user."""

    items: Codes
    """In the order of retrieval: the model's ties are broken by it."""
    filled_from: int
    """From this place on they are popular items that fill up what the retrieval left short."""
    own: int = 0
    """The first ones that were taken from the user's own history."""


@dataclass(frozen=True)
class RetrievalUser:
    """Who candidates are retrieved for."""

    id: str
    history: Codes
    """Rows of ITEMS, oldest first."""
    barred: Codes
    """What is not recommended: of what the user has seen, what must not come again."""


Retrieve = Callable[[Sequence[RetrievalUser]], list[Found]]
"""Returns the candidates of each user."""


def make_retriever(
    retrieval: Retrieval, histories: Histories, listed: pl.DataFrame | None, *, again: bool = False
) -> Retrieve:
    """Return what retrieves; popularity and neighbours are those of all interactions, nothing held out.

    ``listed`` is the content of a file of candidates: item_id, perhaps with user_id, all of the catalogue. ``again``:
    users come back to what they had, so popular items are led by the user's own.
    """
    order = by_popularity(histories)
    if retrieval.kind == "file":
        assert listed is not None
        found = pc.index_in(listed["item_id"].to_arrow().cast(pa.string()), value_set=histories.items)
        codes: Codes = np.asarray(found.to_numpy(), dtype=np.int32)
        if "user_id" in listed.columns:
            return _of_pairs(_by_user(listed["user_id"], codes), order)
        return _popular(codes, len(codes), order)
    if retrieval.kind == "item-knn":
        return _neighbours(histories, order, retrieval.count)
    if again and retrieval.count:
        return _own_and_popular(order, retrieval.count)
    return _popular(order, retrieval.count or len(order), order)


def by_popularity(histories: Histories) -> Codes:
    """Return the catalogue, most popular first; equally popular items in the order of their ids."""
    return np.argsort(-histories.popularity(), kind="stable").astype(np.int32)


def _popular(pool: Codes, count: int, popularity: Codes) -> Retrieve:
    """Take the first ``count`` of ``pool``; without a history, the most popular of it."""
    rank = _ranks(popularity)
    popular = pool[np.argsort(rank[pool], kind="stable")]

    def retrieve(users: Sequence[RetrievalUser]) -> list[Found]:
        return [_whole(_without(one.barred, pool if len(one.history) else popular, count)) for one in users]

    return retrieve


def _own_and_popular(popularity: Codes, count: int) -> Retrieve:
    """Take what the user had, most often first, up to half of ``count``; then the most popular other items."""

    def retrieve(users: Sequence[RetrievalUser]) -> list[Found]:
        found = []
        for one in users:
            own = _without(one.barred, _most_often(one.history), (count + 1) // 2)
            more = _without(np.concatenate([own, one.barred]), popularity, count - len(own))
            items = np.concatenate([own, more])
            found.append(Found(items, len(items), len(own)))
        return found

    return retrieve


def _most_often(history: Codes) -> Codes:
    """Return the distinct items of a history, the most frequent first; of equals the one interacted with last."""
    items, last, often = np.unique(history[::-1], return_index=True, return_counts=True)
    return items[np.lexsort((last, -often))].astype(np.int32)


def _of_pairs(lists: Mapping[str, Codes], popularity: Codes) -> Retrieve:
    """Take each user's own candidates, by id; of a user without a history, the most popular first."""
    rank = _ranks(popularity)

    def retrieve(users: Sequence[RetrievalUser]) -> list[Found]:
        found = []
        for one in users:
            pool = lists.get(one.id, _EMPTY)
            pool = pool if len(one.history) else pool[np.argsort(rank[pool], kind="stable")]
            found.append(_whole(_without(one.barred, pool, len(pool))))
        return found

    return retrieve


def _neighbours(known: Histories, popularity: Codes, count: int) -> Retrieve:
    """Take the items with the largest sum of cosines to the history; what is missing to ``count`` is popular items."""
    users, items = len(known.users), len(known.items)
    owner = np.repeat(np.arange(users), np.diff(known.offsets))
    # A pair counts once in the sets of users that are compared; without repeats, all are kept in their order.
    once = np.sort(np.unique(owner * items + known.codes, return_index=True)[1])
    similarity = item_similarity(owner[once], known.codes[once], users, items)
    rank = _ranks(popularity)

    def retrieve(users: Sequence[RetrievalUser]) -> list[Found]:
        near = _incidence([one.history for one in users], items) @ similarity
        found = []
        for row, one in enumerate(users):
            part = slice(near.indptr[row], near.indptr[row + 1])
            close, cosines = near.indices[part], near.data[part]
            best = close[np.lexsort((rank[close], -cosines))].astype(np.int32)  # by cosine, equal ones by popularity
            best = _without(one.barred, best, count)
            more = _without(np.concatenate([best, one.barred]), popularity, count)
            found.append(Found(np.concatenate([best, more[: count - len(best)]]), len(best)))
        return found

    return retrieve


def _incidence(histories: Sequence[Codes], items: int) -> "csr_matrix":
    """Return how often each history has each item: (histories, items)."""
    from scipy.sparse import csr_matrix

    offsets = np.cumsum([0, *map(len, histories)])
    codes = np.concatenate([_EMPTY, *histories])
    return csr_matrix((np.ones(len(codes)), codes, offsets), shape=(len(histories), items))


def _without(barred: Codes, pool: Codes, count: int) -> Codes:
    """Return the first ``count`` of ``pool`` that are not ``barred``."""
    if not len(barred):
        return pool[:count]
    # No more than what is barred can be in the way.
    front = pool[: count + len(barred)]
    return front[~np.isin(front, barred)][:count]


def _whole(items: Codes) -> Found:
    return Found(items, len(items))


def _ranks(order: Codes) -> Integers:
    """Return the place of each item in ``order``, which holds them all: (items,)."""
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order))
    return ranks


def _by_user(users: pl.Series, codes: Codes) -> dict[str, Codes]:
    grouped = pl.DataFrame({"user": users, "code": codes}).group_by("user", maintain_order=True).agg("code")
    return {user: np.asarray(items, np.int32) for user, items in grouped.iter_rows()}
