"""Coverage of the bootstrap interval, by simulation: how often does the 95% interval hold the truth?

Each simulated data set has users of unlike difficulty with 1 positive and 20 negatives; the truth is taken from 400,000
such users. The intervals are those of the evaluate stage: percentile bootstrap over users, 1,000 samples.

    python benchmarks/intervals.py [--sets 100] [--users 300] [--json]
"""

# ruff: noqa: E402 - threads are pinned before NumPy is imported
import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import argparse
import json
import math
import time
from typing import Any

import numpy as np

from msr_adapter.metrics import bootstrap, evaluate_groups, percentile_interval

SIZE, LEVEL, SAMPLES, SEEDS = 21, 0.95, 1000, 10_000
METRICS, DEPTHS = ("auc", "gauc", "hr", "mrr", "ndcg"), (5,)
GOAL = (0.93, 0.97)


def simulate(users: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return scores, labels, offsets: how well a user is known and the level of the user's scores both vary."""
    labels = np.zeros((users, SIZE), np.int8)
    labels[np.arange(users), generator.integers(0, SIZE, users)] = 1
    known = 1 + generator.standard_normal((users, 1))
    level = 0.5 * generator.standard_normal((users, 1))
    scores = generator.standard_normal((users, SIZE)) + known * labels + level
    return np.round(scores.ravel(), 1), labels.ravel(), np.arange(users + 1) * SIZE  # rounded: with ties


def truth(users: int = 400_000) -> dict[str, float]:
    """Return the metrics over so many users that their own error is small beside a data set's."""
    return evaluate_groups(*simulate(users, np.random.default_rng(SEEDS)), METRICS, DEPTHS).means()


def covered(true: dict[str, float], sets: int, users: int, samples: int = SAMPLES) -> dict[str, float]:
    """Return metric -> share of ``sets`` data sets whose interval holds the true value."""
    hits = dict.fromkeys(true, 0)
    for number in range(sets):
        result = evaluate_groups(*simulate(users, np.random.default_rng(number)), METRICS, DEPTHS)
        for name, draws in bootstrap(result, samples, seed=SEEDS + number, threads=1).items():
            low, high = percentile_interval(draws, LEVEL)
            hits[name] += low <= true[name] <= high
    return {name: count / sets for name, count in hits.items()}


def main() -> None:
    """Print a line per metric, and with ``--json`` one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=100, help="simulated data sets; 500 for numbers to quote")
    parser.add_argument("--users", type=int, default=300)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    options = parser.parse_args()
    started, true = time.perf_counter(), truth()
    found = covered(true, options.sets, options.users)
    error = math.sqrt(LEVEL * (1 - LEVEL) / options.sets)
    print(f"coverage: {options.sets} data sets of {options.users} users, {LEVEL:.0%} intervals, {SAMPLES} samples; "
          f"goal {GOAL[0]:.0%} to {GOAL[1]:.0%}, simulation error {error:.1%}")  # fmt: skip
    for name, share in found.items():
        print(f"  {name:8} true {true[name]:.4f}, covered {share:.1%}")
    result: dict[str, Any] = {"workload": f"coverage: {options.sets} x {options.users} users", "covered": found,
                              "truth": true, "goal": GOAL, "seconds": time.perf_counter() - started}  # fmt: skip
    if options.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
