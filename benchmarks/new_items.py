"""Items that nobody has interacted with yet: are they recommended to the users whose tastes they match?

20 items of the demo are taken out of its log entirely, and out of its table of items. The recommender is trained once.
Then the 20 rows are appended to the table, and every user who chose one of them in the whole log is recommended the 20
in an order: by the trained model, by the overlap of titles with the history, by popularity (which knows nothing of
them), and by the true preferences. A hit is one of the user's own choices among the first 5. The weights must be the
same file before and after, and nothing may be trained again.

    python benchmarks/new_items.py --out FOLDER [--items 20] [--set train.max_steps=300 ...] [--json]

FOLDER keeps the run: called again, it goes on from there.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from msr_adapter import schema
from msr_adapter.arrays import Floats, Rows
from msr_adapter.config.loader import load_pipeline
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.readers.reader import Corpus
from msr_adapter.data.readers.sources import read
from msr_adapter.files import file_digest
from msr_adapter.heuristics import title_overlap, title_vectors
from msr_adapter.metrics.intervals import difference_interval, mean_interval
from msr_adapter.pipeline import run
from msr_adapter.progress import Reporter
from msr_adapter.synthetic import SyntheticDataset
from msr_adapter.workflows.recommend import RecommendRequest
from msr_adapter.workflows.recommend.workflow import recommend

DEPTH, LEVEL = 5, 0.95
_YAML = """\
extends: {base}
name: new-items
data:
  source: {{kind: table, interactions: log.csv, items: items.csv}}
  images: {{folder: images}}
"""


def main() -> None:
    """Train where there is nothing trained, recommend, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--items", type=int, default=20)
    parser.add_argument("--pipeline", default="demo")
    parser.add_argument("--set", action="append", default=[], dest="sets")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = measure(options.out, options.pipeline, options.items, options.sets)
    print(json.dumps(found, indent=1) if options.json else table(found))


def measure(
    folder: Path, pipeline: str, number: int, sets: Sequence[str] = (), reporter: Reporter | None = None
) -> dict[str, Any]:
    """Return what each scorer reaches on ``number`` items of a synthetic ``pipeline`` that its log never had.

    ``folder`` holds the files and the run.
    """
    reporter = reporter or Reporter(quiet=not sys.stderr.isatty())
    corpus, new = split_off(folder, pipeline, number)
    loaded = load_pipeline(str(folder / "new-items.yaml"), sets, folder / "run")
    run(loaded, ("train",), reporter=reporter)
    weights = folder / "run" / "train" / "model" / "model.safetensors"
    before = file_digest(weights)
    titles = corpus.items
    assert titles is not None
    titles.write_csv(folder / "items.csv")  # the whole table: the new rows among the old ones
    new.select("item_id").write_csv(folder / "new.csv")
    wanted = RecommendRequest(None, str(folder / "new.csv"), number, folder / "lists.parquet", overwrite=True)
    counts = recommend(loaded, wanted, reporter)
    lists = pl.read_parquet(folder / "lists.parquet", glob=False)
    later = corpus.interactions.collect().filter(pl.col("item_id").is_in(new["item_id"].implode()))
    return {
        "items": number, "weights_unchanged": file_digest(weights) == before, "candidates": counts["scored"],
        **judged(folder, lists, later, corpus.synthetic),
    }  # fmt: skip


def split_off(folder: Path, pipeline: str, number: int) -> tuple[Corpus, pl.DataFrame]:
    """Write log, items and images of a synthetic pipeline without ``number`` of its items; return it whole, and those.

    The items are drawn by the pipeline's seed. What is there already is left as it is.
    """
    settings = load_pipeline(pipeline).pipeline
    corpus = read(settings.data.source, settings.seed, Audit())
    items, dataset = corpus.items, corpus.synthetic
    assert items is not None
    assert dataset is not None
    chosen = np.sort(np.random.default_rng([settings.seed, 20]).choice(items.height, number, replace=False))
    new = items[chosen.tolist()]
    if not (folder / "new-items.yaml").exists():
        (folder / "images").mkdir(parents=True, exist_ok=True)
        for item in items["item_id"]:
            dataset.draw(item).save(folder / "images" / f"{item}.png")
        gone = pl.col("item_id").is_in(new["item_id"].implode())
        corpus.interactions.filter(~gone).collect().write_csv(folder / "log.csv")
        items.filter(~gone).write_csv(folder / "items.csv")
        (folder / "new-items.yaml").write_text(_YAML.format(base=pipeline), encoding="utf-8")
    return corpus, new


