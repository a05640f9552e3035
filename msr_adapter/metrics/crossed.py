"""Intervals that cover users and trainings: how much would a mean move with other users and another training?

Values (trainings, users) are a mean, a user's part, a training's part and what is left (two crossed random effects
without replication; Searle, Casella and McCulloch, "Variance Components", 1992). The mean's variance has a part of the
users, told by many of them, and one of the trainings, told by two or three. Each asks for Student's t of its own
degrees of freedom; the variance of both is multiplied by the mean of the two, weighed by the parts (Cochran and Cox,
"Experimental Designs", 1957). What is left is in both and taken out of the trainings' part, but for a share that makes
up for how badly few trainings tell it: benchmarks/crossed.py simulates what that covers.
"""

from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from msr_adapter.arrays import Floats
from msr_adapter.metrics.intervals import Ends
from msr_adapter.metrics.paired import ALPHA, POWER

MOST_TRAININGS = 1_000
"""Of which an estimate says that so many are needed."""


@dataclass(frozen=True)
class TrainingSpread:
    """What trainings of one model add to the variance of its mean."""

    trainings: int
    between: float
    """Variance of the trainings' means."""
    left: float
    """Variance of what neither user nor training explains."""
    users: int

    @property
    def deviation(self) -> float:
        """Standard deviation of a training's true mean around that of all trainings; 0 where none shows."""
        return float(np.sqrt(max(self.between - self.left / self.users, 0.0)))


@dataclass(frozen=True)
class CrossedMean:
    """A mean over users and trainings, or a difference of two such means over the same users."""

    mean: float
    user_variance: float
    """Of the users' means (ddof 1), their share of what is left included."""
    users: int
    spreads: tuple[TrainingSpread, ...]
    """Of each model that was trained more than once."""

    def half_width(self, level: float) -> float:
        """Return half the width of the interval at ``level`` (0.95 = 95%)."""
        return self._joined(self._user_t(level) * float(np.sqrt(self.user_variance / self.users)), level)

    def widened(self, ends: Ends, level: float) -> Ends:
        """Return the ends of the interval over users and trainings, of ``ends``, those over users alone."""
        return self.mean - self._joined(self.mean - ends[0], level), self.mean + self._joined(
            ends[1] - self.mean, level
        )

    def _user_t(self, level: float) -> float:
        return student_quantile((1 + level) / 2, self.users - 1)

    def _joined(self, distance: float, level: float) -> float:
        """Return the distance of a limit over users and trainings, of that over users alone."""
        t, trainings = self._training_part(level)
        users = (distance / self._user_t(level)) ** 2
        if trainings == 0 or distance < 0:  # the latter is rounding
            return distance
        return float((distance * np.sqrt(users) + t * trainings) / np.sqrt(users + trainings))

    def _training_part(self, level: float) -> tuple[float, float]:
        """Return Student's t of the trainings, and their part of the variance of the mean."""
        parts = [one.between / one.trainings for one in self.spreads]
        if not (whole := sum(parts)):
            return 0.0, 0.0
        # Welch's degrees of freedom of a sum of variances.
        freedom = whole**2 / sum(part**2 / (one.trainings - 1) for part, one in zip(parts, self.spreads, strict=True))
        t, normal = between_quantiles((1 + level) / 2, freedom), NormalDist().inv_cdf((1 + level) / 2)
        left = sum(one.left / (one.trainings * one.users) for one in self.spreads)
        return t, max(whole - normal / t * left, 0.0)

    @property
    def p(self) -> float:
        """Two-sided p-value of a mean of zero: 1 minus the level at which the interval reaches zero."""
        if self.half_width(0.5) == 0:
            return 1.0 if self.mean == 0 else 0.0
        low, high = 0.0, 1.0  # levels
        for _ in range(30):
            level = (low + high) / 2
            low, high = (level, high) if self.half_width(level) < abs(self.mean) else (low, level)
        return 1 - low

    def trainings_needed(self) -> int | None:
        """Return of how many trainings each a 5% test finds this very difference 80% of the time.

        An estimate by the variances seen here, of `MOST_TRAININGS` at most. None where more trainings alone would
        not do, and where nothing was trained more than once.
        """
        if not self.spreads or self.mean == 0:
            return None
        left = sum(one.left / one.trainings for one in self.spreads)
        alone = max(self.user_variance - left, 0.0)
        return next((count for count in _COUNTS if self._is_found(count, alone)), None)

    def _is_found(self, trainings: int, alone: float) -> bool:
        """Tell whether a difference such as this is found with so many trainings; ``alone``: the users' own part."""
        spreads = tuple(
            TrainingSpread(trainings, one.deviation**2 + one.left / one.users, one.left, one.users)
            for one in self.spreads
        )
        users = alone + sum(one.left / trainings for one in spreads)
        again = CrossedMean(self.mean, users, self.users, spreads)
        error = users / self.users + sum(one.deviation**2 / trainings for one in spreads)
        return abs(self.mean) >= again.half_width(1 - ALPHA) + NormalDist().inv_cdf(POWER) * float(np.sqrt(error))


