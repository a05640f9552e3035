"""False alarms of comparisons, by simulation: how often is one of several equal models called different?

Models score the same lists of 1 positive and 20 negatives: what is common to them, and noise of their own, equally much
for all. `first`: every model against the first. `best`: against the one with the highest value, as `msr compare --to
best` does. p-values: raw; by Holm over the comparisons shown; those that the command reports, in the primary metric
(NDCG@10) and in all four.

    python benchmarks/comparisons.py [--sets 500] [--models 11] [--users 120] [--different 0] [--json]
"""

# ruff: noqa: E402 - threads are pinned before NumPy is imported
import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import argparse
import json
import math
import time

import numpy as np
import pyarrow as pa

from msr_adapter import schema
from msr_adapter.config.schema import ConfidenceConfig, ProtocolConfig
from msr_adapter.evaluate.candidates import HeldOut
from msr_adapter.evaluate.comparison import Comparison, ComparisonPlan, compare
from msr_adapter.evaluate.model_metrics import judge

SIZE, ALPHA, COMMON = 21, 0.05, 0.7
METRICS = ("ndcg@10", "gauc", "auc", "hr@5")


def held_out(users: int) -> HeldOut:
    """Return lists of one positive, first, and 20 negatives."""
    labels = np.tile(np.eye(SIZE, dtype=np.int8)[0], users)
    columns = {"example_id": np.repeat(np.arange(users), SIZE), "item_id": ["i"] * len(labels), "label": labels}
    rows = pa.table(columns, schema=schema.CANDIDATES)
    return HeldOut(np.arange(users), pa.array(map(str, range(users))), np.arange(users + 1) * SIZE, rows, "")


def draw(lists: HeldOut, models: int, gain: np.ndarray, generator: np.random.Generator) -> list[np.ndarray]:
    """Return each model's scores (n,): ``gain`` (models,) is what it adds to the positives."""
    labels = lists.labels
    common = generator.standard_normal(len(labels)) + labels * np.repeat(1 + generator.standard_normal(
        len(lists.example_ids)), SIZE)  # fmt: skip
    own = generator.standard_normal((models, len(labels)))
    return [math.sqrt(COMMON) * common + math.sqrt(1 - COMMON) * own[row] + gain[row] * labels for row in range(models)]


def false_alarms(sets: int, models: int, users: int, different: int = 0, samples: int = 1000) -> dict[str, float]:
    """Return how often any of the equal models was called different from another, by reference and kind of p-value.

    ``different``: how many of the models are truly better by a lot; claims about pairs with one of them are right.
    """
    gain = np.where(np.arange(models) >= models - different, 0.8, 0.0)
    confidence = ConfidenceConfig(samples=samples)
    protocol = ProtocolConfig(name="simulated", metrics=("auc", "gauc", "hr", "ndcg"), k=(5, 10), confidence=confidence)
    lists, kinds = held_out(users), ("raw", "Holm", "primary", "all")
    found = {f"{reference}, {kind}": 0 for reference in ("first", "best") for kind in kinds}
    for number in range(sets):
        generator = np.random.default_rng([number, models, users])
        scores = draw(lists, models, gain, generator)
        judged = {str(row): judge(protocol, lists, each) for row, each in enumerate(scores)}
        plan = ComparisonPlan.of(protocol, METRICS, number)
        best = max(judged, key=lambda name: judged[name].summary["ndcg@10"]["mean"])
        for name, reference in (("first", "0"), ("best", best)):
            for kind, alarm in _alarms(compare(judged, reference, plan, chosen=name == "best"), gain).items():
                found[f"{name}, {kind}"] += alarm
    return {name: count / sets for name, count in found.items()}


def _alarms(comparison: Comparison, gain: np.ndarray) -> dict[str, bool]:
    rows = comparison.differences
    equal = [gain[int(row.model)] == gain[int(row.reference)] for row in rows]
    primary = [row.metric == comparison.primary for row in rows]
    lower = sorted(row.p for row, first in zip(rows, primary, strict=True) if first)
    holm = {p: max(q * (len(lower) - place) for place, q in enumerate(lower) if q <= p) for p in lower}
    return {
        "raw": any(row.p <= ALPHA for row, same, first in zip(rows, equal, primary, strict=True) if same and first),
        "Holm": any(holm[row.p] <= ALPHA for row, same, first in zip(rows, equal, primary, strict=True)
                    if same and first),
        "primary": any(row.p_adjusted <= ALPHA for row, same, first in zip(rows, equal, primary, strict=True)
                       if same and first),
        "all": any(row.p_adjusted <= ALPHA for row, same in zip(rows, equal, strict=True) if same),
    }  # fmt: skip


def main() -> None:
    """Print a line per reference and kind of p-value, and with ``--json`` one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=100, help="simulated data sets; 1,000 for numbers to quote")
    parser.add_argument("--models", type=int, default=11)
    parser.add_argument("--users", type=int, default=120)
    parser.add_argument("--different", type=int, default=0, help="so many of the models are truly better")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    options = parser.parse_args()
    started = time.perf_counter()
    found = false_alarms(options.sets, options.models, options.users, options.different)
    error = math.sqrt(ALPHA * (1 - ALPHA) / options.sets)
    print(f"{options.sets:,} data sets, {options.models} models ({options.different} better), {options.users} users; "
          f"promised: at most {ALPHA:.0%}; simulation error {error:.1%}")  # fmt: skip
    for name, share in found.items():
        print(f"  {name:16} any false alarm in {share:.1%}")
    if options.json:
        result = {"workload": "comparisons", **vars(options), "false_alarms": found,
                  "seconds": time.perf_counter() - started}  # fmt: skip
        print(json.dumps(result))


if __name__ == "__main__":
    main()
