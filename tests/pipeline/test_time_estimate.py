"""How long a run will take: by earlier runs where there are any, else by a rule that is called one."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from msr_adapter.cli import app
from msr_adapter.config.loader import LoadedPipeline, load_pipeline
from msr_adapter.config.schema import ModelConfig
from msr_adapter.pipeline import plan, run, time_estimate
from msr_adapter.pipeline.run_folder import Manifest, RunFolder
from msr_adapter.pipeline.stages import LABELS
from msr_adapter.pipeline.time_estimate import parameters, time_notes
from tests.support.summaries import Lines

PIPELINE = """\
name: p
data: {source: {kind: synthetic, users: 20, items: 40}}
split: {fractions: [0.5, 0.1, 0.4]}
summarize:
  items: {model: &m {path: tiny}, mode: none}
  users: {model: *m, mode: none}
train: {model: *m, epochs: 2}
evaluate: {protocol: next-item, baselines: [popularity]}
"""


@pytest.fixture(autouse=True)
def _two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time_estimate, "cpu_count", lambda: 2)
    monkeypatch.setattr(time_estimate, "_gpus", lambda: 0)


def load(folder: Path, *sets: str, name: str = "run") -> LoadedPipeline:
    (folder / "p.yaml").write_text(PIPELINE)
    return load_pipeline(str(folder / "p.yaml"), sets, folder / "runs" / name)


def told(loaded: LoadedPipeline) -> list[str]:
    return time_notes(loaded, plan(loaded), LABELS)


def finished(
    loaded: LoadedPipeline, stage: str, seconds: float, finished: str = "2030-01-01", **summary: object
) -> None:
    """Write what an earlier run left of a stage."""
    folder = RunFolder(loaded.run_dir)
    with folder.locked():
        (folder.begin(stage) / "x").write_text("")
        folder.publish(Manifest(stage, {}, "", summary, seconds, finished, settings=loaded.resolved))


def test_without_an_earlier_run_a_rule_is_told_as_one(tmp_path: Path) -> None:
    [note] = told(load(tmp_path))
    assert note.startswith("time: counted once the data is built (`msr build-data`): training ")
    assert "for 1,000" in note
    assert "by a rule of thumb for 1.1 million parameters on 2 CPU cores (docs/training.md)" in note


def test_work_is_counted_once_the_data_is_built(tmp_path: Path) -> None:
    loaded = load(tmp_path)
    run(loaded, ("lengths",), reporter=Lines())
    [note] = told(loaded)
    splits = json.loads((loaded.run_dir / "data" / "manifest.json").read_text())["summary"]["splits"]
    assert note.startswith("time: about ")
    assert f" for {2 * splits['train']['candidates']:,}, scores, trained " in note
    assert f" for {splits['test']['candidates']:,}; by a rule" in note


def test_a_measured_pace_goes_before_the_rule(tmp_path: Path) -> None:
    before = load(tmp_path, name="before")
    finished(before, "score", 50.0, computed=100, cached=7)
    finished(before, "train", 100.0, measured={"rows_per_second": 4.0})
    loaded = load(tmp_path)
    [note] = told(loaded)
    assert "training 4 min 10 s for 1,000, scores, trained 8 min 20 s for 1,000" in note
    assert note.endswith(f"as measured in {before.run_dir}")
    finished(load(tmp_path, name="later"), "score", 10.0, "2031-01-01", computed=100)
    assert "scores, trained 1 min 40 s" in told(loaded)[0]  # the latest counts
    finished(load(tmp_path, name="cached"), "score", 0.1, "2032-01-01", computed=0, cached=900)
    assert "scores, trained 1 min 40 s" in told(loaded)[0]  # one that asked nobody says nothing
    other = replace(loaded, pipeline=load(tmp_path, "train.model.path=No/Other-2B").pipeline)
    assert "measured" not in time_notes(other, plan(loaded), LABELS)[-1]  # nor does another model's


def test_what_is_up_to_date_takes_no_time(tmp_path: Path) -> None:
    assert time_notes(load(tmp_path), dict.fromkeys(plan(load(tmp_path)), "up to date"), LABELS) == []
    kept = dict.fromkeys(plan(load(tmp_path)), "found again, as made on Monday")
    assert time_notes(load(tmp_path), kept, LABELS) == []


def test_a_server_is_not_guessed(tmp_path: Path) -> None:
    server = "{path: big, backend: server, server: {url: 'http://127.0.0.1:9'}}"
    [note] = told(load(tmp_path, f"summarize.users.model={server}", "summarize.users.mode=recurrent"))
    assert "user summaries unknown (a server's pace is known from earlier runs alone)" in note


def test_two_billion_parameters_on_two_cores_are_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = ("train.model.path=Qwen/Qwen2-VL-2B-Instruct",)
    warning, note = told(load(tmp_path, *model))
    assert warning.startswith(
        "warning: train.model Qwen/Qwen2-VL-2B-Instruct has 2.0 billion parameters, and this machine has 2 CPU cores "
    )
    assert "2.0 billion parameters on 2 CPU cores" in note
    monkeypatch.setattr(time_estimate, "_gpus", lambda: 1)
    [note] = told(load(tmp_path, *model))
    assert "on 1 GPU" in note


@pytest.mark.parametrize(
    ("path", "size"),
    [
        ("Qwen/Qwen2-VL-2B-Instruct", 2e9), ("Qwen/Qwen2.5-VL-7B", 7e9), ("google/gemma-3-4b-it", 4e9),
        ("HuggingFaceTB/SmolVLM-256M", None), ("Org/Name", None), ("org/model-0.5b", 0.5e9), ("x/Mixtral-8x7B", None),
    ],
)  # fmt: skip
def test_names_tell_the_size(path: str, size: float | None) -> None:
    assert parameters(ModelConfig(path=path)) == size


def test_check_says_it(tmp_path: Path) -> None:
    load(tmp_path)
    shown = CliRunner().invoke(app, ["check", str(tmp_path / "p.yaml"), "--run-dir", str(tmp_path / "run"), "--json"])
    assert any(note.startswith("time: ") for note in json.loads(shown.stdout)["notes"])
