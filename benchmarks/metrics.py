"""Ranking metrics: msr against per-user argsort functions, scikit-learn's pooled AUC, and one sort of the scores.

Workload: users x 21 candidates (1 positive), AUC pooled and per user, HR, Recall, MRR, NDCG at 3, 5, 10. The baseline
is what evaluation scripts do: scikit-learn for the pooled AUC, and for each user one argsort and the formulas.

    python benchmarks/metrics.py [--full] [--json]
"""

# ruff: noqa: E402 - threads are pinned before NumPy is imported
import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import argparse
import itertools
import json
import math
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from msr_adapter.metrics import bootstrap, evaluate_groups, pooled_auc
from msr_adapter.metrics.groups import make_groups

SIZE = 21
DEPTHS = (3, 5, 10)
FLOOR, GOAL = 10.0, 15.0
DEFAULT_USERS, FULL_USERS = 20_000, 100_000


def make_workload(users: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return scores, labels, offsets of ``users`` lists without ties, so that argsort has one right answer."""
    generator = np.random.default_rng(0)
    labels = np.zeros((users, SIZE), np.int8)
    labels[np.arange(users), generator.integers(0, SIZE, users)] = 1
    return generator.standard_normal(users * SIZE) + labels.ravel(), labels.ravel(), np.arange(users + 1) * SIZE


def baseline(scores: np.ndarray, labels: np.ndarray, offsets: np.ndarray) -> dict[str, float]:
    """Evaluate user by user."""
    rows = [_one_user(scores[a:b], labels[a:b]) for a, b in itertools.pairwise(offsets)]
    means = {name: statistics.fmean(row[name] for row in rows) for name in rows[0]}
    return {"auc": float(roc_auc_score(labels, scores)), **means}


def _one_user(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    ranked = labels[np.argsort(-scores)]
    rank = int(np.argmax(ranked)) + 1
    row = {"gauc": (len(labels) - rank) / (len(labels) - 1)}
    for k in DEPTHS:
        hits = int(ranked[:k].sum())
        row[f"hr@{k}"] = float(hits > 0)
        row[f"recall@{k}"] = hits / int(labels.sum())
        row[f"mrr@{k}"] = 1 / rank if rank <= k else 0.0
        row[f"ndcg@{k}"] = 1 / math.log2(rank + 1) if rank <= k else 0.0
    return row


def interleave(ways: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Return each way's median seconds; the ways take turns, so that a busy minute hits all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def measure(users: int, repeats: int) -> dict[str, Any]:
    """Assert equal results, then time; peak memory is taken before the baseline adds its own."""
    arrays = make_workload(users)
    ours = evaluate_groups(*arrays, k=DEPTHS)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    theirs = baseline(*arrays)
    worst = max(abs(value - theirs[name]) for name, value in ours.means().items())
    assert worst < 1e-12, f"results differ by {worst}"
    groups = make_groups(*arrays)
    seconds = interleave(
        {
            "ours": lambda: evaluate_groups(*arrays, k=DEPTHS),
            "ours, one thread": lambda: evaluate_groups(*arrays, k=DEPTHS, threads=1),
            "baseline": lambda: baseline(*arrays),
            "our pooled AUC": lambda: pooled_auc(groups),
            "scikit-learn's pooled AUC": lambda: roc_auc_score(arrays[1], arrays[0]),
            "one sort of the scores": lambda: np.sort(arrays[0]),
        },
        repeats,
    )
    started = time.perf_counter()
    bootstrap(ours, 1000, 0)
    seconds["1,000 bootstrap samples (once)"] = time.perf_counter() - started
    return _result(users, seconds, peak)


def _result(users: int, seconds: dict[str, float], peak: float) -> dict[str, Any]:
    return {
        "workload": f"metrics: {users} users x {SIZE} candidates",
        "ratio": seconds["baseline"] / seconds["ours"],
        "floor": FLOOR,
        "goal": GOAL,
        "ours_s": seconds["ours"],
        "baseline_s": seconds["baseline"],
        "limit_ratio": seconds["ours"] / seconds["one sort of the scores"],
        "pooled_auc_ratio": seconds["scikit-learn's pooled AUC"] / seconds["our pooled AUC"],
        "counts": {"users": users, "scores": users * SIZE, "metrics": 2 + 4 * len(DEPTHS)},
        "peak_rss_mb": peak,
        "seconds": seconds,
    }


def main() -> None:
    """Print a table, and with ``--json`` one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help=f"{FULL_USERS:,} users instead of {DEFAULT_USERS:,}")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    options = parser.parse_args()
    result = measure(FULL_USERS if options.full else DEFAULT_USERS, repeats=5)
    print(result["workload"])
    for name, seconds in result["seconds"].items():
        print(f"  {name:32} {seconds:9.4f} s")
    print(f"  ours is {result['ratio']:.1f}x faster (floor {FLOOR:.0f}, goal {GOAL:.0f}) and takes "
          f"{result['limit_ratio']:.2f} of one sort; pooled AUC {result['pooled_auc_ratio']:.1f}x scikit-learn; "
          f"peak {result['peak_rss_mb']:.0f} MB")  # fmt: skip
    if options.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
