"""Item-based nearest neighbours through `implicit`."""

import numpy as np
from threadpoolctl import threadpool_limits

from msr_adapter.evaluate.baselines.queries import Floats, Queries, TrainingLog, gather

NEIGHBOURS = 200
"""Nearest items that an item keeps."""


def item_knn_scores(log: TrainingLog, queries: Queries) -> Floats:
    """Score candidates (n,) by the sum of their cosines with the history's items.

    The cosine of two items is over training users: common users / sqrt(users x users) (Sarwar et al., "Item-Based
    Collaborative Filtering Recommendation Algorithms", WWW 2001). An item that training never saw scores 0.
    """
    from implicit.nearest_neighbours import ItemItemRecommender

    model = ItemItemRecommender(K=NEIGHBOURS, num_threads=1)
    ones = log.matrix()
    # Columns of length one: then the library's item products are cosines.
    lengths = np.sqrt(np.bincount(log.item, minlength=log.items))
    ones.data = 1 / lengths[ones.indices]
    with threadpool_limits(1):
        model.fit(ones, show_progress=False)
    seen = queries.histories(log.items)
    return gather(queries, log.items, lambda first, last: (seen[first:last] @ model.similarity).toarray())
