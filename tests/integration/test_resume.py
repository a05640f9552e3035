"""Killed in every stage, then completed: the same numbers as an undisturbed run."""

import json
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from msr_adapter.llamafactory.checkpoints import whole
from tests.support.end_to_end import RAN, command, environment, interrupt_in, msr_json, write_small_pipeline

SETS = ("--set", "data.source.users=30", "--set", "data.source.items=40", "--set", "train.max_steps=40",
        "--set", "train.checkpoint_steps=4")  # fmt: skip


def results(run_dir: Path) -> tuple[object, ...]:
    """Return what a run found out: its metrics, both models' scores, and how the training went, but for its times."""
    scores = [
        pq.read_table(run_dir / stage / "scores.parquet")["logit"].to_pylist() for stage in ("score", "score-base")
    ]
    lines = [json.loads(line) for line in (run_dir / "train" / "model" / "trainer_log.jsonl").read_text().splitlines()]
    log = [(line["current_steps"], line.get("loss"), line.get("lr")) for line in lines]
    log.append(json.loads((run_dir / "train" / "selection.json").read_text()))
    return json.loads((run_dir / "evaluate" / "metrics.json").read_text())["models"], scores[0], scores[1], log


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_pipeline(tmp_path_factory.mktemp("resume"))


@pytest.fixture(scope="module")
def undisturbed(pipeline: Path) -> Path:
    run_dir = pipeline.parent / "undisturbed"
    msr_json("run", pipeline, *SETS, "--run-dir", run_dir)
    return run_dir


def checkpoint(run_dir: Path) -> int:
    """Return the step of the last whole checkpoint of a training under way; 0 = none."""
    found = [step for model in run_dir.glob(".train.unfinished/*/model") for step in whole(model)]
    return max(found, default=0)


def trainers(run_dir: Path) -> list[int]:
    """Return the processes whose command line names ``run_dir``."""
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if any(str(run_dir) in part for part in process.info["cmdline"] or [])
    ]


def test_killed_in_every_stage_then_completed_equals_undisturbed(pipeline: Path, undisturbed: Path) -> None:
    run_dir = pipeline.parent / "killed"
    for stage in RAN:
        ready = (lambda: checkpoint(run_dir) >= 8) if stage == "train" else lambda: True
        code, _ = interrupt_in(stage, signal.SIGKILL, "run", pipeline, *SETS, "--run-dir", run_dir, when=ready)
        assert code == -signal.SIGKILL
        if stage == "train":
            assert 8 <= (reached := checkpoint(run_dir)) < 40
        assert not (run_dir / stage / "manifest.json").exists()
    deadline = time.monotonic() + 20
    while trainers(run_dir) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not trainers(run_dir)
    msr_json("run", pipeline, *SETS, "--run-dir", run_dir)
    assert f"goes on from the checkpoint of step {reached}\n" in (run_dir / "run.log").read_text()
    assert results(run_dir) == results(undisturbed)
    assert not (run_dir / ".train.unfinished").exists()
    assert not list(run_dir.glob(".*.partial"))


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_in_training_says_what_is_kept_and_leaves_no_trainer(
    number: signal.Signals, expected: int, pipeline: Path, undisturbed: Path
) -> None:
    code, said = interrupt_in("train", number, "run", pipeline, *SETS, "--run-dir", undisturbed, "--force", "train")
    assert code == expected
    assert "Traceback" not in said
    assert "The same command continues from there." in said
    assert not trainers(undisturbed / ".train.unfinished")
    assert (undisturbed / "train" / "manifest.json").exists()


def test_two_processes_on_one_run_folder(pipeline: Path, tmp_path: Path) -> None:
    arguments = ["run", pipeline, *SETS, "--run-dir", tmp_path / "run"]
    with subprocess.Popen(
        command(*arguments), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment()
    ) as first:
        assert first.stderr is not None
        while "running" not in first.stderr.readline():
            pass
        second = subprocess.run(
            command(*arguments), capture_output=True, text=True, env=environment(), timeout=60, check=False
        )
        first.kill()
    assert second.returncode == 2
    assert f"in use by process {first.pid}" in second.stderr
