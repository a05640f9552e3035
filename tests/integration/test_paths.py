"""A project whose every name is a pattern, an address or a comment to some library, run to its end from each format."""

import json
import random
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from tests.support.end_to_end import msr, msr_json

PIPELINE = """\
name: {kind}
data:
  source: {{kind: table, interactions: "{log}", items: "{items}"}}
  images: {{folder: "images [v1] 50% #2"}}
split: {{kind: leave-last-out, max_history: 3}}
summarize:
  items: {{model: &model {{path: tiny, default_system: "", batch_size: 64}}, max_new_tokens: 8}}
  users: {{model: *model, max_new_tokens: 8}}
train: {{model: *model, method: full, learning_rate: 1e-3, max_steps: 2, batch_size: 8, gradient_accumulation: 1,
        cutoff_len: 2048, checkpoint_steps: 1}}
evaluate: {{protocol: next-item, tables: {{items: "side [items] #.csv", users: "side [users] %.parquet"}}}}
"""
FILES = {
    "csv": ("log [1].csv", "items [1].csv"), "jsonl": ("log[1].jsonl", "items[1].jsonl"),
    "parquet": ("parts [1]", "items [1].parquet"),
}  # fmt: skip


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the project folder, with files beside each that its name would match as a pattern."""
    folder = tmp_path_factory.mktemp("project") / "shop [2024] 100% #1 {x} *"
    (folder / "parts [1]").mkdir(parents=True)
    (folder / "images [v1] 50% #2").mkdir()
    draw, pixels = random.Random(1), np.random.default_rng(1)
    items = [f"i{number:03}" for number in range(30)]
    rows = [(f"u{u:02}", i, 1_600_000_000 + t * 3600) for u in range(30) for t, i in enumerate(draw.sample(items, 6))]
    log = pl.DataFrame(rows, schema=["user", "item", "timestamp"], orient="row")
    table = pl.DataFrame({"item": items, "title": [f"Title of {item}" for item in items]})
    log.write_csv(folder / "log [1].csv")
    log.write_ndjson(folder / "log[1].jsonl")
    for part in range(3):
        log[part * 60 : (part + 1) * 60].write_parquet(folder / "parts [1]" / f"p[{part}] #.parquet")
    table.write_csv(folder / "items [1].csv")
    table.write_ndjson(folder / "items[1].jsonl")
    table.write_parquet(folder / "items [1].parquet")
    log.head(30).write_ndjson(folder / "log1.jsonl")
    table.head(3).write_ndjson(folder / "items1.jsonl")
    pl.DataFrame({"item": items, "price [x]": range(30)}).write_csv(folder / "side [items] #.csv")
    users = pl.DataFrame({"user": [f"u{u:02}" for u in range(30)], "age": range(30)})
    users.write_parquet(folder / "side [users] %.parquet")
    for item in items:
        picture = Image.fromarray(pixels.integers(0, 255, (56, 56, 3), dtype=np.uint8))
        picture.save(folder / "images [v1] 50% #2" / f"{item}.png")
    for kind, (log_name, items_name) in FILES.items():
        text = PIPELINE.format(kind=kind, log=log_name, items=items_name)
        (folder / f"pipe [{kind}] #.yaml").write_text(text)
    return folder


@pytest.mark.slow
def test_all_formats_give_the_same_metrics_in_folders_of_any_name(shop: Path) -> None:
    found = []
    for kind in FILES:
        pipeline, run = f"pipe [{kind}] #.yaml", f"run [v2] {kind}"
        msr_json("check", pipeline, "--run-dir", run, cwd=shop)
        states = {stage["state"] for stage in msr_json("run", pipeline, "--run-dir", run, cwd=shop)["stages"]}
        assert states == {"done"}
        counts = json.loads((shop / run / "data" / "audit.json").read_text())["counts"]
        assert (counts["interactions_read"], counts["items_read"], counts["images_copied"]) == (180, 30, 30)
        metrics = json.loads((shop / run / "evaluate" / "metrics.json").read_text())
        found.append(metrics["models"]["trained"]["metrics"])
    assert found[0] == found[1] == found[2]
    again = msr_json("run", "pipe [csv] #.yaml", "--run-dir", "run [v2] csv", cwd=shop)
    assert {stage["state"] for stage in again["stages"]} == {"up to date"}
    shown = msr("compare", "run [v2] csv", "run [v2] jsonl", cwd=shop).stdout
    assert "run [v2] jsonl" in shown
    (shop / "users [1].txt").write_text("u01\n")
    options = ("--run-dir", "run [v2] csv", "--users", "users [1].txt", "--out", "rec [1].parquet")
    assert msr("recommend", "pipe [csv] #.yaml", *options, cwd=shop).returncode == 0
    assert pl.read_parquet(shop / "rec [1].parquet", glob=False)["user_id"].unique().to_list() == ["u01"]