_COUNTS = (*range(2, 31), *range(35, 101, 5), *range(150, MOST_TRAININGS + 1, 50))


def crossed_mean(values: Floats) -> CrossedMean:
    """Return the mean of ``values`` (trainings, users) with what it varies by."""
    return _crossed(values, ())


def crossed_difference(first: Floats, second: Floats) -> CrossedMean:
    """Return the mean of ``first`` minus that of ``second``, each (trainings, users), of the same users.

    Trainings of two models have nothing in common; users have. One training is one row, and tells nothing of others.
    """
    return _crossed(first, (second,))


def _crossed(values: Floats, minus: tuple[Floats, ...]) -> CrossedMean:
    per_user = values.mean(axis=0) - sum(other.mean(axis=0) for other in minus)
    users = len(per_user)
    spreads = tuple(training_spread(one) for one in (values, *minus) if len(one) > 1)
    # One user tells as little as can be.
    variance = float(per_user.var(ddof=1)) if users > 1 else 0.25
    return CrossedMean(float(per_user.mean()), variance, max(users, 2), spreads)


def training_spread(values: Floats) -> TrainingSpread:
    """Return how ``values`` (trainings, users), two trainings or more, spread over trainings."""
    trainings, users = values.shape
    means = values.mean(axis=1)
    rest = values - means[:, None] - values.mean(axis=0) + values.mean()
    left = float(np.square(rest).sum() / ((trainings - 1) * (users - 1))) if users > 1 else 0.0
    return TrainingSpread(trainings, float(means.var(ddof=1)), left, users)


def holm(p: Floats) -> Floats:
    """Return p-values (comparisons,) adjusted for their number, whatever hangs together (Holm, 1979)."""
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted


@lru_cache(maxsize=4_096)
def student_quantile(probability: float, freedom: int) -> float:
    """Return the quantile of Student's t distribution with so many degrees of freedom; ``probability`` above 1/2."""
    if freedom > _MANY:
        return _expanded(NormalDist().inv_cdf(min(probability, 1 - 1e-16)), freedom)
    if freedom == 1:
        return float(np.tan(np.pi * (probability - 0.5)))
    low, high = 0.0, 1.0
    while student_cdf(high, freedom) < probability and high < 1e8:
        high *= 2
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if student_cdf(middle, freedom) < probability else (low, middle)
    return (low + high) / 2


def between_quantiles(probability: float, freedom: float) -> float:
    """Return Student's quantile for degrees of freedom that need not be whole, linear in their inverse."""
    low = max(int(freedom + 1e-9), 1)
    share = 0.0 if freedom <= low else (1 / low - 1 / freedom) / (1 / low - 1 / (low + 1))
    ends = (student_quantile(probability, low), student_quantile(probability, low + 1) if share else 0.0)
    return ends[0] if not share else ends[0] + share * (ends[1] - ends[0])


_MANY = 60
"""Degrees of freedom above which the expansion is right to 6 digits."""


def _expanded(z: float, freedom: int) -> float:
    """Return Student's quantile by that of the normal distribution (Cornish and Fisher, 1937)."""
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3


def student_cdf(t: float, freedom: int) -> float:
    """Return how probable a value of at most ``t`` >= 0 is: a finite sum for whole degrees of freedom.

    Zelen and Severo, in Abramowitz and Stegun, "Handbook of Mathematical Functions", 1964, 26.7.3 and 26.7.4.
    """
    angle = np.arctan2(t, np.sqrt(freedom))
    sine, cosine = np.sin(angle), np.cos(angle)
    steps = np.arange(1, (freedom - 1) // 2 + (freedom % 2 == 0))
    if freedom % 2:
        factors = np.concatenate([[1.0], np.cumprod(2 * steps / (2 * steps + 1))])
        whole = sine * float((factors * cosine ** (2 * np.arange(len(factors)) + 1)).sum()) if freedom > 1 else 0.0
        return float(0.5 + (angle + whole) / np.pi)
    factors = np.concatenate([[1.0], np.cumprod((2 * steps - 1) / (2 * steps))])
    return float(0.5 + 0.5 * sine * (factors * cosine ** (2 * np.arange(len(factors)))).sum())
