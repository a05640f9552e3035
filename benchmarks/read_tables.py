"""Reading tables: MicroLens-50k, and generated logs as csv (plain and with every field quoted) and JSON lines.

Each reading is a process of its own, which reads and encodes the log as the data stage does. Several source trees are
read in turn (A B A B ...), so that other work of the machine meets all of them alike; the CPU time of the processes
says more than the clock does.

    python benchmarks/read_tables.py [--rows 10_000_000] [--trees TREE TREE] [--repeat 3] [--only csv] [--json]
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np
import polars as pl

HERE = Path(__file__).parents[1]
CHUNK = 2_000_000
READ = """
import sys, time
from pathlib import Path
from msr_adapter.config.schema import MicroLensSourceConfig, TableSourceConfig
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.interaction_log import encode
from msr_adapter.data.readers.sources import check_source, read
path = Path(sys.argv[1])
if path.is_dir():
    pairs, titles = path / "MicroLens-50k_pairs.tsv", path / "MicroLens-50k_titles.csv"
    source = MicroLensSourceConfig(kind="microlens", pairs=pairs, titles=titles)
else:
    source = TableSourceConfig(kind="table", interactions=path)
begun, used = time.perf_counter(), time.process_time()
assert check_source(source) == []
audit = Audit()
log = encode(read(source, 0, audit), audit)
print(time.perf_counter() - begun, time.process_time() - used, len(log.user))
"""


def main() -> None:
    """Generate, read, print medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--trees", type=Path, nargs="+", default=[HERE])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", nargs="+", help="microlens, csv, quoted, jsonl")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = _files(Path(folder), options.rows, options.only)
        found = {name: _measure(path, options.trees, options.repeat) for name, path in files.items()}
    if options.json:
        print(json.dumps(found, indent=2))
        return
    for name, rows in found.items():
        for row in rows:
            print(f"{name:10} {row['tree']:40} {row['seconds']:8.2f} s {row['cpu_seconds']:8.2f} s CPU")
    print(f"peak of the largest reading: {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**10:,.0f} MiB")


def _files(folder: Path, rows: int, only: list[str] | None) -> dict[str, Path]:
    files: dict[str, Path] = {}
    shared = Path(os.environ.get("MSR_SHARED_DATA", HERE.parent / "shared" / "data")) / "microlens-50k"
    if shared.is_dir():
        files["microlens"] = shared
    files |= {"csv": folder / "log.csv", "quoted": folder / "quoted.csv", "jsonl": folder / "log.jsonl"}
    files = {name: path for name, path in files.items() if not only or name in only}
    generator = np.random.default_rng(0)
    for begin in range(0, rows, CHUNK):
        size = min(CHUNK, rows - begin)
        frame = pl.DataFrame(
            {"user_id": generator.integers(0, rows // 20 + 20, size), "item_id": generator.integers(0, 50_000, size),
             "timestamp": 1_500_000_000 + begin + np.arange(size)}
        )  # fmt: skip
        for name, path in files.items():
            if path.parent != folder:
                continue
            with path.open("ab") as file:
                if name in ("csv", "quoted"):
                    style = "always" if name == "quoted" else "necessary"
                    frame.cast(pl.String).write_csv(file, include_header=not begin, quote_style=style)  # type: ignore[arg-type]
                elif name == "jsonl":
                    frame.write_ndjson(file)
    return files


def _measure(path: Path, trees: list[Path], repeat: int) -> list[dict[str, object]]:
    times: dict[Path, list[tuple[float, float]]] = {tree: [] for tree in trees}
    for _ in range(repeat):
        for tree in trees:
            done = subprocess.run(
                [sys.executable, "-c", READ, str(path)], capture_output=True, text=True, check=True, cwd=tree,
                env={**os.environ, "PYTHONPATH": str(tree)},
            )  # fmt: skip
            seconds, cpu, _ = map(float, done.stdout.split())
            times[tree].append((seconds, cpu))
    return [
        {"tree": tree.name, "seconds": median(one for one, _ in found), "cpu_seconds": median(two for _, two in found)}
        for tree, found in times.items()
    ]


if __name__ == "__main__":
    main()
