"""Coverage of the intervals, by simulation: how often does the 95% interval hold the truth?

Each simulated data set has users of unlike difficulty with 1 positive and 20 negatives, scores rounded so that some
tie; the truth is taken from 300,000 such users. `wilson` is the interval of the evaluate stage. `percentile`, `bca` and
`logit` are what else is usual: by bootstrap over users (1,000 samples), and by the delta method.

    python benchmarks/intervals.py [--sets 2000] [--users 20 30 120 300] [--auc .58 .75 .93] [--rivals] [--json]
"""

# ruff: noqa: E402 - threads are pinned before NumPy is imported
import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import argparse
import functools
import json
import math
import time
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from msr_adapter.metrics import evaluate_groups, metric_intervals, paired_values

SIZE, LEVEL, SAMPLES, SEED = 21, 0.95, 1000, 10_000
METRICS, DEPTHS = ("auc", "gauc", "hr", "mrr", "ndcg"), (5, 10)
SHOWN = ("auc", "gauc", "hr@5", "mrr@5", "ndcg@10")
NORMAL = NormalDist()
Z = NORMAL.inv_cdf((1 + LEVEL) / 2)
Ends = tuple[float, float]


def simulate(users: int, generator: np.random.Generator, auc: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return scores, labels, offsets whose pooled AUC is ``auc``: how well a user is known and the level both vary."""
    labels = np.zeros((users, SIZE), np.int8)
    labels[np.arange(users), generator.integers(0, SIZE, users)] = 1
    # The difference of a positive and a negative of two users has the variance 2 + 1 + 2 / 4.
    known = NORMAL.inv_cdf(auc) * math.sqrt(3.5) + generator.standard_normal((users, 1))
    level = 0.5 * generator.standard_normal((users, 1))
    scores = generator.standard_normal((users, SIZE)) + known * labels + level
    return np.round(scores.ravel(), 1), labels.ravel(), np.arange(users + 1) * SIZE


@functools.cache
def truth(auc: float, users: int = 300_000) -> dict[str, float]:
    """Return the metrics over so many users that their own error is small beside a data set's."""
    return evaluate_groups(*simulate(users, np.random.default_rng(SEED), auc), METRICS, DEPTHS).means()


def covered(
    auc: float, users: int, sets: int, methods: Sequence[str] = ("wilson",), samples: int = SAMPLES
) -> dict[str, dict[str, float]]:
    """Return method -> metric -> share of ``sets`` data sets whose interval holds the true value."""
    true, hits = truth(auc), {method: dict.fromkeys(SHOWN, 0) for method in methods}
    for number in range(sets):
        generator = np.random.default_rng([SEED, number, users])
        result = evaluate_groups(*simulate(users, generator, auc), METRICS, DEPTHS)
        values = paired_values(result)
        weights = generator.multinomial(users, np.full(users, 1 / users), samples) if len(methods) > 1 else None
        for method in methods:
            ends = metric_intervals(result, values, LEVEL) if method == "wilson" else {
                name: RIVALS[method](values[name], weights) for name in SHOWN}  # fmt: skip
            for name in SHOWN:
                hits[method][name] += ends[name][0] <= true[name] <= ends[name][1]
    return {method: {name: count / sets for name, count in each.items()} for method, each in hits.items()}


def percentile(values: np.ndarray, weights: np.ndarray) -> Ends:
    """Return the percentile interval of the resampled means; of the AUC, of its linear parts."""
    low, high = np.quantile(weights @ values / len(values), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def bca(values: np.ndarray, weights: np.ndarray) -> Ends:
    """Return the bias-corrected and accelerated interval (Efron, 1987)."""
    means, gaps = weights @ values / len(values), values - values.mean()
    if not np.square(gaps).sum():
        return float(values.mean()), float(values.mean())
    below = ((means < values.mean()).mean() + (means <= values.mean()).mean()) / 2
    bias = NORMAL.inv_cdf(min(max(below, 1e-3), 1 - 1e-3))
    acceleration = (gaps**3).sum() / (6 * np.square(gaps).sum() ** 1.5)
    ends = [NORMAL.cdf(bias + (bias + z) / (1 - acceleration * (bias + z))) for z in (-Z, Z)]
    low, high = np.quantile(means, ends)
    return float(low), float(high)


def logit(values: np.ndarray, weights: np.ndarray) -> Ends:
    """Return the interval that is symmetric on the logit scale."""
    mean, error = float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values)))
    if not 0 < mean < 1:
        return mean, mean
    middle, half = math.log(mean / (1 - mean)), Z * error / (mean * (1 - mean))
    return 1 / (1 + math.exp(half - middle)), 1 / (1 + math.exp(-half - middle))


RIVALS = {"percentile": percentile, "bca": bca, "logit": logit}


def main() -> None:
    """Print a table of coverage per AUC and number of users, and with ``--json`` one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=200, help="simulated data sets; 2,000 for numbers to quote")
    parser.add_argument("--users", type=int, nargs="+", default=[20, 30, 120, 300])
    parser.add_argument("--auc", type=float, nargs="+", default=[0.58, 0.75, 0.93])
    parser.add_argument("--rivals", action="store_true", help="percentile bootstrap, BCa and logit intervals too")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    options = parser.parse_args()
    started, methods = time.perf_counter(), ("wilson", *(RIVALS if options.rivals else ()))
    error = math.sqrt(LEVEL * (1 - LEVEL) / options.sets)
    print(f"coverage of {LEVEL:.0%} intervals, {options.sets:,} data sets each; simulation error {error:.1%}\n")
    print(f"| AUC | users | interval | {' | '.join(SHOWN)} |")
    print(f"|---:|---:|---|{'---:|' * len(SHOWN)}")
    rows = []
    for auc in options.auc:
        for users in options.users:
            for method, shares in covered(auc, users, options.sets, methods).items():
                cells = " | ".join(f"{shares[name]:.1%}" for name in SHOWN)
                print(f"| {auc:.2f} | {users} | {method} | {cells} |", flush=True)
                rows.append({"auc": auc, "users": users, "interval": method, **shares})
    if options.json:
        seconds = time.perf_counter() - started
        print(json.dumps({"workload": "coverage", "sets": options.sets, "rows": rows, "seconds": seconds}))


if __name__ == "__main__":
    main()
