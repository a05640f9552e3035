"""Ranking metrics: msr against per-user argsort functions, ranx, pytrec_eval, torchmetrics, scikit-learn, and one sort.

Workload: users x 21 candidates (1 positive); pooled AUC, AUC per user, HR, Recall, Precision, MRR, MAP and NDCG at 3, 5
and 10, ties exact. The baseline is what evaluation scripts do: scikit-learn for the pooled AUC, and for each user one
argsort and the formulas. ranx and pytrec_eval are given their dictionaries ready made; neither has an AUC. torchmetrics
sees 500 users, for it takes milliseconds per user; its ratio is to ours on the same 500. The limit is one NumPy sort of
the scores. Seconds are medians of the clock; the processor's own, which others disturb less, stand beside.

    python benchmarks/metrics.py [--full] [--users N] [--json]

Without --full, ranx is left out: it compiles for a minute.
"""

# ruff: noqa: E402 - threads are pinned before NumPy is imported
import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import argparse
import functools
import itertools
import json
import math
import resource
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytrec_eval
from sklearn.metrics import roc_auc_score

from msr_adapter.metrics import (
    RANKING,
    calibrate,
    evaluate_groups,
    expose,
    metric_intervals,
    paired_values,
    pooled_auc,
)
from msr_adapter.metrics.groups import make_groups

SIZE = 21
DEPTHS = (3, 5, 10)
GOALS = {"argsort functions": 15, "ranx": 20, "pytrec_eval": 9}
FLOOR, GOAL, LIMIT_GOAL = 10.0, 15.0, 1.3
DEFAULT_USERS, FULL_USERS, TORCH_USERS = 20_000, (100_000, 500_000), 500
TREC = {"hr": "success", "recall": "recall", "precision": "P", "map": "map_cut", "ndcg": "ndcg_cut"}
RANX = {"hr": "hit_rate", "recall": "recall", "precision": "precision", "mrr": "mrr", "map": "map", "ndcg": "ndcg"}
Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]


def make_workload(users: int) -> Arrays:
    """Return scores, labels, offsets of ``users`` lists without ties, not even in 32 bits as trec_eval keeps them."""
    generator = np.random.default_rng(0)
    labels = np.zeros((users, SIZE), np.int8)
    labels[np.arange(users), generator.integers(0, SIZE, users)] = 1
    scores = generator.standard_normal((users, SIZE)) + labels
    while len(tied := np.flatnonzero((np.diff(np.sort(scores.astype(np.float32)), axis=1) == 0).any(axis=1))):
        scores[tied] = generator.standard_normal((len(tied), SIZE)) + labels[tied]
    return scores.ravel(), labels.ravel(), np.arange(users + 1) * SIZE


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
        row[f"precision@{k}"] = hits / k
        row[f"mrr@{k}"] = row[f"map@{k}"] = 1 / rank if rank <= k else 0.0
        row[f"ndcg@{k}"] = 1 / math.log2(rank + 1) if rank <= k else 0.0
    return row


