"""Are scorers really different? Paired tests on the same users, for many comparisons at once.

The unit is the user: `paired_values` gives each metric one value per user whose mean is the metric.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from msr_adapter.arrays import Floats, Integers, Mask
from msr_adapter.metrics.catalogue import GroupMetrics
from msr_adapter.metrics.pooled_auc import pooled_auc_per_user

ALPHA, POWER = 0.05, 0.8
"""Two-sided error and power of the smallest difference that can be shown."""

_CHUNK = 2**22
_EXACT_USERS = 12
_NOISE = 1e-12
"""Differences of values up to 1 that are rounding alone."""


def paired_values(result: GroupMetrics) -> dict[str, Floats]:
    """Return metric -> values (users,) whose mean is the metric; of ``auc``, the AUC plus the user's influence."""
    values = result.per_user | {name: pooled_auc_per_user(result.groups) for name in result.pooled}
    return {name: values[name] for name in result.names}


@dataclass(frozen=True)
class ComparisonFamily:
    """Comparisons among which somebody may pick the most striking one: their p-values are adjusted together."""

    adjusted: Floats
    """p-values (comparisons,): the chance that any comparison without a true difference comes out below one of them."""
    critical: float
    """How many standard errors a difference needs to be below `ALPHA`: 1.96 or more."""


@dataclass(frozen=True)
class SignFlips:
    """What random signs of the users' differences tell of comparisons."""

    p: Floats
    """Two-sided p-values (comparisons,), each for itself."""
    families: tuple[ComparisonFamily, ...]


def sign_flips(
    values: Floats, pairs: npt.ArrayLike, families: Sequence[npt.ArrayLike], samples: int, seed: int
) -> SignFlips:
    """Test differences between columns of ``values`` (users, columns): ``pairs`` (comparisons, 2) of their numbers.

    Were two scorers alike, each user's difference could as well have the other sign (Fisher, 1935). With up to 12
    users that differ all signs are tried; else ``samples`` random ones and the observed one, so that p is never zero
    (Phipson and Smyth, 2010). All comparisons get the same signs, which keeps what they have in common. Each of
    ``families`` (rows of ``pairs``) is adjusted by the step-down maximum of its standardised differences (Westfall and
    Young, 1993; Romano and Wolf, 2005). O(samples x (users x columns + comparisons)) time; memory is a chunk of it.
    """
    first, second = np.asarray(pairs, np.int64).reshape(-1, 2).T
    observed, norms, differing = _observe(values, first, second)
    values = values[differing]
    steps = [_StepDown(observed, np.asarray(rows, np.int64)) for rows in families]
    reached = np.zeros(len(first))
    for signs in _signs(len(values), len(first), samples, seed):
        sums = signs @ values
        flipped = np.abs(sums[:, first] - sums[:, second]) / norms
        reached += (flipped >= observed).sum(axis=0)
        for step in steps:
            step.add(flipped)
    add, total = (0, 2 ** len(values)) if len(values) <= _EXACT_USERS else (1, samples + 1)
    return SignFlips((reached + add) / total, tuple(step.family(add, total) for step in steps))


class _StepDown:
    """Counts how often the largest of a family's comparisons, and of those not larger than each, come out as large."""

    def __init__(self, observed: Floats, rows: Integers) -> None:
        self._places = np.argsort(-observed[rows], kind="stable")  # in the family, the most striking one first
        self._order = rows[self._places]
        self._observed, self._reached = observed[self._order], np.zeros(len(rows))
        self._largest: list[Floats] = []

    def add(self, flipped: Floats) -> None:
        """Count some sign patterns: ``flipped`` (patterns, comparisons)."""
        if len(self._order):
            maxima = np.maximum.accumulate(flipped[:, self._order[::-1]], axis=1)[:, ::-1]
            self._reached += (maxima >= self._observed).sum(axis=0)
            self._largest.append(maxima[:, 0])

    def family(self, add: int, total: int) -> ComparisonFamily:
        """Return the adjusted p-values in the order in which the family was given."""
        adjusted = np.empty(len(self._order))
        adjusted[self._places] = np.maximum.accumulate((self._reached + add) / total)
        critical = NormalDist().inv_cdf(1 - ALPHA / 2)
        if len(self._order) > 1:  # of one comparison alone, the quantile is known
            critical = max(critical, float(np.quantile(np.concatenate(self._largest), 1 - ALPHA, method="higher")))
        return ComparisonFamily(adjusted, critical)


def _observe(values: Floats, first: Integers, second: Integers) -> tuple[Floats, Floats, Mask]:
    """Return each comparison's standardised difference and its norm (comparisons,), and which users differ (users,).

    The sum of the users' differences over the root of their squares: signs do not change the latter, and Student's t
    rises with it. A hair is taken off: sums of the same numbers in another order are not below.
    """
    observed, norms, differing = np.zeros(len(first)), np.full(len(first), np.inf), np.zeros(len(values), bool)
    for row, (one, other) in enumerate(zip(first.tolist(), second.tolist(), strict=True)):
        gaps = values[:, one] - values[:, other]
        if np.abs(gaps).max() <= _NOISE:
            continue
        norms[row] = np.sqrt(np.square(gaps).sum())
        observed[row] = abs(gaps.sum()) / norms[row] - 1e-9
        differing |= np.abs(gaps) > _NOISE
    return observed, norms, differing


def _signs(users: int, comparisons: int, samples: int, seed: int) -> Iterator[Floats]:
    """Yield chunks (some, users) of 1 and -1: every pattern of few users, else random ones; the chunk changes none."""
    chunk = max(1, _CHUNK // max(users, comparisons, 1))
    total = 2**users if users <= _EXACT_USERS else samples
    generator = np.random.default_rng(seed)
    for start in range(0, total, chunk):
        count = min(chunk, total - start)
        if users <= _EXACT_USERS:
            yield np.asarray(1 - 2 * ((np.arange(start, start + count)[:, None] >> np.arange(users)) & 1), np.float64)
        else:  # floats, because NumPy has a fast matrix product for nothing else
            yield generator.integers(0, 2, (count, users), np.int8) * 2.0 - 1


def smallest_difference(standard_error: float, critical: float | None = None) -> float:
    """Return the smallest true difference that a two-sided 5% test shows with 80% power: 2.80 standard errors.

    The standard error is of the paired difference: SD of the users' differences / sqrt(users). ``critical``: how many
    standard errors the test asks for, 1.96 unless several are tested together. Cohen, "Statistical Power Analysis for
    the Behavioral Sciences", 1988.
    """
    normal = NormalDist()
    needed = normal.inv_cdf(1 - ALPHA / 2) if critical is None else critical
    return (needed + normal.inv_cdf(POWER)) * standard_error


def standard_error(first: Floats, second: Floats) -> float:
    """Return the standard error of the mean of ``first`` minus ``second`` (users,).

    Zero with one user, and where no user differs.
    """
    gaps = first - second
    if len(gaps) < 2 or np.abs(gaps).max() <= _NOISE:
        return 0.0
    return float(np.std(gaps, ddof=1) / np.sqrt(len(gaps)))
