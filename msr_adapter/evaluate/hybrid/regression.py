"""Logistic regression with a penalty on its weights, chosen by cross-validation over users.

The minimum of scikit-learn's `LogisticRegression`: the loss of all rows, summed, plus half the squared weights over C;
the intercept is not penalised. With a handful of columns, Newton's method ends within some ten steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from msr_adapter.arrays import Floats, Integers, Rows

INVERSE_PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
"""Those that are tried, the strongest penalty first."""
FOLDS = 5
_STEPS, _STILL = 100, 1e-10


@dataclass(frozen=True)
class Regression:
    """One fit."""

    weights: Floats
    """(columns,)"""
    intercept: float


@dataclass(frozen=True)
class CrossValidated:
    """A fit whose penalty others than the users it was tried on have chosen."""

    fit: Regression
    inverse_penalty: float
    losses: tuple[float, ...]
    """Mean loss of a row of users who were left out, one of each of `INVERSE_PENALTIES`, in nats."""


def fit(features: Floats, labels: Floats, inverse_penalty: float) -> Regression:
    """Fit ``labels`` (n,), 0 or 1, to ``features`` (n, columns). O(steps x n x columns^2) time."""
    design = np.column_stack([features, np.ones(len(features))])
    ridge = np.append(np.full(features.shape[1], 1 / inverse_penalty), 0.0)
    theta = np.zeros(design.shape[1])
    for _ in range(_STEPS):
        chance = _sigmoid(design @ theta)
        gradient = design.T @ (chance - labels) + ridge * theta
        curvature = (design * (chance * (1 - chance))[:, None]).T @ design + np.diag(ridge)
        # A hair on the diagonal: where every chance is 0 or 1, the intercept has no curvature of its own.
        step = np.linalg.solve(curvature + 1e-12 * np.eye(len(theta)), gradient)
        theta = _downhill(design, labels, ridge, theta, step)
        if np.abs(gradient).max() < _STILL * len(labels) or np.abs(step).max() < _STILL:
            break
    return Regression(theta[:-1], float(theta[-1]))


def _downhill(design: Floats, labels: Floats, ridge: Floats, theta: Floats, step: Floats) -> Floats:
    """Return where a step leads, halved until it leads no higher: far from the minimum, Newton's may."""

    def height(place: Floats) -> float:
        return float(_losses(design @ place, labels).sum() + 0.5 * (ridge * place * place).sum())

    start = height(theta)
    for _ in range(30):
        if height(theta - step) <= start:
            return theta - step
        step = step / 2
    return theta


def cross_validate(features: Floats, labels: Floats, offsets: Rows, seed: int) -> CrossValidated:
    """Choose the penalty by the loss on users who were left out, then fit all rows under it.

    ``offsets`` (users + 1,) says whose the rows are: a user's rows are in one fold. Among equals the stronger penalty
    is chosen.
    """
    folds = np.repeat(_folds(len(offsets) - 1, seed), np.diff(offsets))
    losses = tuple(_left_out(features, labels, folds, value) for value in INVERSE_PENALTIES)
    best = INVERSE_PENALTIES[int(np.argmin(losses))]  # the first of equals
    return CrossValidated(fit(features, labels, best), best, losses)


def _folds(users: int, seed: int) -> Integers:
    """Return the fold of each user, at random and of equal sizes."""
    return np.random.default_rng([seed, 0xF01D]).permutation(users) % FOLDS


def _left_out(features: Floats, labels: Floats, folds: Integers, inverse_penalty: float) -> float:
    total = 0.0
    for fold in range(FOLDS):
        out = folds == fold
        found = fit(features[~out], labels[~out], inverse_penalty)
        total += float(_losses(features[out] @ found.weights + found.intercept, labels[out]).sum())
    return total / len(labels)


def standardised(columns: Sequence[Floats], offsets: Rows) -> Floats:
    """Return scores (n,) of several models as (n, models), each with mean 0 and variance 1 within each list.

    What is the same for a whole list says nothing about its order, and becomes 0; so does a list of equal scores.
    ``offsets`` (lists + 1,) says where lists begin. O(n) time.
    """
    starts, sizes = offsets[:-1], np.diff(offsets)

    def within(values: Floats) -> Floats:
        centred = values - np.repeat(np.add.reduceat(values, starts) / sizes, sizes)
        spread = np.sqrt(np.add.reduceat(centred * centred, starts) / sizes)
        # Differences that are rounding alone are none.
        largest = np.maximum.reduceat(np.abs(values), starts)
        spread = np.where(spread > 1e-12 * largest, spread, np.inf)
        return np.asarray(centred / np.repeat(spread, sizes))

    return np.column_stack([within(np.asarray(values, np.float64)) for values in columns])


def _losses(odds: Floats, labels: Floats) -> Floats:
    """Return -log p(label) of each row, in nats."""
    return np.asarray(np.logaddexp(0, np.where(labels > 0, -odds, odds)))


def _sigmoid(odds: Floats) -> Floats:
    return np.asarray((1 + np.tanh(odds / 2)) / 2)
