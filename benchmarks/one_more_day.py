"""What one more day of a shop costs: rows read, time and memory of the data stage, and requests for user summaries.

A generated log lies in daily parts of Parquet, users interleaved, 20 interactions a user and 200 an item in the mean
(item popularity by Zipf's law). The data stage is built over all days but the last, then over all (5-core, 80/10/10 by
user, 1 and 20 negatives), each in a process of its own. Of test users, the histories before both targets are summarised
in blocks of 3 by a scripted model through one completion cache: under `split.history_window: items` (10 items),
`blocks` (10 items) and with whole histories. New requests of the second day are counted.

    python benchmarks/one_more_day.py [--interactions 10_000_000] [--days 100] [--users 5000] [--folder DIR] [--json]
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from msr_adapter import schema
from msr_adapter.backends.scripted import ScriptedBackend
from msr_adapter.config.schema import (
    DataConfig,
    KCoreConfig,
    ModelConfig,
    NegativesConfig,
    ProtocolConfig,
    SplitConfig,
    TableSourceConfig,
    TrainNegativesConfig,
    UserSummariesConfig,
)
from msr_adapter.data import BuildInputs, build
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.readers.sources import read
from msr_adapter.generation import CompletionCache
from msr_adapter.history_window import HistoryWindow
from msr_adapter.progress import Reporter
from msr_adapter.prompts import Prompts
from msr_adapter.stage_arguments import Client, Job, StageDirs
from msr_adapter.summarize import summarize_users

ROWS_PER_USER, ROWS_PER_ITEM = 20, 200
LONGEST, BLOCK = 10, 3
DAY_MS = 86_400_000
WINDOWS = {
    "items": HistoryWindow(LONGEST), "blocks": HistoryWindow(LONGEST, BLOCK), "whole": HistoryWindow(10**9),
}  # fmt: skip
QUIET = Reporter(quiet=True)

Histories = Mapping[str, Sequence[str]]


def generate(folder: Path, interactions: int, days: int) -> None:
    """Write log/day-NNN.parquet, ``days`` of ``interactions`` in all and one more, and items.parquet."""
    users, items = max(200, interactions // ROWS_PER_USER), max(200, interactions // ROWS_PER_ITEM)
    generator = np.random.default_rng(0)
    (folder / "log").mkdir()
    rows = interactions // days
    for day in range(days + 1):
        columns = {
            "user_id": (users * generator.random(rows) ** 1.3).astype(np.int64),
            "item_id": (items ** generator.random(rows)).astype(np.int64) - 1,
            "timestamp": 1_600_000_000_000 + day * DAY_MS + np.sort(generator.integers(0, DAY_MS, rows)),
        }
        ids = {name: pl.format(letter + "{}", pl.col(name) * 7919 % number)
               for name, letter, number in (("user_id", "u", users), ("item_id", "i", items))}  # fmt: skip
        pl.DataFrame(columns).with_columns(**ids).write_parquet(folder / "log" / f"day-{day:03}.parquet")
    n = pl.int_range(items, eager=True)
    frame = pl.DataFrame({"item_id": n, "title": n}).select(
        pl.format("i{}", "item_id").alias("item_id"), pl.format("Lamp {}", "title").alias("title")
    )
    frame.write_parquet(folder / "items.parquet")


def measure_build(log: Path, items: Path, out: Path) -> dict[str, Any]:
    """Build; return counts, seconds and the peak memory of this process, and what reading alone takes."""
    source = TableSourceConfig(kind="table", interactions=log, items=items)
    started, used = time.perf_counter(), time.process_time()
    rows = read(source, 0, Audit()).interactions.select(pl.len()).collect(engine="streaming").item()
    reading = {"reading_s": time.perf_counter() - started, "reading_cpu_s": time.process_time() - used}
    protocol = ProtocolConfig(name="day", negatives=NegativesConfig(count=20))
    data = DataConfig(source=source, k_core=KCoreConfig(users=5, items=5))
    split = SplitConfig(max_history=LONGEST, history_window="blocks")
    started, used = time.perf_counter(), time.process_time()
    build(BuildInputs(data, split, protocol, TrainNegativesConfig(count=1), BLOCK), Job(out, QUIET))
    return {
        "rows_read": rows, **reading, "build_s": time.perf_counter() - started,
        "build_cpu_s": time.process_time() - used,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "examples": schema.count_rows(out / "examples.parquet", schema.EXAMPLES),
    }  # fmt: skip


def whole_histories(data: Path) -> dict[str, list[str]]:
    """Return user -> all items before the target, of test users."""
    examples = pl.read_parquet(data / "examples.parquet").filter(pl.col("split") == "test")
    earlier = pl.read_parquet(data / "earlier.parquet")
    joined = examples.join(earlier, on="example_id", how="left").select(
        "user_id", items=pl.concat_list(pl.col("items").fill_null([]), "history")
    )
    return dict(joined.iter_rows())


def summarise(folder: Path, data: Path, histories: Histories) -> dict[str, int]:
    """Summarise ``histories`` through the cache in ``folder``; return how many requests were new and how many known."""
    out, users = folder / "out", list(histories)
    out.mkdir(parents=True, exist_ok=True)
    examples = pa.table(
        [list(range(len(users))), ["test"] * len(users), users, list(histories.values()), [0] * len(users)],
        schema=schema.EXAMPLES,
    )
    schema.write_table(examples, schema.EXAMPLES, folder / "examples.parquet")
    listed = pq.read_table(data / "items.parquet", columns=["item_id"])["item_id"]
    summaries = pa.table([listed, pa.array([""] * len(listed), pa.string())], schema=schema.ITEM_SUMMARIES)
    schema.write_table(summaries, schema.ITEM_SUMMARIES, folder / "items.parquet")
    dirs = StageDirs(data, folder, folder, folder, folder, folder, folder)
    config = UserSummariesConfig(model=ModelConfig(path="nobody", backend="scripted"), block=BLOCK)
    with CompletionCache(folder / "completions.sqlite") as cache:
        counts = summarize_users(config, dirs, Client(Prompts(), ScriptedBackend(), cache), Job(out, QUIET))
    return {"new": counts["computed"], "cached": counts["cached"]}


def measure_requests(folder: Path, before: Path, after: Path, users: int) -> dict[str, Any]:
    """Return window -> requests of the second day, of the first ``users`` test users of both days, drawn by chance."""
    old, new = whole_histories(before), whole_histories(after)
    both = sorted(old.keys() & new.keys())
    chosen = [both[place] for place in np.random.default_rng(0).permutation(len(both))[:users]]
    grown = sum(old[user] != new[user] for user in chosen)
    cut = sum(len(new[user]) > LONGEST for user in chosen)
    found: dict[str, Any] = {"users": len(chosen), "grown": grown, "cut": cut, "windows": {}}
    for name, window in WINDOWS.items():
        for histories in (old, new):
            left = window.left_out(np.array([len(histories[user]) for user in chosen])).tolist()
            cut_ones = {user: histories[user][begin:] for user, begin in zip(chosen, left, strict=True)}
            found["windows"][name] = summarise(folder / name, after, cut_ones)
    return found


def run(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Generate, build twice, summarise; return all that was measured."""
    me = [sys.executable, __file__, "--interactions", str(options.interactions), "--days", str(options.days)]
    subprocess.run([*me, "--folder", str(folder), "--generate"], check=True)
    last = sorted((folder / "log").iterdir())[-1]
    last.rename(folder / "tomorrow.parquet")
    builds = []
    for day in ("before", "after"):
        if day == "after":
            (folder / "tomorrow.parquet").rename(last)
        (folder / day).mkdir()
        child = subprocess.run(
            [*me, "--folder", str(folder), "--build", day], check=True, stdout=subprocess.PIPE, text=True
        )
        builds.append(json.loads(child.stdout.splitlines()[-1]))
    requests = measure_requests(folder / "summaries", folder / "before", folder / "after", options.users)
    return {"before": builds[0], "after": builds[1], **requests, "cores": os.cpu_count()}


