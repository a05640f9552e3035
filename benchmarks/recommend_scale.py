"""Memory and time of `msr recommend --out FOLDER` for millions of users, by a back end that answers at once.

Workload: a log of ``--users`` users with five interactions each over 100,000 items, 200 popular candidates a user
(``--candidates``), and a script in place of the model, so that what is measured is all that is not the model: reading
the log, retrieving, rendering prompts, ranking, writing. The log is whole, the lists are those of the first parts
(4,096 users each) that ``--parts`` names, each number in a process of its own. Printed: resident memory after reading
and at its highest, for each number of parts; users a second; and what all users would take at that pace. Memory must
not grow with the parts.

    python benchmarks/recommend_scale.py [--users 10000000] [--parts 1 3] [--candidates 200] [--json]
"""

# ruff: noqa: E402 - threads are pinned before NumPy is imported
import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS"):
    os.environ.setdefault(_name, "1")

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from msr_adapter import schema
from msr_adapter.backends.scripted import ScriptedBackend
from msr_adapter.config.loader import load_pipeline
from msr_adapter.pipeline.run_folder import RunFolder
from msr_adapter.pipeline.stage_context import Context, prompts_of
from msr_adapter.progress import Reporter
from msr_adapter.workflows.recommend.finding import RecommendWork
from msr_adapter.workflows.recommend.in_parts import recommend_in_parts
from msr_adapter.workflows.recommend.part_folder import PartFolder
from msr_adapter.workflows.recommend.request import RecommendRequest
from msr_adapter.workflows.recommend.resolve_request import RequestFiles, resolve_request
from msr_adapter.workflows.recommend.user_shards import read_items

ITEMS, EACH, TOP = 100_000, 5, 10
_ROWS = 1_000_000
PIPELINE = """\
name: scale
data: {source: {kind: synthetic, users: 10, items: 60}}
summarize:
  items: {mode: none, model: &script {path: nobody, backend: scripted}}
  users: {mode: none, model: *script}
train: {model: {path: tiny}}
evaluate: {protocol: next-item, scorer: *script}
"""


