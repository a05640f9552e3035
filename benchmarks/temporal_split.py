"""What filters that count the future do to a split by time: the AUC of popularity, with them and without.

Each filter is applied twice: to the whole log before it is split, and by the data stage, which counts what was known
when training ends. Lists have 20 uniform negatives. The generated log is of a year, with items that appear throughout
it and fade; MicroLens-50k, if a folder is given, has no times, so that its days are places in the users' lists.

    python benchmarks/temporal_split.py [--microlens FOLDER] [--json]
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from msr_adapter.config.schema import (
    DataConfig,
    KCoreConfig,
    LimitConfig,
    NegativesConfig,
    ProtocolConfig,
    SplitConfig,
    TableSourceConfig,
    TrainNegativesConfig,
)
from msr_adapter.data import BuildInputs, build
from msr_adapter.progress import Reporter
from msr_adapter.stage_arguments import Job

DAY, NEW_YEAR, DAYS = 86_400_000, 1_640_995_200_000, 365
FILTERS: dict[str, dict[str, Any]] = {
    "none": {},
    "items of 20 or more": {"k_core": KCoreConfig(items=20)},
    "the 500 most popular": {"limit": LimitConfig(items=500)},
}


def generated(users: int = 8000, items: int = 4000, rows: int = 120_000) -> pl.DataFrame:
    """Return a year of interactions: half of the items are there at first, each fades within months."""
    rng = np.random.default_rng(0)
    born = np.where(rng.random(items) < 0.5, -rng.exponential(120, items), rng.uniform(0, DAYS, items))
    liked, when = rng.pareto(1.1, items) + 0.1, np.sort(rng.uniform(0, DAYS, rows))
    begins, stays = rng.uniform(-200, DAYS, users), rng.exponential(120, users) + 5
    user, item = np.empty(rows, np.int64), np.empty(rows, np.int64)
    for day in range(DAYS):
        mine = np.flatnonzero((when >= day) & (when < day + 1))
        weight = np.where(born <= day, liked * (0.1 + np.exp((born - day) / 90)), 0)
        item[mine] = rng.choice(items, len(mine), p=weight / weight.sum())
        user[mine] = rng.choice(np.flatnonzero((begins <= day) & (begins + stays > day)), len(mine))
    return pl.DataFrame({"user": user, "item": item, "timestamp": (NEW_YEAR + when * DAY).astype(np.int64)})


def microlens(folder: Path) -> pl.DataFrame:
    """Return the published lists as rows whose day is the place in the list."""
    names = {"has_header": False, "new_columns": ["user", "item"], "separator": "\t"}
    lists = pl.read_csv(folder / "MicroLens-50k_pairs.tsv", **names)
    rows = lists.with_columns(pl.col("item").str.split(" ")).explode("item")
    return rows.with_columns(timestamp=NEW_YEAR + DAY * pl.int_range(pl.len()).over("user"))


def filtered(log: pl.DataFrame, name: str) -> pl.DataFrame:
    """Apply a filter to the whole log, held-out rows and all."""
    counts = log.unique(["user", "item"]).group_by("item").len().sort("len", "item", descending=[True, False])
    best = {"items of 20 or more": counts.filter(pl.col("len") >= 20), "the 500 most popular": counts.head(500)}
    return log.join(best[name], on="item", how="semi", maintain_order="left") if name in best else log


def measured(log: pl.DataFrame, moments: tuple[int, int], **filters: Any) -> dict[str, float]:
    """Return the AUC of popularity on the test lists, their number, and how many targets training never saw."""
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder) / "log.parquet", Path(folder) / "out"
        log.write_parquet(path)
        out.mkdir()
        source = TableSourceConfig(kind="table", interactions=path)
        split = SplitConfig(kind="temporal", validation_from=moments[0], test_from=moments[1])
        protocol = ProtocolConfig(name="uniform", negatives=NegativesConfig(count=20))
        inputs = BuildInputs(DataConfig(source=source, **filters), split, protocol, TrainNegativesConfig(count=1))
        facts = build(inputs, Job(out, Reporter(quiet=True), 0))
        statistics = json.loads((out / "audit.json").read_text(encoding="utf-8"))["statistics"]
    return {"auc": statistics["heuristics"]["popularity"]["auc"], "lists": facts["splits"]["test"]["examples"],
            "targets_unseen": statistics["cold"]["targets"]}  # fmt: skip


def main() -> None:
    """Print a row for each log and filter."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--microlens", type=Path, help="the folder of MicroLens-50k_pairs.tsv")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    logs = {"generated": (generated(), (NEW_YEAR + 292 * DAY, NEW_YEAR + 328 * DAY))}
    if options.microlens:
        logs["MicroLens-50k by place"] = microlens(options.microlens), (NEW_YEAR + 5 * DAY, NEW_YEAR + 6 * DAY)
    found = [
        {"log": log, "filter": name, "whole log": measured(filtered(rows, name), moments),
         "before the cut": measured(rows, moments, **settings)}
        for log, (rows, moments) in logs.items()
        for name, settings in FILTERS.items()
    ]  # fmt: skip
    if options.json:
        print(json.dumps(found))
        return
    for row in found:
        ways = (f"{way}: AUC {row[way]['auc']:.3f} of {row[way]['lists']:,} lists, {row[way]['targets_unseen']:.1%} "  # type: ignore[index]
                "of targets unseen" for way in ("whole log", "before the cut"))  # fmt: skip
        print(f"{row['log']}, {row['filter']}; " + "; ".join(ways))


if __name__ == "__main__":
    main()
