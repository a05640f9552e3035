"""Building a training set from a raw log, against the same steps written row by row in pandas.

Steps: read MicroLens-50k (users, item lists, titles), iterated 7-core of users and 5-core of items, leave-last-out, 1
training and 20 validation negatives a user outside everything the user interacted with, the last 10 titles as the user
summary (mode `none`), one prompt a row, write. Ours are the product's own stages: `data.build`, `summarize`,
`build_dataset`; they also draw and write the test candidates and write the audit, which the baseline does not. Every
run is a process of its own; seconds, and CPU seconds of all threads, count from when its imports are done. Before any
ratio: given our candidates, the baseline's rows and ours (Parquet, JSON lines) are equal, and a user's own template
gives ours row by row the single renderer's text.

Without MicroLens-50k (../shared/data or MSR_SHARED_DATA) a generated log of the same shape takes its place.

    python benchmarks/build_data.py [--full] [--json]
"""

# ruff: noqa: E402 - threads are pinned before NumPy is imported
import os

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

USERS, ITEMS, DEFAULT_USERS = 50_000, 19_220, 30_000
CORE = {"users": 7, "items": 5}
NEGATIVES = {"train": 1, "validation": 20}
HISTORY = 10
GOALS = {"parquet": (18, 30), "jsonl": (12, 20), "jinja": (4, 8)}
"""Way -> floor and goal of the ratio."""
PROMPT = (
    "A user's preferences: chosen so far, oldest first: {history}\n"
    "Based on the preferences, will the user choose the candidate? Answer Yes or No.\nCandidate:\nTitle: {title}"
)
OWN_TEMPLATE = """\
{%- macro shown(text) %}"{{ text|replace("#", "")|trim }}"{% endmacro -%}
{% set liked = user_summary|replace("; ", ", ") -%}
You know this viewer. {{ liked|truncate(1200) }}
{% for word in title.split()[:3] %}{{ word|lower }} {% endfor %}
{%- if image %}<image>{% endif %}
Is {{ shown(title) if title else "an untitled video" }} next? ({{ user_summary|wordcount }} words on the viewer)
"""


def write_log(folder: Path, users: int, copies: int = 1) -> str:
    """Write pairs.tsv and titles.csv: MicroLens-50k's first users, in disjoint copies; return what it is."""
    shared = Path(os.environ.get("MSR_SHARED_DATA") or Path(__file__).parents[2] / "shared" / "data") / "microlens-50k"
    real = (shared / "MicroLens-50k_pairs.tsv").is_file()
    if real:
        lines = (shared / "MicroLens-50k_pairs.tsv").read_text(encoding="utf-8").splitlines()[:users]
        logs = [(user, items.split()) for user, items in (line.split("\t") for line in lines)]
        table = pd.read_csv(shared / "MicroLens-50k_titles.csv", dtype=str, keep_default_na=False)
        titles = list(zip(table["item"], table["title"], strict=True))
    else:
        logs, titles = generate(users)
    with (folder / "pairs.tsv").open("w", encoding="utf-8") as file:
        for copy in range(copies):
            mark = f"c{copy}-" if copy else ""
            file.writelines(f"{mark}{user}\t{' '.join(mark + item for item in items)}\n" for user, items in logs)
    rows = [(f"c{copy}-{item}" if copy else item, title) for copy in range(copies) for item, title in titles]
    pd.DataFrame(rows, columns=["item", "title"]).to_csv(folder / "titles.csv", index=False)
    return "MicroLens-50k" if real else "generated log"


def generate(users: int) -> tuple[list[tuple[str, list[str]]], list[tuple[str, str]]]:
    """Return a log and titles of the same shape: 5 items a user and more, popularity by Zipf's law, 60 letters."""
    generator = np.random.default_rng(0)
    words = np.array([f"word{number}" for number in range(3000)])
    titles = [(str(item), " ".join(generator.choice(words, 8))) for item in range(1, ITEMS + 1)]
    logs = []
    for user in range(1, users + 1):
        drawn = (ITEMS ** generator.random(5 + int(generator.geometric(0.3)))).astype(int)
        logs.append((str(user), [str(item) for item in dict.fromkeys(drawn.tolist())]))
    return logs, titles


