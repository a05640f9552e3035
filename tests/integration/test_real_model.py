"""A pretrained model from its package to the report: real titles, summaries, five steps of training, scores."""

import json
from pathlib import Path

import polars as pl
import pytest

from tests.support.end_to_end import msr
from tests.support.paths import shared_data
from tests.support.real_model import needs_smollm2, smollm2

LOG = shared_data("microlens-50k")
SMALLER = (
    "data.limit.users=40", "data.k_core={users: 7, items: 5}", "split.fractions=[0.6, 0.1, 0.3]",
    "summarize.users.max_new_tokens=32", "train.max_steps=5", "train.batch_size=2", "train.checkpoints=0",
    "evaluate.baselines=[popularity, title-overlap, base]", "evaluate.hybrid=null",
)  # fmt: skip


@pytest.mark.slow
@needs_smollm2
@pytest.mark.skipif(not LOG.is_dir(), reason=f"needs {LOG}")
def test_forty_users_from_their_titles_to_the_report(tmp_path: Path) -> None:
    roles = ("summarize.items.model.path", "summarize.users.model.path", "train.model.path")
    sets = [*SMALLER, *(f"{role}={smollm2()}" for role in roles)]
    sets += [
        f"data.source.{name}={LOG / f'MicroLens-50k_{name}{end}'}"
        for name, end in (("pairs", ".tsv"), ("titles", ".csv"))
    ]
    chosen = [word for each in sets for word in ("--set", each)]
    done = msr("run", "microlens-50k-smollm2-recurrent", "--run-dir", "run", *chosen, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "run"
    pipeline = json.loads((run / "pipeline.json").read_text())
    assert pipeline["train"]["model"]["template"] == "smollm2"
    metrics = json.loads((run / "evaluate" / "metrics.json").read_text())
    assert {"trained", "base", "popularity", "title-overlap"} <= set(metrics["models"])
    faults = json.loads((run / "users" / "manifest.json").read_text())["summary"]["faults"]
    assert set(faults) == {"repeats", "cut", "forgets"}
    assert "repeat their prompt" in (run / "run.log").read_text()
    assert "Repeat the prompt" in (run / "evaluate" / "report.html").read_text()
    scores = pl.read_parquet(run / "score" / "scores.parquet")
    assert scores["ratio"].is_finite().all()
    assert scores["ratio"].n_unique() > len(scores) // 2
    summaries = pl.read_parquet(run / "users" / "users.parquet")["summary"]
    assert summaries.n_unique() > len(summaries) // 2
