"""What most users have; where users come back to what they had, led by their own."""

from collections.abc import Sequence

import numpy as np

from msr_adapter.arrays import Codes
from msr_adapter.retrieval.asked_users import Found, KnownLog, RetrievalUser, Retrieve, RetrieverInputs, without


def make_popular(inputs: RetrieverInputs, count: int) -> Retrieve:
    """Return what retrieves the ``count`` most popular items, half of them at most the user's own if `again`."""
    if inputs.again:
        return _own_and_popular(inputs.log, count)
    return first_of(inputs.log.by_popularity, count, inputs.log)


def first_of(pool: Codes, count: int, log: KnownLog) -> Retrieve:
    """Take the first ``count`` of ``pool``; without a history, the most popular of it."""
    popular = pool[np.argsort(log.ranks[pool], kind="stable")]

    def retrieve(users: Sequence[RetrievalUser]) -> list[Found]:
        return [whole(without(one.barred, pool if len(one.history) else popular, count)) for one in users]

    return retrieve


def _own_and_popular(log: KnownLog, count: int) -> Retrieve:
    """Take what the user had, most often first, up to half of ``count``; then the most popular other items."""

    def retrieve(users: Sequence[RetrievalUser]) -> list[Found]:
        found = []
        for one in users:
            own = without(one.barred, _most_often(one.history), (count + 1) // 2)
            more = without(np.concatenate([own, one.barred]), log.by_popularity, count - len(own))
            items = np.concatenate([own, more])
            found.append(Found(items, len(items), len(own)))
        return found

    return retrieve


def _most_often(history: Codes) -> Codes:
    """Return the distinct items of a history, the most frequent first; of equals the one interacted with last."""
    items, last, often = np.unique(history[::-1], return_index=True, return_counts=True)
    return items[np.lexsort((last, -often))].astype(np.int32)


def whole(items: Codes) -> Found:
    """Return a list that nothing fills up."""
    return Found(items, len(items))
