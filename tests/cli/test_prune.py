"""`msr prune`: what a run keeps of other settings, listed, and deleted when asked."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from msr_adapter.cli import app
from msr_adapter.pipeline.run_folder import Manifest, RunFolder


def msr(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["prune", *arguments])


def publish(folder: RunFolder, stage: str, steps: int, finished: str) -> None:
    (folder.begin(stage) / "weights").write_text("x" * 1500)
    settings = {"train": {"max_steps": steps, "epochs": 1}, "name": f"run {steps}"}
    folder.publish(Manifest(stage, {"config": str(steps)}, str(steps), {}, 1.0, finished, settings=settings), keep=True)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A run with a training and scores in use, a training and scores kept, and a variant with a training kept."""
    for place in (tmp_path, tmp_path / "ablations" / "direct"):
        folder = RunFolder(place)
        with folder.locked():
            publish(folder, "train", 20, "2020-01-02T03:04:05+0000")
            publish(folder, "train", 100, "2030-01-02T03:04:05+0000")
            if place == tmp_path:
                publish(folder, "score", 20, "2030-01-02T03:04:06+0000")
                publish(folder, "score", 100, "2030-01-02T03:04:07+0000")
            (place / "pipeline.json").write_text('{"train": {"max_steps": 100, "epochs": 1}, "name": "now"}')
    (tmp_path / ".train.unfinished" / "key").mkdir(parents=True)
    return tmp_path


def listed(root: Path, *options: str) -> dict[str, list[str]]:
    done = msr(str(root), *options, "--json")
    assert done.exit_code == 0, done.output
    return {one["folder"]: [one["stage"], one["differs"]] for one in json.loads(done.stdout)["kept"]}


def test_what_is_kept_is_listed_with_stage_age_size_and_what_differs(root: Path) -> None:
    done = msr(str(root))
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[1:-1]] == ["train", "score", "train"]
    assert all("train.max_steps: 20, now 100" in line and "kB" in line for line in lines[1:-1])
    assert "2020-01-02" in lines[1]
    assert "days old" in lines[1]
    assert lines[-1].endswith("add --yes to delete them")
    assert len(listed(root)) == 3  # nothing was deleted


def test_yes_deletes_what_would_be_listed_and_nothing_in_use(root: Path) -> None:
    chosen = listed(root, "--stage", "train", "--older-than", "30")
    assert {stage for stage, _ in chosen.values()} == {"train"}
    assert len(chosen) == 2
    assert listed(root, "--stage", "train", "--older-than", "30", "--yes") == chosen
    assert [stage for stage, _ in listed(root).values()] == ["score"]
    assert (root / "train" / "weights").exists()
    assert (root / ".train.unfinished" / "key").exists()
    assert len(listed(root, "--unfinished")) == 2
    msr(str(root), "--unfinished", "--yes")
    assert not (root / ".train.unfinished" / "key").exists()
    assert "nothing like that is kept" in msr(str(root)).stdout


def test_a_stage_that_is_never_kept_and_a_run_at_work_are_refused(root: Path) -> None:
    done = msr(str(root), "--stage", "dataset")
    assert (done.exit_code, "expected one of mine, items, users, train" in done.stderr) == (2, True)
    with RunFolder(root).locked():
        assert msr(str(root)).exit_code == 0
        done = msr(str(root), "--yes")
    assert (done.exit_code, "in use by process" in done.stderr) == (2, True)
    assert len(listed(root)) == 3