def as_dicts(scores: np.ndarray, labels: np.ndarray, users: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return (judgements, run) as ranx and pytrec_eval take them."""
    names = [f"i{place}" for place in range(SIZE)]
    rows, targets = scores.reshape(users, SIZE).tolist(), labels.reshape(users, SIZE).argmax(axis=1).tolist()
    judged = {str(user): {names[target]: 1} for user, target in enumerate(targets)}
    return judged, {str(user): dict(zip(names, row, strict=True)) for user, row in enumerate(rows)}


def trec_way(judged: dict[str, Any], run: dict[str, Any]) -> Callable[[], dict[str, float]]:
    depths = ",".join(map(str, DEPTHS))
    evaluator = pytrec_eval.RelevanceEvaluator(judged, {f"{name}.{depths}" for name in TREC.values()} | {"recip_rank"})
    theirs = {f"{ours}@{k}": f"{name}_{k}" for ours, name in TREC.items() for k in DEPTHS}

    def means() -> dict[str, float]:
        rows = list(evaluator.evaluate(run).values())
        return {ours: statistics.fmean(row[name] for row in rows) for ours, name in theirs.items()}

    return means


def ranx_way(judged: dict[str, Any], run: dict[str, Any]) -> Callable[[], dict[str, float]]:
    warnings.simplefilter("ignore")  # Numba's, about ranx's own code
    import ranx

    qrels, ranked = ranx.Qrels(judged), ranx.Run(run)
    names = {f"{ours}@{k}": f"{name}@{k}" for ours, name in RANX.items() for k in DEPTHS}

    def means() -> dict[str, float]:
        found = ranx.evaluate(qrels, ranked, list(names.values()))
        return {ours: float(found[name]) for ours, name in names.items()}

    return means


def torch_way(scores: np.ndarray, labels: np.ndarray) -> Callable[[], dict[str, float]]:
    import torch
    from torchmetrics import retrieval

    kinds = {
        "hr": retrieval.RetrievalHitRate, "recall": retrieval.RetrievalRecall, "ndcg": retrieval.RetrievalNormalizedDCG,
        "precision": retrieval.RetrievalPrecision, "mrr": retrieval.RetrievalMRR, "map": retrieval.RetrievalMAP,
    }  # fmt: skip
    torch.set_num_threads(1)
    users = torch.arange(len(scores) // SIZE).repeat_interleave(SIZE)
    values = torch.from_numpy(np.exp(scores))  # torchmetrics finds no target whose score is not above zero
    marks = torch.from_numpy(labels.astype(np.int64))

    def means() -> dict[str, float]:
        return {
            f"{name}@{k}": float(kind(top_k=k)(values, marks, indexes=users))
            for name, kind in kinds.items()
            for k in DEPTHS
        }

    return means


def require_equal(ours: Mapping[str, float], theirs: Mapping[str, float], name: str, tolerance: float = 1e-12) -> None:
    """Stop unless every metric of ``theirs`` is ours."""
    worst = max(abs(ours[metric] - value) for metric, value in theirs.items())
    assert worst < tolerance, f"{name} differs by {worst}"


def interleave(ways: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, tuple[float, float]]:
    """Return each way's median seconds by the clock and of the processor; the ways take turns."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            clock, processor = time.perf_counter(), time.process_time()
            way()
            seconds[name].append((time.perf_counter() - clock, time.process_time() - processor))
    return {
        name: (statistics.median(clock for clock, _ in pairs), statistics.median(used for _, used in pairs))
        for name, pairs in seconds.items()
    }


def measure(users: int, repeats: int, with_ranx: bool) -> dict[str, Any]:
    """Assert equal results, then time; peak memory is taken before the others add their own."""
    arrays = scores, labels, offsets = make_workload(users)
    evaluate = functools.partial(evaluate_groups, k=DEPTHS)
    ours = evaluate(*arrays)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    means = ours.means()
    dicts = as_dicts(scores, labels, users)
    few = (scores[: TORCH_USERS * SIZE], labels[: TORCH_USERS * SIZE], offsets[: TORCH_USERS + 1])
    ways: dict[str, Callable[[], object]] = {"ours": lambda: evaluate(*arrays)}
    rivals = {"argsort functions": lambda: baseline(*arrays), "pytrec_eval": trec_way(*dicts)}
    rivals |= {"ranx": ranx_way(*dicts)} if with_ranx else {}
    for name, way in rivals.items():
        require_equal(means, way(), name)
    torch = torch_way(*few[:2])
    require_equal(evaluate(*few).means(), torch(), "torchmetrics", 1e-5)  # 32-bit means
    ways |= rivals | _parts(arrays, evaluate) | {"ours, 500 users": lambda: evaluate(*few)}
    seconds = interleave(ways, repeats)
    seconds |= interleave(
        {"torchmetrics, 500 users": torch, "intervals": lambda: metric_intervals(ours, paired_values(ours), 0.95)}, 1
    )
    return _result(users, seconds, peak)


def _parts(arrays: Arrays, evaluate: Callable[..., object]) -> dict[str, Callable[[], object]]:
    """Ours in pieces, and the limit."""
    scores, labels, offsets = arrays
    groups, probabilities = make_groups(*arrays), 1 / (1 + np.exp(-scores))
    items = np.random.default_rng(1).integers(0, 9000, len(scores))
    popularity = np.arange(9000)
    assert abs(pooled_auc(groups) - roc_auc_score(labels, scores)) < 1e-12
    return {
        "one sort of the scores": lambda: np.sort(scores),
        "ours, one thread": lambda: evaluate(*arrays, threads=1),
        "ours, without the pooled AUC": lambda: evaluate(*arrays, RANKING[1:]),
        "our pooled AUC": lambda: pooled_auc(groups),
        "scikit-learn's pooled AUC": lambda: roc_auc_score(labels, scores),
        "our log loss, Brier, ECE": lambda: calibrate(probabilities, labels),
        "our coverage .. novelty @10": lambda: expose(scores, offsets, items, popularity, 10),
    }


def _result(users: int, seconds: dict[str, tuple[float, float]], peak: float) -> dict[str, Any]:
    pairs = {name: (name, "ours") for name in GOALS if name in seconds}
    pairs["scikit-learn's pooled AUC"] = ("scikit-learn's pooled AUC", "our pooled AUC")
    pairs["torchmetrics"] = ("torchmetrics, 500 users", "ours, 500 users")
    clock = {name: seconds[one][0] / seconds[other][0] for name, (one, other) in pairs.items()}
    used = {name: seconds[one][1] / seconds[other][1] for name, (one, other) in pairs.items()}
    limit = [seconds["ours"][i] / seconds["one sort of the scores"][i] for i in (0, 1)]
    return {
        "workload": f"metrics: {users} users x {SIZE} candidates", "ratio": clock["argsort functions"],
        "floor": FLOOR, "goal": GOAL, "ours_s": seconds["ours"][0], "baseline_s": seconds["argsort functions"][0],
        "limit_ratio": limit[0], "limit_ratio_processor": limit[1], "limit_goal": LIMIT_GOAL,
        "ratios": clock, "ratios_processor": used, "goals": GOALS,
        "counts": {"users": users, "scores": users * SIZE, "metrics": 2 + 6 * len(DEPTHS)},
        "peak_rss_mb": peak, "seconds": seconds,
    }  # fmt: skip


def show(result: Mapping[str, Any]) -> None:
    print(f"{result['workload']}; seconds: clock (processor)")
    for name, (clock, used) in result["seconds"].items():
        print(f"  {name:32} {clock:9.4f} ({used:9.4f})")
    for name, ratio in result["ratios"].items():
        goal = f"; goal {GOALS[name]}" if name in GOALS else ""
        print(f"  {name}: {ratio:.1f}x as long as ours (processor: {result['ratios_processor'][name]:.1f}x{goal})")
    print(f"  ours takes {result['limit_ratio']:.2f} of one sort (processor: {result['limit_ratio_processor']:.2f}; "
          f"goal {LIMIT_GOAL}); peak {result['peak_rss_mb']:.0f} MB")  # fmt: skip


def main() -> None:
    """Print a table per size, and with ``--json`` one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help=f"{FULL_USERS} users and ranx, not {DEFAULT_USERS}")
    parser.add_argument("--users", type=int, help="this many users instead")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    options = parser.parse_args()
    sizes = (options.users,) if options.users else FULL_USERS if options.full else (DEFAULT_USERS,)
    for users in sizes:
        result = measure(users, repeats=3 if users >= FULL_USERS[0] else 5, with_ranx=options.full)
        show(result)
    if options.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