def resident() -> float:
    """Return this process's resident memory in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def highest() -> float:
    """Return the most resident memory that this process ever had, in MB."""
    [line] = [one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmHWM")]
    return int(line.split()[1]) * 1024 / 1e6


def item_ids() -> list[str]:
    return [f"i{item:07}" for item in range(ITEMS)]


def write_data(data: Path, users: int) -> None:
    """Write the tables of a data stage: ids of 9 letters, items by a popularity that falls as 1 / rank."""
    data.mkdir(parents=True)
    names = item_ids()
    columns = {
        "item_id": names, "title": [f"Title of the item {item}" for item in range(ITEMS)], "image": [None] * ITEMS,
        "image_digest": [None] * ITEMS, "more_images": [None] * ITEMS, "text": [""] * ITEMS,
        "popularity": np.zeros(ITEMS, np.int64), "category": [None] * ITEMS,
        "in_log": [True] * ITEMS, "listed": [True] * ITEMS,
    }  # fmt: skip
    schema.write_table(pa.table(columns).cast(schema.ITEMS), schema.ITEMS, data / "items.parquet")
    schema.write_chunks(_log(users, pa.array(names)), schema.INTERACTIONS, data / "interactions.parquet")
    for table, name in ((schema.SEEN, "seen"), (schema.EXAMPLES, "examples")):
        schema.write_table(table.empty_table(), table, data / f"{name}.parquet")


def _log(users: int, names: pa.Array) -> Iterator[pa.Table]:
    draw = np.random.default_rng(1)
    for begin in range(0, users, _ROWS // EACH):
        mine = np.repeat(np.arange(begin, min(begin + _ROWS // EACH, users)), EACH)
        item = np.minimum((ITEMS ** draw.random(len(mine))).astype(np.int64), ITEMS - 1)
        ids = pa.array([f"u{user:08}" for user in mine[::EACH].tolist()]).take(pa.array(np.arange(len(mine)) // EACH))
        yield pa.table(
            [ids, names.take(pa.array(item)), np.arange(len(mine)), np.ones(len(mine), dtype=bool)],
            names=schema.INTERACTIONS.names,
        ).cast(schema.INTERACTIONS)


def one_size(root: Path, parts: int, candidates: int) -> dict[str, Any]:
    """Write the lists of the first ``parts`` of all users; return what it took."""
    loaded = load_pipeline(str(root / "scale.yaml"), (), root / "run")
    folder, out = RunFolder(loaded.run_dir), root / f"lists-{parts}"
    wanted = RecommendRequest(None, f"popular:{candidates}", TOP, out)
    began, before = time.perf_counter(), resident()
    request = resolve_request(wanted, RequestFiles(None, None, None), folder.stage("data"))
    users = len(request.asked.ids)
    found = {
        "users": users,
        "parts": parts,
        "candidates": candidates,
        "empty_mb": before,
        "read_s": time.perf_counter() - began,
    }
    found["log_mb"] = resident()
    request = replace(request, asked=request.asked.only(range(parts)))
    work = root / f"work-{parts}"
    work.mkdir()
    prompts = prompts_of(loaded.pipeline)
    context = Context(loaded.pipeline, loaded.resolved, folder, prompts, work, Reporter(quiet=True))
    at: list[tuple[float, float]] = []
    close = PartFolder.close_part

    def closing(*arguments: Any) -> None:
        close(*arguments)
        at.append((time.perf_counter(), resident()))

    PartFolder.close_part = closing  # type: ignore[method-assign]
    answer = ScriptedBackend.complete

    def forgetting(backend: ScriptedBackend, *arguments: Any) -> Any:
        answers = answer(backend, *arguments)
        backend.answered.clear()  # tests look there; a key for each of billions would be all that grows
        return answers

    ScriptedBackend.complete = forgetting  # type: ignore[method-assign]
    began = time.perf_counter()
    recommend_in_parts(RecommendWork(context, wanted, request, read_items(folder.stage("data"))))
    seconds = time.perf_counter() - began
    pace = len(request.asked.ids) / seconds
    return found | {
        "seconds": seconds, "users_per_s": pace, "pairs_per_s": pace * candidates, "highest_mb": highest(),
        "after_parts_mb": [mb for _, mb in at], "all_hours": users / pace / 3600,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--parts", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--candidates", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(one_size(Path(given.child[0]), *map(int, given.child[1:]))))
        return
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "scale.yaml").write_text(PIPELINE)
        write_data(root / "run" / "data", given.users)
        (root / "run" / "items").mkdir()
        summaries = pa.table({"item_id": item_ids(), "summary": [""] * ITEMS}, schema=schema.ITEM_SUMMARIES)
        schema.write_table(summaries, schema.ITEM_SUMMARIES, root / "run" / "items" / "items.parquet")
        sizes = []
        for parts in given.parts:
            command = [sys.executable, __file__, "--child", str(root), str(parts), str(given.candidates)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            sizes.append(json.loads(done.stdout))
            if not given.json:
                print(told(sizes[-1]), flush=True)
    if given.json:
        print(json.dumps(sizes, indent=2))


def told(size: dict[str, Any]) -> str:
    """Return a size in words."""
    after = size["after_parts_mb"]
    return (
        f"{size['users']:,} users in the log, lists for {size['parts']} parts ({size['parts'] * 4096:,} users x "
        f"{size['candidates']}): {size['empty_mb']:.0f} MB before, {size['log_mb']:.0f} MB with the log (read in "
        f"{size['read_s']:.0f} s), {after[0]:.0f} MB after the first part, {after[-1]:.0f} MB after the last, "
        f"{size['highest_mb']:.0f} MB at the most; {size['users_per_s']:,.0f} users ({size['pairs_per_s']:,.0f} pairs) "
        f"a second, all of them in {size['all_hours']:.1f} hours"
    )


if __name__ == "__main__":
    main()