def judged(folder: Path, lists: pl.DataFrame, later: pl.DataFrame, dataset: SyntheticDataset | None) -> dict[str, Any]:
    """Return hit rate and AUC of each scorer over the users who chose one of the items, and differences to the model.

    ``lists`` are whole: every user's row for each of the items that the user may be recommended.
    """
    assert dataset is not None
    asked = lists.filter(pl.col("user_id").is_in(later["user_id"].unique().implode()) & pl.col("logit").is_not_null())
    asked = asked.sort("user_id", "item_id")
    chose = later.select("user_id", "item_id").with_columns(hit=pl.lit(True))
    label = asked.join(chose, on=["user_id", "item_id"], how="left", maintain_order="left")["hit"].fill_null(False)
    sizes = asked.group_by("user_id", maintain_order=True).len()
    offsets = np.concatenate([[0], np.cumsum(sizes["len"].to_numpy())]).astype(np.int64)
    scores = {
        "model": asked["logit"].to_numpy(),
        "title overlap": _title_overlap(folder, asked, sizes["user_id"], offsets),
        "popularity": np.zeros(asked.height),
        "true preferences": dataset.choice_log_odds(asked["user_id"].to_list(), asked["item_id"].to_list()),
    }
    labels = label.to_numpy()
    values = {name: values_of(one, labels, offsets) for name, one in scores.items()}
    found: dict[str, Any] = {"users": len(sizes), "scorers": {}}
    for name, (hits, aucs) in values.items():
        entry = {f"hr@{DEPTH}": _told(hits), "gauc": _told(aucs)}
        if name != "model":
            ends = difference_interval(values["model"][0], hits, LEVEL)
            entry[f"model_minus_this_hr@{DEPTH}"] = {
                "mean": float((values["model"][0] - hits).mean()), "low": ends[0], "high": ends[1],
            }  # fmt: skip
        found["scorers"][name] = entry
    return found


def values_of(scores: Floats, labels: Any, offsets: Rows) -> tuple[Floats, Floats]:
    """Return each user's expected hit among the first `DEPTH`, over all orders of ties, and AUC (users,)."""
    hits, aucs = np.zeros(len(offsets) - 1), np.zeros(len(offsets) - 1)
    for user, (first, last) in enumerate(pairwise(offsets)):
        mine, positive = scores[first:last], labels[first:last]
        missed = 1.0  # the chance that none of the first places has a choice, place by place from the top
        left = DEPTH
        for value in np.unique(mine)[::-1]:
            tied = mine == value
            good, size, places = int(positive[tied].sum()), int(tied.sum()), min(left, int(tied.sum()))
            for place in range(places):
                missed *= max(size - good - place, 0) / (size - place)
            left -= places
        hits[user] = 1 - missed
        gap = mine[positive][:, None] - mine[~positive][None, :]
        aucs[user] = float(((gap > 0) + 0.5 * (gap == 0)).mean())
    return hits, aucs


def _title_overlap(folder: Path, asked: pl.DataFrame, users: pl.Series, offsets: Rows) -> Floats:
    """Return the cosine of each candidate's title with the titles of the user's history, as the baseline has it."""
    items = schema.read_table(folder / "run" / "data" / "items.parquet", schema.ITEMS)
    place = {item: row for row, item in enumerate(items["item_id"].to_pylist())}
    log = pl.read_parquet(folder / "run" / "data" / "interactions.parquet", glob=False)
    known = dict(log.group_by("user_id").agg("item_id").iter_rows())
    histories = [[place[item] for item in known[user]] for user in users]
    ends = np.concatenate([[0], np.cumsum([len(one) for one in histories])])
    candidates = np.array([place[item] for item in asked["item_id"]])
    vectors = title_vectors(items["title"].to_pylist())
    return title_overlap(vectors, candidates, offsets, np.array([item for one in histories for item in one]), ends)


def _told(values: Floats) -> dict[str, float]:
    low, high = mean_interval(values, LEVEL)
    return {"mean": float(values.mean()), "low": low, "high": high}


def table(found: dict[str, Any]) -> str:
    """Return the numbers as a Markdown table."""
    hit = f"hr@{DEPTH}"
    lines = [f"{found['users']} users, {found['items']} items, weights unchanged: {found['weights_unchanged']}", "",
             f"| | HR@{DEPTH} | GAUC | model minus this, HR@{DEPTH} |", "|---|---|---|---|"]  # fmt: skip
    for name, one in found["scorers"].items():
        gap = one.get(f"model_minus_this_{hit}")
        cells = [_cell(one[hit]), _cell(one["gauc"]), _cell(gap) if gap else ""]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(one: dict[str, float]) -> str:
    return f"{one['mean']:.3f} ({one['low']:.3f} to {one['high']:.3f})"


if __name__ == "__main__":
    main()
