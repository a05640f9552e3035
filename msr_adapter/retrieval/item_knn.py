"""What the users of a history's items have too: the items with the largest sum of cosines over users."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from msr_adapter.arrays import Codes
from msr_adapter.heuristics.item_similarity import item_similarity
from msr_adapter.retrieval.asked_users import Found, RetrievalUser, Retrieve, RetrieverInputs, filled, without

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


def make_item_knn(inputs: RetrieverInputs, count: int) -> Retrieve:
    """Take the items with the largest sum of cosines to the history; what is missing to ``count`` is popular items."""
    log = inputs.log
    users = len(log.offsets) - 1
    owner = np.repeat(np.arange(users), np.diff(log.offsets))
    # A pair counts once in the sets of users that are compared; without repeats, all are kept in their order.
    once = np.sort(np.unique(owner * log.items + log.codes, return_index=True)[1])
    similarity = item_similarity(owner[once], log.codes[once], (users, log.items))

    def retrieve(users: Sequence[RetrievalUser]) -> list[Found]:
        near = _incidence([one.history for one in users], log.items) @ similarity
        found = []
        for row, one in enumerate(users):
            part = slice(near.indptr[row], near.indptr[row + 1])
            close, cosines = near.indices[part], near.data[part]
            best = close[np.lexsort((log.ranks[close], -cosines))].astype(np.int32)  # equal cosines by popularity
            found.append(filled(one, without(one.barred, best, count), count, log))
        return found

    return retrieve


def _incidence(histories: Sequence[Codes], items: int) -> "csr_matrix":
    """Return how often each history has each item: (histories, items)."""
    from scipy.sparse import csr_matrix

    offsets = np.cumsum([0, *map(len, histories)])
    codes = np.concatenate([np.empty(0, np.int32), *histories])
    return csr_matrix((np.ones(len(codes)), codes, offsets), shape=(len(histories), items))
