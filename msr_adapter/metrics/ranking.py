"""Formulas for users with one positive, from two counts: candidates above the positive and negatives tied with it.

With ``g`` above and ``e`` tied, a random order of the ties puts the positive on each rank ``g + 1 .. g + e + 1`` with
equal probability. Every metric is its mean over these ranks: the exact expected value over all tie orders (McSherry and
Najork, "Computing Information Retrieval Performance Measures Efficiently in the Presence of Tied Scores", ECIR 2008).
All functions return float64 (users,), in O(users).
"""

from collections.abc import Callable

import numpy as np

from msr_adapter.arrays import Floats
from msr_adapter.metrics.groups import Standing


def expected_rank(standing: Standing) -> Floats:
    """Return the positive's mean rank over tie orders, 1 = best: ``g + 1 + e / 2``."""
    return standing.greater + 1 + standing.equal / 2


def user_auc(standing: Standing) -> Floats:
    """Return the share of negatives below the positive, ties counting half (Hanley and McNeil, 1982).

    Every group needs a negative.
    """
    negatives = standing.sizes - 1
    return np.asarray((negatives - standing.greater - standing.equal / 2) / negatives)


def hit_rate(standing: Standing, k: int) -> Floats:
    """Return HR@k, the probability that the positive is among the first k; with one positive also Recall@k."""
    return np.clip((k - standing.greater) / (standing.equal + 1), 0.0, 1.0)


def precision(standing: Standing, k: int) -> Floats:
    """Return Precision@k, the share of the first k places that hold the positive: HR@k / k."""
    return hit_rate(standing, k) / k


def reciprocal_rank(standing: Standing, k: int) -> Floats:
    """Return MRR@k: ``1 / rank`` up to rank k, zero below (Voorhees, TREC-8, 1999); with one positive also MAP@k."""
    return _mean_gain(standing, k, lambda ranks: 1 / ranks)


def ndcg(standing: Standing, k: int) -> Floats:
    """Return NDCG@k: ``1 / log2(rank + 1)`` up to rank k (Jarvelin and Kekalainen, 2002); the ideal DCG is 1."""
    return _mean_gain(standing, k, lambda ranks: 1 / np.log2(ranks + 1))


def _mean_gain(standing: Standing, k: int, gain: Callable[[Floats], Floats]) -> Floats:
    """Average ``gain(rank)``, zero beyond rank k, over the tied ranks.

    One table of prefix sums of the gains serves all users: a mean over consecutive ranks is a difference of two sums.
    """
    greater, equal = standing.greater, standing.equal
    last = greater + equal + 1
    depth = min(k, int(last.max()))  # no rank is deeper, whatever k is
    prefix = np.concatenate([[0.0], np.cumsum(gain(np.arange(1.0, depth + 1)))])
    total = prefix[np.minimum(last, depth)] - prefix[np.minimum(greater, depth)]
    return np.asarray(total / (equal + 1))
