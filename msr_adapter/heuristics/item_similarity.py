"""Items that the same users interact with: the cosines of items over their users, through `implicit`."""

from typing import Any

import numpy as np

from msr_adapter.arrays import Codes, Floats

NEIGHBOURS = 200
"""Nearest items that an item keeps."""


def item_similarity(
    user: Codes, item: Codes, shape: tuple[int, int], neighbours: int = NEIGHBOURS, damping: float = 0.0,
    weight: Floats | None = None,
) -> Any:  # fmt: skip
    """Return a sparse (items, items) of cosines from a log of distinct pairs (rows,); each item keeps ``neighbours``.

    The cosine of two items is common users / sqrt(users x users) (Sarwar et al., "Item-Based Collaborative Filtering
    Recommendation Algorithms", WWW 2001); ``damping`` is added to both counts of users.
    Where a pair is weighed (rows,), the cosine is that of the weights. ``shape``: how many users and items there are.
    """
    from implicit.nearest_neighbours import ItemItemRecommender
    from scipy.sparse import csr_matrix
    from threadpoolctl import threadpool_limits

    model = ItemItemRecommender(K=neighbours, num_threads=1)
    # Columns of length one: then the library's item products are cosines.
    squares = np.bincount(item, None if weight is None else weight**2, minlength=shape[1])
    lengths = np.sqrt(squares + damping)
    pairs = csr_matrix((np.ones(len(user), np.float32) if weight is None else weight, (user, item)), shape=shape)
    if weight is not None:
        pairs.eliminate_zeros()  # what counts nothing has no length either
    pairs.data = (1 if weight is None else pairs.data) / lengths[pairs.indices]
    with threadpool_limits(1):
        model.fit(pairs, show_progress=False)
    return model.similarity