def ours(folder: Path, kind: str) -> Iterator[str]:
    """Run the product's stages; yields after its imports and when done."""
    from rich.console import Console

    from msr_adapter.config.schema import (
        DataConfig,
        ItemSummariesConfig,
        KCoreConfig,
        MicroLensSourceConfig,
        ModelConfig,
        NegativesConfig,
        ProtocolConfig,
        SplitConfig,
        TrainConfig,
        TrainNegativesConfig,
        UserSummariesConfig,
    )
    from msr_adapter.data import BuildInputs, build
    from msr_adapter.generation import CompletionCache
    from msr_adapter.progress import Reporter
    from msr_adapter.prompts import Prompts
    from msr_adapter.stage_arguments import Client, Job, StageDirs
    from msr_adapter.summarize import summarize_items, summarize_users
    from msr_adapter.train.dataset import build_dataset

    yield "imported"
    quiet, model = Reporter(console=Console(quiet=True)), ModelConfig(path="tiny", template="qwen2_vl")
    stages = {name: folder / name for name in ("data", "items", "users", "dataset")}
    for stage in stages.values():
        stage.mkdir()
    source = MicroLensSourceConfig(kind="microlens", pairs=folder / "pairs.tsv", titles=folder / "titles.csv")
    data = DataConfig(source=source, k_core=KCoreConfig(**CORE))
    protocol = ProtocolConfig(name="benchmark", negatives=NegativesConfig(count=NEGATIVES["validation"]))
    split = SplitConfig(kind="leave-last-out", max_history=HISTORY)
    inputs = BuildInputs(data, split, protocol, TrainNegativesConfig(count=NEGATIVES["train"]))
    build(inputs, Job(stages["data"], quiet))
    made, shown = stages["data"], stages["users"]
    dirs = StageDirs(made, made, stages["items"], shown, shown, stages["dataset"], folder / "train")
    prompts = Prompts(folder / "templates") if kind == "jinja" else Prompts()
    with CompletionCache(folder / "cache.sqlite") as cache:
        by_title = ItemSummariesConfig(model=model, mode="none")
        by_history = UserSummariesConfig(model=model, mode="none")
        client = Client(prompts, None, cache)
        summarize_items(by_title, dirs, client, Job(stages["items"], quiet))
        summarize_users(by_history, dirs, client, Job(stages["users"], quiet))
    train = TrainConfig(model=model, rows="jsonl" if kind == "jsonl" else "parquet")
    build_dataset(train, dirs, prompts, Job(stages["dataset"], quiet))
    yield "done"


def pandas_rows(folder: Path, candidates: pd.DataFrame | None = None) -> Iterator[str]:
    """Do the same row by row, as notebooks do; ``candidates`` replace the drawing, for the comparison of results."""
    yield "imported"
    log = pd.read_csv(folder / "pairs.tsv", sep="\t", names=["user", "item"], dtype=str)
    log["item"] = log["item"].str.split(" ")
    log = log.explode("item").reset_index(drop=True)
    titles = pd.read_csv(folder / "titles.csv", dtype=str, keep_default_na=False)
    log = core(log[log["item"].isin(set(titles["item"]))])
    examples = leave_last_out(log)
    if candidates is None:
        candidates = draw(log, examples)
    rows = examples.merge(candidates, on=["user", "split"]).merge(titles, on="item", how="left")
    names = dict(zip(titles["item"], titles["title"], strict=True))
    rows["prompt"] = rows.apply(lambda row: prompt(row["history"], row["title"], names), axis=1)
    for split, part in rows.groupby("split"):
        with (folder / f"{split}.jsonl").open("w", encoding="utf-8") as file:
            for _, row in part.sample(frac=1, random_state=0).iterrows():
                turns = [{"role": "user", "content": row["prompt"]},
                         {"role": "assistant", "content": "Yes" if row["label"] else "No"}]  # fmt: skip
                file.write(json.dumps({"messages": turns, "images": []}, ensure_ascii=False) + "\n")
    yield "done"


