"""The data stage on a log that is far larger than memory would like: a generated one, streamed from Parquet.

Rows come in the order of time, users interleaved. Item popularity follows Zipf's law with exponent 1 over one item per
200 rows; activity is uneven over one user per 20 rows. 5-core, leave-last-out by default, 1 and 20 negatives.

    python benchmarks/scale_data.py [--interactions 100_000_000] [--split user-holdout] [--folder DIR] [--json]
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from msr_adapter.config.schema import (
    DataConfig,
    KCoreConfig,
    NegativesConfig,
    ProtocolConfig,
    SplitConfig,
    TableSourceConfig,
    TrainNegativesConfig,
)
from msr_adapter.data import BuildInputs, build
from msr_adapter.progress import Reporter
from msr_adapter.stage_arguments import Job

ROWS_PER_USER, ROWS_PER_ITEM = 20, 200
CHUNK = 1_000_000
WORDS = ("red", "quiet", "bold", "sea", "night", "dragon", "garden", "city", "song", "winter", "gold", "letters")


def generate(folder: Path, interactions: int) -> None:
    """Write log.parquet and items.parquet, a chunk at a time."""
    users, items = max(20, interactions // ROWS_PER_USER), max(200, interactions // ROWS_PER_ITEM)
    generator = np.random.default_rng(0)
    names = {"user_id": _names("u", users, generator), "item_id": _names("i", items, generator)}
    schema = pa.schema([("user_id", pa.string()), ("item_id", pa.string()), ("timestamp", pa.int64())])
    with pq.ParquetWriter(folder / "log.parquet", schema, compression="zstd") as writer:
        for begin in range(0, interactions, CHUNK):
            rows = min(CHUNK, interactions - begin)
            codes = {
                "user_id": (users * generator.random(rows) ** 1.3).astype(np.int32),
                "item_id": (items ** generator.random(rows)).astype(np.int32) - 1,
            }
            columns = [names[name].take(pa.array(code)) for name, code in codes.items()]
            times = 1_600_000_000_000 + 250 * (begin + np.arange(rows)) + generator.integers(0, 250, rows)
            writer.write_table(pa.table([*columns, times], schema=schema))
    picked = generator.integers(0, len(WORDS), (items, 4))
    titles = [" ".join(WORDS[word] for word in row) for row in picked.tolist()]
    pq.write_table(pa.table({"item_id": names["item_id"], "title": titles}), folder / "items.parquet")


def _names(prefix: str, count: int, generator: np.random.Generator) -> pa.Array:
    """Return ids whose order says nothing about popularity."""
    ids = pl.Series(generator.permutation(count)).cast(pl.String).str.zfill(len(str(count)))
    return (prefix + ids).to_arrow().cast(pa.string())


def measure(folder: Path, kind: str) -> dict[str, Any]:
    """Build from the files in ``folder`` and return counts, seconds and the peak memory of this process."""
    source = TableSourceConfig(kind="table", interactions=folder / "log.parquet", items=folder / "items.parquet")
    data = DataConfig(source=source, k_core=KCoreConfig(users=5, items=5))
    protocol = ProtocolConfig(name="scale", negatives=NegativesConfig(count=20))
    out = folder / "out"
    out.mkdir()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    started = time.perf_counter()
    split = SplitConfig.model_validate({"kind": kind})
    result = build(BuildInputs(data, split, protocol, TrainNegativesConfig(count=1)), Job(out, Reporter()))
    return {
        "counts": result["counts"],
        "splits": result["splits"],
        "ours_s": time.perf_counter() - started,
        "rss_before_mb": before,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "bytes": {path.name: path.stat().st_size for path in sorted(out.glob("*.parquet"))},
    }


def main() -> None:
    """Generate in a child, so that only the build counts; build; print, and with ``--json`` end with one object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--interactions", type=int, default=1_000_000)
    parser.add_argument("--split", choices=("user-holdout", "leave-last-out"), default="leave-last-out")
    parser.add_argument(
        "--folder", type=Path, help="where the files go and are removed again; default: a temporary one"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    parser.add_argument("--generate", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.generate:
        return generate(options.folder, options.interactions)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        child = [sys.executable, __file__, "--generate", "--folder", folder, "--interactions"]
        subprocess.run([*child, str(options.interactions)], check=True)
        result = measure(Path(folder), options.split)
    result = {"workload": f"data stage: {options.interactions:,} interactions, {options.split}", **result,
              "cores": os.cpu_count()}  # fmt: skip
    rate = options.interactions / result["ours_s"]
    print(f"{result['workload']}: {result['ours_s']:.1f} s, {rate:,.0f} rows/s, peak {result['peak_rss_mb']:,.0f} MB")
    if options.json:
        print(json.dumps(result))
    return None


if __name__ == "__main__":
    main()
