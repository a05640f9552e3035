"""Are two scorers really different? Paired tests on the same users.

The unit is the user: `paired_values` gives each metric one value per user whose mean is the metric.
"""

from collections.abc import Mapping, Sequence
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from msr_adapter.arrays import Floats
from msr_adapter.metrics.catalogue import GroupMetrics
from msr_adapter.metrics.pooled_auc import pooled_auc_per_user

ALPHA, POWER = 0.05, 0.8
"""Two-sided error and power of the smallest difference that can be shown."""

_CHUNK_SIGNS = 2**22
_EXACT_USERS = 12


def paired_values(result: GroupMetrics) -> dict[str, Floats]:
    """Return metric -> values (users,) whose mean is the metric; of ``auc``, the AUC plus the user's influence."""
    values = result.per_user | {name: pooled_auc_per_user(result.groups) for name in result.pooled}
    return {name: values[name] for name in result.names}


def sign_flip_test(differences: Floats, samples: int, seed: int) -> Floats:
    """Return two-sided p-values (metrics,) of paired ``differences`` (users, metrics) whose mean should be zero.

    Were the two scorers alike, each user's difference could as well have the other sign (Fisher, 1935). With up to 12
    users that differ, all signs are tried; else ``samples`` random ones and the observed one, so that p is never zero
    (Phipson and Smyth, 2010). Equal seed and users, equal signs. O(samples x users x metrics) time.
    """
    differing = differences[np.any(differences != 0, axis=1)]
    observed = np.abs(differing.sum(axis=0))
    slack = 1e-12 * np.abs(differing).sum(axis=0)  # sums of the same numbers in another order are not above
    if len(differing) <= _EXACT_USERS:
        codes = np.arange(2 ** len(differing))[:, None] >> np.arange(len(differing))
        return np.asarray((np.abs((1 - 2 * (codes & 1)) @ differing) >= observed - slack).mean(axis=0))
    generator, reached = np.random.default_rng(seed), np.zeros(differences.shape[1])
    chunk = max(1, _CHUNK_SIGNS // len(differing))
    for start in range(0, samples, chunk):
        # Floats, because NumPy has a fast matrix product for nothing else.
        signs = generator.integers(0, 2, (min(chunk, samples - start), len(differing)), np.int8) * 2.0 - 1
        reached += (np.abs(signs @ differing) >= observed - slack).sum(axis=0)
    return np.asarray((reached + 1) / (samples + 1))


def holm(p_values: npt.ArrayLike) -> Floats:
    """Return p-values (tests,) adjusted for their number: the chance of any false alarm stays below the level.

    Holm, "A simple sequentially rejective multiple test procedure", 1979.
    """
    values = np.asarray(p_values, np.float64)
    order = np.argsort(values, kind="stable")
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    adjusted = np.empty(len(values))
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted


def smallest_difference(standard_error: float) -> float:
    """Return the smallest true difference that a two-sided 5% test shows with 80% power: 2.80 standard errors.

    The standard error is of the paired difference: SD of the users' differences / sqrt(users), or the SD of the
    bootstrapped difference. Cohen, "Statistical Power Analysis for the Behavioral Sciences", 1988.
    """
    normal = NormalDist()
    return (normal.inv_cdf(1 - ALPHA / 2) + normal.inv_cdf(POWER)) * standard_error


def standard_errors(
    first: GroupMetrics,
    second: GroupMetrics,
    draws: Mapping[str, Floats],
    others: Mapping[str, Floats],
    names: Sequence[str],
) -> dict[str, float]:
    """Return metric -> standard error of first minus second: from the users' SD; of ``auc``, from the bootstrap.

    ``draws`` and ``others`` are the two scorers' paired bootstraps. Needs two users.
    """
    errors = {}
    for name in names:
        if name in first.pooled:
            errors[name] = float(np.std(draws[name] - others[name], ddof=1))
        else:
            gaps = first.per_user[name] - second.per_user[name]
            errors[name] = float(np.std(gaps, ddof=1) / np.sqrt(len(gaps)))
    return errors
