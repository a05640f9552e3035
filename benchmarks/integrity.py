"""What it costs that nothing is believed unchecked: digests, seals and checksums, as a share of a run.

Workloads: a whole run of the demo's pipeline on a smaller synthetic dataset, with real summaries, training and scores,
and a run that finds everything up to date (as `msr run` right after it), whose every file is compared. Each is done as
it is and with all of it left out (patched here; nothing in msr switches it off), by turns, in this process. Two
figures: the difference of the medians, and the seconds that were spent inside the checks, which noise does not reach;
where nothing is to be done, as a share of the whole command too, whose process has to start. Scores must be equal, byte
for byte, with and without.

    python benchmarks/integrity.py [--full] [--json]
"""

# ruff: noqa: E402 - threads are pinned before NumPy is imported
import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

from msr_adapter import integrity
from msr_adapter.config.loader import LoadedPipeline, load_pipeline
from msr_adapter.files import path_stamp
from msr_adapter.generation import completion_store
from msr_adapter.llamafactory import model_weights, prompt_encoder
from msr_adapter.pipeline import kept, planning, run_folder, runner, stored_images
from msr_adapter.pipeline.stages import WHOLE
from msr_adapter.progress import Reporter

GOAL = 0.03
SMALL = ("data.source.users=100", "data.source.items=80", "train.max_steps=20", "train.checkpoints=2")
CHECKS: tuple[tuple[Any, str, Callable[..., Any]], ...] = (
    (integrity, "seal_of", lambda manifest: manifest.get("seal", "")),
    (run_folder, "seal_of", lambda manifest: "none"),
    (run_folder, "digests_of", lambda stage: {}),
    (run_folder, "content_of", path_stamp),
    (planning, "alterations", lambda stage, **options: integrity.Alterations()),
    (kept, "alterations", lambda stage, **options: integrity.Alterations()),
    (runner, "require_unaltered", lambda stages, **options: None),
    (runner, "require_unaltered_images", lambda data: None),
    (model_weights, "require_unaltered", lambda stages, **options: None),
    (prompt_encoder, "require_unaltered", lambda stages, **options: None),
    (completion_store, "_checksum", lambda row: bytes(8)),
)
"""Where a check is called, by which name, and what does nothing in its place."""


class Stopwatch:
    """Seconds spent inside the checks, those that call one another counted once."""

    def __init__(self) -> None:
        self.seconds, self._depth = 0.0, 0

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``function``, timed."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            started, self._depth = time.perf_counter(), self._depth + 1
            try:
                return function(*args, **kwargs)
            finally:
                self._depth -= 1
                if self._depth == 0:
                    self.seconds += time.perf_counter() - started

        return timed


@contextlib.contextmanager
def checking(watch: Stopwatch | None) -> Iterator[None]:
    """Within, time all checks; without a ``watch``, leave them out. No file is known, as in a new process."""
    integrity._known.clear()
    integrity._sealed.clear()
    stored_images._seen.clear()
    with contextlib.ExitStack() as stack:
        for module, name, nothing in CHECKS:
            stack.enter_context(patch.object(module, name, watch.timed(getattr(module, name)) if watch else nothing))
        yield


def bring_up_to_date(loaded: LoadedPipeline, watch: Stopwatch | None) -> tuple[float, set[str]]:
    """Do what `msr run` does; return its seconds and what became of the stages."""
    with checking(watch):
        started = time.perf_counter()
        result = runner.run(loaded, WHOLE, reporter=Reporter(quiet=True))
        return time.perf_counter() - started, {stage.state for stage in result.stages}


def compare(name: str, runs: int, once: Callable[[str, Stopwatch | None], float], start: float = 0) -> dict[str, Any]:
    """Run with and without checks by turns, ``runs`` times each; return medians and shares, and print them.

    ``start`` are seconds that the command takes beside.
    """
    seconds: dict[str, list[float]] = {"with": [], "without": []}
    inside = []
    for _ in range(runs):
        watch = Stopwatch()
        seconds["with"].append(once("with", watch))
        inside.append(watch.seconds)
        seconds["without"].append(once("without", None))
    on, off = (start + statistics.median(seconds[way]) for way in ("with", "without"))
    spent = statistics.median(inside) / on
    verdict = "within" if spent < GOAL else "above"
    print(f"{name}: {on:.2f} s with checks, {off:.2f} s without ({(on - off) / off:+.1%}); {spent:.2%} of it spent "
          f"inside them, {verdict} the goal of {GOAL:.0%}; medians of {runs}")  # fmt: skip
    return {"runs": runs, "seconds": seconds, "start": start, "inside_seconds": inside, "inside": spent}


def seconds_to_start() -> float:
    """Return how long the command takes until it begins, as the median of five."""
    code = "import msr_adapter.cli.app, msr_adapter.config.loader, msr_adapter.pipeline.runner"
    taken = []
    for _ in range(5):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def main() -> None:
    """Print a line per workload, and with ``--json`` one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="the demo as it is")
    parser.add_argument("--runs", type=int, default=2, help="whole runs of each kind")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        made: list[Path] = []

        def loaded(run_dir: Path) -> LoadedPipeline:
            return load_pipeline("demo", () if options.full else SMALL, run_dir)

        def whole(way: str, watch: Stopwatch | None) -> float:
            made.append(Path(scratch) / f"{way}-{len(made)}")
            seconds, states = bring_up_to_date(loaded(made[-1]), watch)
            assert states == {"done"}
            return seconds

        def again(way: str, watch: Stopwatch | None) -> float:
            seconds, states = bring_up_to_date(loaded(made[0]), watch)
            assert states == {"up to date"}
            return seconds

        workload = "the demo" if options.full else "a small demo"
        found = {"whole": compare(f"whole run of {workload}", options.runs, whole)}
        assert len({(run / "score" / "scores.parquet").read_bytes() for run in made}) == 1
        found["up to date"] = compare(f"run of {workload}, up to date", 15, again, seconds_to_start())
    if options.json:
        print(json.dumps({"workload": workload, "goal": GOAL, **found}))


if __name__ == "__main__":
    main()
