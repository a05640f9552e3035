"""How often do intervals over users and trainings cover the truth, with known variances?

    python benchmarks/crossed.py                    # the table of docs/metrics.md: a minute or two
    python benchmarks/crossed.py --trials 500       # quicker

A value of user u by training r is 0.5 + user + training + what is left, each normal with the standard deviations of the
row: so the true mean is 0.5, and that of a difference of two models on the same users 0. Intervals are made as those of
a run are, by `metrics.crossed` around the interval over users.
"""

import argparse
from dataclasses import dataclass

import numpy as np

from msr_adapter.arrays import Floats
from msr_adapter.metrics import crossed_difference, crossed_mean, difference_interval, mean_interval

LEVEL, MEAN = 0.95, 0.5


@dataclass(frozen=True)
class Coverage:
    """Shares of the trials whose interval covered the truth."""

    mean: float
    difference: float
    """Of two models, each trained as often."""
    users_alone: float
    """Of the mean's interval without the trainings' part."""


def coverage(
    trainings: int, users: int, deviations: tuple[float, float, float], trials: int, seed: int = 0
) -> Coverage:
    """Simulate; ``deviations`` are those of users, trainings and what is left."""
    rng, counts = np.random.default_rng([seed, trainings, users]), np.zeros(3)
    own, between, left = deviations
    for _ in range(trials):
        user = own * rng.standard_normal(users)
        one, other = (_values(rng, user, (between, left), trainings) for _ in range(2))
        alone = mean_interval(one.mean(axis=0), LEVEL)
        low, high = crossed_mean(one).widened(alone, LEVEL)
        ends = difference_interval(one.mean(axis=0), other.mean(axis=0), LEVEL)
        below, above = crossed_difference(one, other).widened(ends, LEVEL)
        counts += [low <= MEAN <= high, below <= 0 <= above, alone[0] <= MEAN <= alone[1]]
    return Coverage(*(counts / trials).tolist())


def _values(rng: np.random.Generator, user: Floats, deviations: tuple[float, float], trainings: int) -> Floats:
    """Return the values (trainings, users) of one model; ``user`` is what is the users' own (users,)."""
    between, left = deviations
    rest = left * rng.standard_normal((trainings, len(user)))
    return np.clip(MEAN + user + between * rng.standard_normal((trainings, 1)) + rest, 0, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2_000)
    trials = parser.parse_args().trials
    print("| trainings | users | deviations of users, trainings, rest | mean | difference | users alone |")
    print("|---:|---:|---|---:|---:|---:|")
    for trainings in (2, 3, 5, 10):
        for users in (100, 500):
            error = 0.2 / np.sqrt(users)
            for ratio in (0.0, 1.0, 4.0):
                deviations = (0.2, round(ratio * error, 4), 0.15)
                found = coverage(trainings, users, deviations, trials)
                named = ", ".join(f"{one:g}" for one in deviations)
                shown = f"{found.mean:.1%} | {found.difference:.1%} | {found.users_alone:.1%}"
                print(f"| {trainings} | {users} | {named} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