def table(found: Mapping[str, Any]) -> str:
    """Return what is printed."""
    lines = []
    for day in ("before", "after"):
        one = found[day]
        reading = f"{one['rows_read']:>12,} rows read in {one['reading_s']:.1f} s ({one['reading_cpu_s']:.1f} s CPU)"
        building = (
            f"built in {one['build_s']:.1f} s ({one['build_cpu_s']:.1f} s CPU), peak {one['peak_rss_mb']:,.0f} MB"
        )
        lines.append(f"{day:<7} {reading}; {building}")
    sizes = f"{found['grown']:,} with an interaction more, {found['cut']:,} with more than {LONGEST} items"
    lines.append(f"{found['users']:,} test users, {sizes}")
    usual = found["windows"]["items"]["new"]
    for name, one in found["windows"].items():
        ratio = f"{usual / one['new']:.2f}x fewer" if one["new"] else ""
        each = one["new"] / max(found["grown"], 1)
        asked = f"{one['new']:>8,} new requests ({each:.2f} a user with more)"
        lines.append(f"{name:<7} {asked}, {one['cached']:>9,} from the cache  {ratio}")
    return "\n".join(lines)


def main() -> None:
    """Measure in a temporary folder and print; ``--json`` ends with one object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--interactions", type=int, default=200_000)
    parser.add_argument("--days", type=int, default=100)
    parser.add_argument("--users", type=int, default=5_000, help="test users whose summaries are counted")
    parser.add_argument(
        "--folder", type=Path, help="where the files go and are removed again; default: a temporary one"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    parser.add_argument("--generate", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--build", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.generate:
        return generate(options.folder, options.interactions, options.days)
    if options.build:
        here = options.folder
        print(json.dumps(measure_build(here / "log", here / "items.parquet", here / options.build)))
        return None
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        found = run(Path(folder), options)
    print(table(found))
    if options.json:
        print(json.dumps(found))
    return None


if __name__ == "__main__":
    main()
