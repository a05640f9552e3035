"""Collaborative filtering: item-based nearest neighbours, and matrix factorisation through `implicit`."""

from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from msr_adapter.arrays import Floats
from msr_adapter.config.schema import FactorsConfig, ItemKNNConfig
from msr_adapter.evaluate.baselines.training_log import CatalogueScorer, Fit, Queries
from msr_adapter.heuristics.item_similarity import item_similarity


def fit_item_knn(fit: Fit, settings: ItemKNNConfig) -> CatalogueScorer:
    """Score items by the sum of their cosines with the history's items, over training users.

    An item that training never saw scores 0. Similarities are of the sets of users; where repeats are kept, an item of
    the history counts as often as it stands there. Where events are weighed, a pair is what its heaviest event counts,
    and an item of the history what its events do.
    """
    log = fit.log
    shape = (log.users, log.items)
    similarity = item_similarity(*log.pairs(), shape, settings.neighbours, settings.damping, log.pair_weights())
    fit.advance(1)

    def score(queries: Queries, first: int, last: int) -> Floats:
        return np.asarray((queries.histories(log.items, first, last) @ similarity).toarray())

    return score


def fit_factors(fit: Fit, settings: FactorsConfig) -> CatalogueScorer:
    """Score items by alternating least squares; a test user is folded in from the history alone.

    Hu, Koren and Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008: with the item factors
    fixed, a user's factors are one least-squares problem of the items that the user interacted with; their confidence
    is 1 + alpha, or 1 + alpha times the interactions with the item, where repeats are kept. Where events are weighed,
    it goes from 1, that of an item without an interaction, in proportion to what they count. Unseen items score 0.
    """
    from implicit.als import AlternatingLeastSquares

    # An item that training never saw has no factors: its being there would change the random beginnings of the others.
    log, trained = fit.log, fit.log.trained()
    with threadpool_limits(1):  # sums over threads differ in their last bits: one thread gives equal bits everywhere
        model = AlternatingLeastSquares(
            settings.factors, alpha=settings.confidence, iterations=settings.iterations, use_gpu=False, num_threads=1,
            random_state=fit.seed,
        )  # fmt: skip
        known = log.matrix()[:, trained]
        model.fit(known if log.weight is None else _confident(known, settings.confidence), show_progress=False)
    items = np.zeros((log.items, model.item_factors.shape[1]))
    items[trained] = model.item_factors
    fit.advance(1)

    def score(queries: Queries, first: int, last: int) -> Floats:
        histories = queries.histories(log.items, first, last)[:, trained].astype(np.float32)
        histories = histories if queries.history_weight is None else _confident(histories, settings.confidence)
        with threadpool_limits(1):
            # The numbers only count the rows: `implicit` solves for the histories given, not for users that it knows.
            users = model.recalculate_user(np.arange(last - first), histories).astype(np.float64)
        return np.asarray(users @ items.T)

    return score


def _confident(weights: Any, alpha: float) -> Any:
    """Return what the library, which multiplies by ``alpha``, makes confidences of: 1 + (alpha - 1) times the weight.

    So a weight of 1 is as confident as without weights, and none is less so than an item without an interaction.
    """
    weights.eliminate_zeros()
    weights.data = ((1 + (alpha - 1) * weights.data) / alpha).astype(np.float32)
    return weights