def core(log: pd.DataFrame) -> pd.DataFrame:
    """Drop rare users and items until none is left."""
    while True:
        users, items = log["user"].value_counts(), log["item"].value_counts()
        kept = log[log["user"].map(users).ge(CORE["users"]) & log["item"].map(items).ge(CORE["items"])]
        if len(kept) == len(log):
            return kept
        log = kept


def leave_last_out(log: pd.DataFrame) -> pd.DataFrame:
    """Return user, split, history and target of the two examples that are written."""
    rows = []
    for user, items in log.groupby("user", sort=False)["item"]:
        chosen = items.tolist()
        for split, lag in (("train", 3), ("validation", 2)):
            if len(chosen) > lag:
                rows.append({"user": user, "split": split, "target": chosen[-lag],
                             "history": chosen[max(0, len(chosen) - lag - HISTORY) : len(chosen) - lag]})  # fmt: skip
    return pd.DataFrame(rows)


def draw(log: pd.DataFrame, examples: pd.DataFrame) -> pd.DataFrame:
    """Draw negatives per user from the catalogue without what the user interacted with."""
    np.random.seed(0)  # one global state, as the notebooks have
    catalogue, seen = set(log["item"]), log.groupby("user")["item"].apply(set)
    rows = []
    for _, example in examples.iterrows():
        free = list(catalogue - seen[example["user"]])
        drawn = np.random.choice(free, NEGATIVES[example["split"]], replace=False)
        for item, label in [(example["target"], 1), *((item, 0) for item in drawn)]:
            rows.append({"user": example["user"], "split": example["split"], "item": item, "label": label})
    return pd.DataFrame(rows)


def prompt(history: list[str], title: str, names: dict[str, str]) -> str:
    """Return one prompt; text from the data is cleaned by the product's rules, so that rows can be compared."""
    from msr_adapter.prompts.neutralize import TEXT_LIMIT, neutralise

    told = "; ".join(cleaned(names[item]) or "(no title)" for item in history)
    text = PROMPT.format(history="{history}", title="{title}")
    told = neutralise("chosen so far, oldest first: " + told, TEXT_LIMIT).removeprefix("chosen so far, oldest first: ")
    return text.replace("{history}", told).replace("{title}", cleaned(title) or "(no title)")


def cleaned(title: str) -> str:
    """Return a title by the product's rules."""
    from msr_adapter.prompts import neutralise

    return neutralise(title)


def worker(way: str, folder: Path) -> None:
    """Run one way in this process and print its seconds and peak memory."""
    steps = pandas_rows(folder) if way == "pandas" else ours(folder, way)
    next(steps)
    started, used = time.perf_counter(), time.process_time()
    next(steps)
    seconds, cpu = time.perf_counter() - started, time.process_time() - used
    files = [path for path in folder.rglob("*") if path.suffix in (".parquet", ".jsonl")]
    peak = peak_rss_mb()
    written = sum(path.stat().st_size for path in files)
    print(json.dumps({"seconds": seconds, "cpu_s": cpu, "peak_rss_mb": peak, "bytes": written}))


def peak_rss_mb() -> float:
    """Return this process's own peak: on Linux `ru_maxrss` begins with what its parent held when it forked."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    own = [int(line.split()[1]) for line in lines if line.startswith("VmHWM")]
    return (own[0] if own else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) / 1024


def run(way: str, users: int, copies: int, check: bool = False) -> dict[str, Any]:
    """Run one way in a process and folder of its own; with ``check``, compare its rows before the folder goes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_log(folder, users, copies)
        (folder / "templates").mkdir()
        (folder / "templates" / "recommend.j2").write_text(OWN_TEMPLATE, encoding="utf-8")
        command = [sys.executable, __file__, "--worker", way, "--folder", name]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return result | (compare(folder, way) if check else {})


