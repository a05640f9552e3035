"""Several lists in one, by reciprocal ranks: an item that several retrievers put far up comes first."""

from collections.abc import Callable, Sequence

import numpy as np

from msr_adapter.arrays import Codes, Floats, Integers
from msr_adapter.retrieval.asked_users import Found, Query, RetrievalUser, Retrieve, RetrieverInputs, filled

_DIGITS = 12
"""Decimals of a score that count: sums of the same terms in another order are equal."""

Member = Callable[[Sequence[RetrievalUser]], list[Found]]


def make_fused(inputs: RetrieverInputs, count: int, members: Sequence[Member]) -> Retrieve:
    """Fuse the lists of ``members``, which stand for `fusion.retrievers`; without the popular items that fill them."""
    fusion, log = inputs.fusion, inputs.log
    weights = fusion.weights or (1.0,) * len(members)

    def retrieve(users: Sequence[RetrievalUser]) -> list[Found]:
        every = [member(users) for member in members]
        found = []
        for place, one in enumerate(users):
            mine = [lists[place] for lists in every]
            items, _ = reciprocal_rank_fusion([each.items[: each.filled_from] for each in mine], weights, fusion.k,
                                              log.ranks)  # fmt: skip
            query: Query = next((each.query for each in mine if each.query), "")
            found.append(filled(one, items[:count], count, log, query))
        return found

    return retrieve


def reciprocal_rank_fusion(
    lists: Sequence[Codes], weights: Sequence[float], k: int, ranks: Integers
) -> tuple[Codes, Floats]:
    """Return all items of ``lists`` (each best first, items distinct), best first, with their scores.

    The score of an item is the sum of weight / (k + rank) over the lists that have it, ranks from 1 (Cormack, Clarke
    and Buettcher, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning Methods", SIGIR 2009).
    Equal scores are ordered by ``ranks`` (items,), the place of each item in an order of all.
    """
    items = np.concatenate([np.empty(0, np.int32), *lists])
    gains = [weight / (k + np.arange(1, len(one) + 1)) for one, weight in zip(lists, weights, strict=True)]
    distinct, place = np.unique(items, return_inverse=True)
    sums = np.bincount(place, np.concatenate([np.empty(0), *gains]), len(distinct))
    scores: Floats = np.asarray(sums.round(_DIGITS), dtype=np.float64)
    order = np.lexsort((ranks[distinct], -scores))
    return distinct[order].astype(np.int32), scores[order]
