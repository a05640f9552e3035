"""Collaborative filtering: item-based nearest neighbours, and matrix factorisation through `implicit`."""

import numpy as np
from threadpoolctl import threadpool_limits

from msr_adapter.arrays import Floats
from msr_adapter.evaluate.baselines.training_log import BaselineLog, Queries, gather
from msr_adapter.heuristics.item_similarity import item_similarity

FACTORS = 32
CONFIDENCE = 10.0
"""Weight of a seen pair against an unseen one; Hu et al. write 1 + alpha."""
ITERATIONS = 15


def item_knn_scores(log: BaselineLog, queries: Queries) -> Floats:
    """Score candidates (n,) by the sum of their cosines with the history's items, over training users.

    An item that training never saw scores 0.
    """
    similarity = item_similarity(log.user, log.item, log.users, log.items)
    seen = queries.histories(log.items)
    return gather(queries, log.items, lambda first, last: (seen[first:last] @ similarity).toarray())


def factor_scores(log: BaselineLog, queries: Queries, seed: int) -> Floats:
    """Score candidates (n,) by alternating least squares; a test user is folded in from the history alone.

    Hu, Koren and Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008: with the item factors
    fixed, a user's factors are one least-squares problem of the items that the user interacted with. Unseen items
    score 0.
    """
    from implicit.als import AlternatingLeastSquares

    with threadpool_limits(1):  # sums over threads differ in their last bits: one thread gives equal bits everywhere
        model = AlternatingLeastSquares(
            FACTORS, alpha=CONFIDENCE, iterations=ITERATIONS, use_gpu=False, num_threads=1, random_state=seed
        )
        model.fit(log.matrix(), show_progress=False)
        histories = queries.histories(log.items).astype(np.float32)
        # The numbers only count the rows: `implicit` solves for the histories given, not for users that it knows.
        users = model.recalculate_user(np.arange(queries.users), histories).astype(np.float64)
    items = model.item_factors.astype(np.float64)
    return gather(queries, log.items, lambda first, last: users[first:last] @ items.T)