def compare(folder: Path, way: str) -> dict[str, int]:
    """Assert that our rows are those of the reference given the same candidates; return their number."""
    from msr_adapter.llamafactory.dataset import read_rows
    from msr_adapter.prompts import Prompts

    examples = pd.read_parquet(folder / "data" / "examples.parquet")
    candidates = pd.read_parquet(folder / "data" / "candidates.parquet").merge(examples, on="example_id")
    candidates = candidates[candidates["split"] != "test"]
    rows = 0
    for split in NEGATIVES:
        written = read_rows(folder / "dataset" / f"msr_{split}")
        found = sorted(tuple(turn["content"] for turn in row["messages"]) for row in written)
        if way == "jinja":
            expected = one_by_one(folder, Prompts(folder / "templates"), candidates[candidates["split"] == split])
        else:
            given = candidates.rename(columns={"user_id": "user", "item_id": "item"})
            if not rows:
                list(pandas_rows(folder, given[["user", "split", "item", "label"]]))
            with (folder / f"{split}.jsonl").open(encoding="utf-8") as file:
                turns = [json.loads(line)["messages"] for line in file]
            expected = [(user["content"], answer["content"]) for user, answer in turns]
        assert found == sorted(expected), f"rows of {way} differ from the reference"
        rows += len(found)
    return {"rows": rows}


def one_by_one(folder: Path, prompts: Any, candidates: pd.DataFrame) -> list[tuple[str, str]]:
    """Return the rows of a user's own template, each rendered by the single-row renderer."""
    texts = pd.read_parquet(folder / "users" / "users.parquet").set_index("example_id")["summary"]
    titles = pd.read_parquet(folder / "data" / "items.parquet").set_index("item_id")["title"]
    columns = (candidates["example_id"].map(texts), candidates["item_id"].map(titles), candidates["label"])
    return [(prompts.recommend(text, title, image=False), "Yes" if label else "No")
            for text, title, label in zip(*columns, strict=True)]  # fmt: skip


def measure(full: bool) -> dict[str, Any]:
    """Compare results, then let the ways take turns; with ``full``, enlarge the log 10 and 50 times."""
    users, repeats = (USERS, 3) if full else (DEFAULT_USERS, 3)
    with tempfile.TemporaryDirectory() as name:
        source = write_log(Path(name), 10)
    rows = {way: run(way, users, 1, check=True)["rows"] for way in GOALS}
    assert len(set(rows.values())) == 1
    rounds = [{way: run(way, users, 1) for way in ("pandas", *GOALS)} for _ in range(repeats)]
    median = {way: {key: statistics.median(one[way][key] for one in rounds) for key in rounds[0][way]}
              for way in rounds[0]}  # fmt: skip
    growth = {f"{copies}x": run("parquet", users, copies) for copies in (10, 50)} if full else {}
    ratios = {way: median["pandas"]["seconds"] / median[way]["seconds"] for way in GOALS}
    return {
        "workload": f"build data: {source}, {users:,} users read, {rows['parquet']:,} rows written",
        "ratio": ratios["parquet"],
        "floor": GOALS["parquet"][0],
        "goal": GOALS["parquet"][1],
        "ratios": ratios,
        "cpu_ratios": {way: median["pandas"]["cpu_s"] / median[way]["cpu_s"] for way in GOALS},
        "ours_s": median["parquet"]["seconds"],
        "baseline_s": median["pandas"]["seconds"],
        "limit_ratio": None,
        "counts": {"rows": rows["parquet"], "bytes": {way: int(one["bytes"]) for way, one in median.items()}},
        "peak_rss_mb": median["parquet"]["peak_rss_mb"],
        "ways": median,
        "growth": growth,
    }


def main() -> None:
    """Print a table, and with ``--json`` one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help=f"all users instead of {DEFAULT_USERS:,}; growth")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return worker(options.worker, options.folder)
    result = measure(options.full)
    print(result["workload"])
    for way, one in result["ways"].items():
        ratio = ""
        if way in GOALS:
            floor, goal = GOALS[way]
            ratio = f"{result['ratios'][way]:6.1f}x, CPU {result['cpu_ratios'][way]:.1f}x (floor {floor}, goal {goal})"
        rate = result["counts"]["rows"] / one["seconds"]
        print(f"  {way:8} {one['seconds']:8.2f} s {rate:10,.0f} rows/s {one['peak_rss_mb']:6,.0f} MB {ratio}")
    for name, one in result["growth"].items():
        more = one["seconds"] / result["ours_s"]
        print(f"  {name:8} {one['seconds']:8.2f} s {more:9.1f}x the time {one['peak_rss_mb']:6,.0f} MB")
    if options.json:
        print(json.dumps(result))
    return None


if __name__ == "__main__":
    main()
