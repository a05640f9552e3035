"""Matrix factorisation through `implicit`."""

import numpy as np
from threadpoolctl import threadpool_limits

from msr_adapter.arrays import Floats
from msr_adapter.evaluate.baselines.training_log import Queries, TrainingLog, gather

FACTORS = 32
CONFIDENCE = 10.0
"""Weight of a seen pair against an unseen one; Hu et al. write 1 + alpha."""
ITERATIONS = 15


def factor_scores(log: TrainingLog, queries: Queries, seed: int) -> Floats:
    """Score candidates (n,) by alternating least squares; a test user is folded in from the history alone.

    Hu, Koren and Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008: with the item factors
    fixed, a user's factors are one least-squares problem of what that user took. Unseen items score 0.
    """
    from implicit.als import AlternatingLeastSquares

    with threadpool_limits(1):
        model = AlternatingLeastSquares(
            FACTORS, alpha=CONFIDENCE, iterations=ITERATIONS, use_gpu=False, num_threads=1, random_state=seed
        )
        model.fit(log.matrix(), show_progress=False)
        histories = queries.histories(log.items).astype(np.float32)
        users = model.recalculate_user(np.arange(queries.users), histories).astype(np.float64)
    items = model.item_factors.astype(np.float64)
    return gather(queries, log.items, lambda first, last: users[first:last] @ items.T)
