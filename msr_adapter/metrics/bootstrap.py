"""Bootstrap over users: how much would the numbers move with other users of the same kind?

Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13: the percentile interval. Users are resampled
whole, because the candidates of one user are not independent; so is the pooled AUC.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from msr_adapter.arrays import Floats, Integers
from msr_adapter.metrics.catalogue import GroupMetrics
from msr_adapter.metrics.pooled_auc import PooledResampler, available_threads

_CHUNK_COUNTS = 2**22


def bootstrap(result: GroupMetrics, samples: int, seed: int, *, threads: int | None = None) -> dict[str, Floats]:
    """Return metric -> its value in each of ``samples`` resamples of the users, float64 (samples,).

    Equal ``seed`` and number of users give the same resamples whatever the scores, so that differences between two
    scorers are paired. O(samples x users) time, O(samples x n) with the pooled AUC; memory is one chunk of resamples
    and, for the pooled AUC, four int64 per score and thread.
    """
    users = result.groups.users
    values = np.stack([*result.per_user.values(), np.zeros(users)], axis=1)  # never without a column
    resampler = PooledResampler(result.groups) if result.pooled else None
    workers = threads or available_threads()
    means, pooled = [], []
    for weights in resamples(users, samples, seed):
        means.append(weights @ values / users)
        if resampler is not None:
            pooled.append(_pooled(resampler, weights, workers))
    draws = dict(zip(result.per_user, np.concatenate(means).T, strict=False))  # without the column of zeros
    if pooled:
        draws |= dict.fromkeys(result.pooled, np.concatenate(pooled))  # one metric: the pooled AUC
    return {name: draws[name] for name in result.names}


def resamples(users: int, samples: int, seed: int) -> Iterator[Integers]:
    """Yield chunks (some, users) of how often each user is drawn; the chunk size does not change the draws."""
    generator = np.random.default_rng(seed)
    chunk = max(1, _CHUNK_COUNTS // users)
    for start in range(0, samples, chunk):
        count = min(chunk, samples - start)
        yield np.stack([np.bincount(generator.integers(0, users, users), minlength=users) for _ in range(count)])


def _pooled(resampler: PooledResampler, weights: Integers, workers: int) -> Floats:
    shares = [share for share in np.array_split(weights, workers) if len(share)]
    if len(shares) == 1:
        return resampler.auc(shares[0])
    with ThreadPoolExecutor(workers) as pool:
        return np.concatenate(list(pool.map(resampler.auc, shares)))


def percentile_interval(draws: Floats, level: float) -> tuple[float, float]:
    """Return the central ``level`` (0.95 = 95%) of the resampled values as (low, high)."""
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
