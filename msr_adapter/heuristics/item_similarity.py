"""Items that the same users interact with: the cosines of items over their users, through `implicit`."""

from typing import Any

import numpy as np

from msr_adapter.arrays import Codes

NEIGHBOURS = 200
"""Nearest items that an item keeps."""


def item_similarity(
    user: Codes, item: Codes, n_users: int, n_items: int, neighbours: int = NEIGHBOURS, damping: float = 0.0
) -> Any:
    """Return a sparse (items, items) of cosines from a log of distinct pairs (rows,); each item keeps ``neighbours``.

    The cosine of two items is common users / sqrt(users x users) (Sarwar et al., "Item-Based Collaborative Filtering
    Recommendation Algorithms", WWW 2001); ``damping`` is added to both counts of users.
    """
    from implicit.nearest_neighbours import ItemItemRecommender
    from scipy.sparse import csr_matrix
    from threadpoolctl import threadpool_limits

    model = ItemItemRecommender(K=neighbours, num_threads=1)
    # Columns of length one: then the library's item products are cosines.
    lengths = np.sqrt(np.bincount(item, minlength=n_items) + damping)
    pairs = csr_matrix((np.ones(len(user), np.float32), (user, item)), shape=(n_users, n_items))
    pairs.data = 1 / lengths[pairs.indices]
    with threadpool_limits(1):
        model.fit(pairs, show_progress=False)
    return model.similarity
