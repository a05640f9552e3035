"""The score stage's memory by number of users: everything but the model, which has a bound of its own.

Each size runs in a process of its own: tables of that many test users with 21 candidates, scored through the completion
cache by a backend that answers at once. Peak resident memory must not grow with the users, in either order.

    python benchmarks/score_memory.py [--full] [--json]
"""

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console

from msr_adapter import schema
from msr_adapter.config.schema import ModelConfig, TrainConfig
from msr_adapter.generation import Backend, Completion, CompletionCache, Request
from msr_adapter.progress import Reporter
from msr_adapter.prompts import Prompts
from msr_adapter.score import score
from msr_adapter.stage_arguments import Client, Job, StageDirs

SIZE, ITEMS, TIMES = 21, 2_000, 20
DEFAULT_USERS, FULL_USERS = 500, 4_000
FLOOR, GOAL = 1.5, 1.2
"""Peak at 20 times the users over the peak at once, at most."""
_BATCH, _TEXTS = 2_000, 65_536
"""Users written at a time: 42,000 candidates, and texts as many as one part of a file holds."""


class Instant(Backend):
    """Answers at once and remembers nothing."""

    identity = label = "instant"

    def complete(self, requests: Sequence[Request], *_: Any) -> list[Completion]:
        """Return log-probabilities that depend on nothing."""
        return [Completion(request.key, "", (-1.0, -1.5), "choice", 200, 0) for request in requests]


def write_tables(folder: Path, users: int) -> None:
    """Write data and users stages, in parts."""
    items = [{"item_id": f"{n:05d}", "title": f"Item number {n} of the catalogue", "image": None, "image_digest": None,
              "popularity": n, "text": "", "category": None, "in_log": True, "listed": True}
             for n in range(ITEMS)]  # fmt: skip
    schema.write_table(pa.Table.from_pylist(items, schema.ITEMS), schema.ITEMS, folder / "items.parquet")
    spans = [(begin, min(begin + _BATCH, users)) for begin in range(0, users, _BATCH)]

    def examples() -> Iterator[pa.Table]:
        for begin, end in spans:
            ids = list(range(begin, end))
            yield pa.table([ids, ["test"] * len(ids), [f"u{n}" for n in ids], [["00000"]] * len(ids), ids],
                           schema=schema.EXAMPLES)  # fmt: skip

    def candidates() -> Iterator[pa.Table]:
        generator = np.random.default_rng(0)
        for begin, end in spans:
            drawn = generator.integers(ITEMS - SIZE, size=(end - begin, 1)) + np.arange(SIZE)
            labels = np.tile(np.arange(SIZE) == 0, end - begin).astype(np.int8)
            names = [f"{n:05d}" for n in drawn.ravel()]
            yield pa.table([np.repeat(np.arange(begin, end), SIZE), names, labels], schema=schema.CANDIDATES)

    def summaries() -> Iterator[pa.Table]:
        for begin in range(0, users, _TEXTS):
            end = min(begin + _TEXTS, users)
            texts = [
                f"User {n} likes quiet landscapes, bold red covers and night scenes. " * 8 for n in range(begin, end)
            ]
            yield pa.table([list(range(begin, end)), texts], schema=schema.USER_SUMMARIES)

    schema.write_chunks(examples(), schema.EXAMPLES, folder / "examples.parquet")
    schema.write_chunks(candidates(), schema.CANDIDATES, folder / "candidates.parquet")
    schema.write_chunks(summaries(), schema.USER_SUMMARIES, folder / "users.parquet")


def run(folder: Path, question: str, pipe: Any) -> None:
    """Score the tables in ``folder``; send peak memory in MB, seconds and rows."""
    started = time.perf_counter()
    with CompletionCache(folder / f"{question}.sqlite") as cache:
        client = Client(Prompts(question=question), Instant(), cache)
        dirs, job = StageDirs(*[folder] * 7), Job(folder, Reporter(console=Console(quiet=True)))
        counts = score(TrainConfig(model=ModelConfig(path="tiny"), prompt=question), dirs, client, job)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    pipe.send((peak, time.perf_counter() - started, counts["candidates"]))


def measure(users: int, question: str) -> tuple[float, float, int]:
    """Return peak memory in MB, seconds and rows of one size, in a fresh process."""
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        write_tables(Path(folder), users)
        here, there = spawn.Pipe()
        process = spawn.Process(target=run, args=(Path(folder), question, there))
        process.start()
        there.close()
        peak, seconds, rows = here.recv()
        process.join()
    assert rows == users * SIZE
    return peak, seconds, rows


def main() -> None:
    """Print both sizes, and with ``--json`` one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help=f"{FULL_USERS} users and {TIMES} times as many")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    options = parser.parse_args()
    users = FULL_USERS if options.full else DEFAULT_USERS
    growth: dict[str, float] = {}
    counts: dict[str, Any] = {}
    for question in ("recommend", "recommend-image-first"):
        once, many = (measure(size, question) for size in (users, users * TIMES))
        growth[question] = many[0] / once[0]
        counts[question] = {
            "rows": [once[2], many[2]],
            "peak_rss_mb": [once[0], many[0]],
            "seconds": [once[1], many[1]],
        }
        print(f"{question}: {once[2]:,} rows {once[0]:.0f} MB, {many[2]:,} rows {many[0]:.0f} MB: "
              f"{growth[question]:.2f}x the memory for {TIMES}x the users (at most {GOAL}; floor {FLOOR})")  # fmt: skip
    if options.json:
        print(json.dumps({
            "workload": f"score stage without a model: {users} and {users * TIMES} users x {SIZE} candidates",
            "ratio": max(growth.values()), "floor": FLOOR, "goal": GOAL, "counts": counts,
            "peak_rss_mb": max(max(one["peak_rss_mb"]) for one in counts.values()),
        }))  # fmt: skip


if __name__ == "__main__":
    main()
