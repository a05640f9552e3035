"""The nearest items of a query: all compared by a matrix product, against faiss's inverted file, in one run.

Workload: items around 1,000 centres (a catalogue has topics), queries near items, 30 barred items each. Recall is the
share of the exact 200 nearest that faiss finds. Seconds are medians of the clock over the repeats; memory is what the
process held at most after each index.

    python benchmarks/retrieve_items.py [--items N] [--dimension D] [--queries N] [--json]
"""

# ruff: noqa: E402 - threads are pinned before NumPy is imported
import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import argparse
import json
import resource
import statistics
import time
from collections.abc import Callable

import numpy as np

from msr_adapter.arrays import Codes, Vectors
from msr_adapter.retrieval.vector_search import ExactIndex, FaissIndex, VectorIndex

COUNT, BARRED, CENTRES = 200, 30, 1_000


def unit(vectors: Vectors) -> Vectors:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def make_workload(items: int, dimension: int, queries: int) -> tuple[Vectors, Vectors, list[Codes]]:
    """Return vectors of items and of queries, and what each query may not find."""
    draw = np.random.default_rng(0)
    centres = draw.normal(size=(CENTRES, dimension)).astype(np.float32)
    vectors = np.empty((items, dimension), np.float32)
    for first in range(0, items, 65_536):
        part = vectors[first : first + 65_536]
        part[:] = centres[draw.integers(0, CENTRES, len(part))] + draw.standard_normal(part.shape, np.float32)
        part[:] = unit(part)
    asked = unit(
        vectors[draw.integers(0, items, queries)] + draw.normal(size=(queries, dimension)) / dimension**0.5 / 2
    )
    return vectors, asked, [draw.choice(items, BARRED, replace=False) for _ in range(queries)]


def timed(make: Callable[[], VectorIndex], queries: Vectors, barred: list[Codes], repeats: int) -> dict[str, object]:
    """Return the lists, seconds to make the index, queries a second, and the peak of memory."""
    started = time.perf_counter()
    index = make()
    made = time.perf_counter() - started
    seconds, found = [], []
    for _ in range(repeats):
        started = time.perf_counter()
        found = index.search(queries, COUNT, barred)
        seconds.append(time.perf_counter() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {
        "lists": found,
        "build_s": made,
        "queries_per_s": len(queries) / statistics.median(seconds),
        "peak_gib": peak,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    items, queries, barred = make_workload(asked.items, asked.dimension, asked.queries)
    ranks = np.arange(asked.items)
    exact = timed(lambda: ExactIndex(items, ranks), queries, barred, asked.repeats)
    faiss = timed(lambda: FaissIndex(items, ranks), queries, barred, asked.repeats)
    pairs = zip(exact.pop("lists"), faiss.pop("lists"), strict=True)  # type: ignore[call-overload]
    recall = float(np.mean([len(np.intersect1d(one, other)) / COUNT for one, other in pairs]))
    ratio = faiss["queries_per_s"] / exact["queries_per_s"]  # type: ignore[operator]
    if asked.json:
        print(json.dumps({"items": asked.items, "dimension": asked.dimension, "exact": exact, "faiss": faiss,
                          "recall": recall, "ratio": ratio}, indent=2))  # fmt: skip
        return
    print(f"{asked.items:,} items of {asked.dimension} dimensions, {COUNT} of them for each of {asked.queries} queries")
    for name, one in (("exact", exact), ("faiss", faiss)):
        print(
            f"{name}: made in {one['build_s']:.1f} s, {one['queries_per_s']:,.0f} queries/s, {one['peak_gib']:.2f} GiB"
        )
    print(f"faiss finds {recall:.1%} of what is nearest, at {ratio:.1f} times the queries a second")


if __name__ == "__main__":
    main()
