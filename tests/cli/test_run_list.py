"""`msr runs`, and names of runs where a command asks for one."""

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from msr_adapter.cli import app
from msr_adapter.cli.runs import run_folder
from msr_adapter.errors import UserError
from msr_adapter.pipeline.run_folder import Manifest, RunFolder

METRICS = {"primary": "ndcg@10", "users": 1200,
           "models": {"trained": {"metrics": {"ndcg@10": {"mean": 0.41, "low": 0.38, "high": 0.44}}}}}  # fmt: skip


def msr(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def make(name: str, *stages: str, changed: int = 0) -> RunFolder:
    folder = RunFolder(Path("runs") / name)
    with folder.locked():
        for stage in stages:
            (folder.begin(stage) / "table").write_text("x" * 1500)
            if stage == "evaluate":
                (folder.root / ".evaluate.partial" / "metrics.json").write_text(json.dumps(METRICS))
            folder.publish(Manifest(stage, {}, "", {}, 1.0, "2026-01-02T03:04:05+0000"), keep=True)
    for path in folder.root.rglob("*"):
        os.utime(path, (changed, changed))
    return folder


@pytest.fixture(autouse=True)
def _runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make("old", "data", "evaluate", changed=1_000_000_000)
    make("half", "items", "data", changed=1_100_000_000)
    make("new")
    Path("runs/other").mkdir()
    Path("runs/other/file").touch()


def test_runs_are_listed_with_state_size_and_metric_the_latest_first() -> None:
    listed = json.loads(msr("runs", "--json").stdout)["runs"]
    by_name = {run["name"]: run for run in listed}
    assert set(by_name) == {"old", "half", "new"}
    assert [run["changed"] for run in listed] == sorted((run["changed"] for run in listed), reverse=True)
    assert by_name["half"]["state"] == "stages done: data, items"
    assert by_name["half"]["metric"] is None
    assert by_name["new"]["state"] == "no stage done"
    old = by_name["old"]
    assert (old["state"], old["metric"], old["mean"], old["users"]) == ("finished", "ndcg@10", 0.41, 1200)
    assert 3000 < old["bytes"] < 10_000
    shown = " ".join(msr("runs").stdout.split())
    assert "0.410 [0.380, 0.440]" in shown
    assert "1,200" in shown


def test_a_run_that_is_at_work_is_shown_as_running() -> None:
    with RunFolder(Path("runs/half")).locked():
        assert {run["state"] for run in json.loads(msr("runs", "runs/half", "--json").stdout)["runs"]} == {"running"}
    assert "stages done" in msr("runs", "runs/half").stdout


def test_a_folder_without_runs_or_that_is_not_there() -> None:
    assert msr("runs", "runs/other").stdout == "no run in runs/other\n"
    done = msr("runs", "nowhere")
    assert (done.exit_code, "nowhere FOLDER" in done.stderr) == (2, True)


def test_a_name_of_a_run_stands_for_it() -> None:
    assert run_folder("half") == Path("runs/half").resolve()
    assert msr("prune", "half").stdout.endswith("nothing like that is kept\n")
    with pytest.raises(UserError, match="half"):
        run_folder("hlaf")
    with pytest.raises(UserError, match=r"runs here: [^;]*half"):
        run_folder("other")  # a folder in runs/ that is no run
