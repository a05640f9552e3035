"""What costly stages made is kept, found again, never made again unasked, and whole wherever a kill comes."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from msr_adapter.cli import app
from msr_adapter.config.loader import LoadedPipeline, load_pipeline
from msr_adapter.config.schema import ModelConfig
from msr_adapter.errors import UserError
from msr_adapter.llamafactory.model_weights import Weights
from msr_adapter.pipeline import plan, run
from msr_adapter.pipeline.kept import kept_stages, prunable, prune
from msr_adapter.pipeline.planning import Retrain
from msr_adapter.pipeline.run_folder import WORKING_DIR, Manifest, RunFolder
from msr_adapter.pipeline.stage_context import Context
from msr_adapter.pipeline.stages import COSTLY, STAGE_NAMES, STAGES
from tests.support.scripted_pipeline import SCRIPTED
from tests.support.summaries import Lines

STAGES_TO_TRAIN = ("data", "lengths", "items", "users", "dataset", "train")


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """The `train.max_steps` of every training that was done; their "weights" say it."""
    done: list[int | None] = []

    def pretend(c: Context) -> dict[str, object]:
        done.append(c.pipeline.train.max_steps)
        (c.out / "model").mkdir()
        (c.out / "model" / "model.safetensors").write_text(f"{c.pipeline.train.max_steps} {len(done)}")
        return {}

    stages = tuple(replace(stage, run=pretend) if stage.name == "train" else stage for stage in STAGES)
    monkeypatch.setattr("msr_adapter.pipeline.planning.STAGES", stages)
    return done


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run as far as its training rows."""
    folder = tmp_path_factory.mktemp("kept")
    (folder / "scripted.yaml").write_text(SCRIPTED)
    run(load_pipeline(str(folder / "scripted.yaml"), (), folder / "run"), ("dataset",), reporter=Lines())
    return folder


@pytest.fixture
def folder(prepared: Path, tmp_path: Path) -> Path:
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    return tmp_path


def load(folder: Path, *sets: str) -> LoadedPipeline:
    return load_pipeline(str(folder / "scripted.yaml"), sets, folder / "run")


def trained(folder: Path, *sets: str, force: tuple[str, ...] = (), retrain: Retrain = "make") -> list[str]:
    """Bring the training up to date; return what was said of it."""
    lines = Lines()
    run(load(folder, *sets), ("train",), force=force, reporter=lines, retrain=retrain)
    return [line for line in lines.text.splitlines() if line.startswith("train ")]


def weights(folder: Path) -> str:
    return (folder / "run" / "train" / "model" / "model.safetensors").read_text()


def kept(folder: Path, stage: str = "train") -> list[str]:
    return sorted(path.read_text() for path in (folder / "run" / "kept" / stage).glob("*/model/model.safetensors"))


def test_an_older_training_is_found_again_when_its_settings_return(folder: Path, trainings: list[int | None]) -> None:
    trained(folder)
    said = trained(folder, "train.max_steps=20")
    assert "the one before is kept in kept/train/" in said[-1]
    assert (weights(folder), kept(folder)) == ("20 2", ["None 1"])
    assert plan(load(folder))["train"].startswith("found again, as made on 2")
    (said_again,) = trained(folder)
    assert said_again.startswith("train       found again, as made on 2")
    assert (weights(folder), kept(folder)) == ("None 1", ["20 2"])
    trained(folder, "train.max_steps=20")
    assert (weights(folder), kept(folder)) == ("20 2", ["None 1"])
    assert trainings == [None, 20]


def test_a_forced_training_keeps_the_one_before(folder: Path, trainings: list[int | None]) -> None:
    trained(folder)
    trained(folder, force=("train",))
    assert (weights(folder), kept(folder)) == ("None 2", ["None 1"])
    trained(folder, force=("train",))
    assert (weights(folder), kept(folder)) == ("None 3", ["None 1", "None 2"])
    assert trained(folder) == ["train       up to date"]


def test_summaries_and_scores_are_found_again_and_equal_ones_are_not_kept_twice(folder: Path) -> None:
    run(load(folder), ("users",), force=("users",), reporter=Lines())
    assert kept_stages(RunFolder(folder / "run"), "users") == []
    run(load(folder, "summarize.users.block=2"), ("users",), reporter=Lines())
    lines = Lines()
    run(load(folder), ("users",), reporter=lines)
    assert any(line.startswith("users       found again") for line in lines.text.splitlines())
    scores = {"score", "score-base", "score-validation", "rerank", "rerank-base"}
    assert set(COSTLY) == {"mine", "items", "users", "train", "baselines", *scores}


def test_what_is_damaged_among_the_kept_is_never_found(folder: Path, trainings: list[int | None]) -> None:
    trained(folder)
    trained(folder, "train.max_steps=20")
    (one,) = (folder / "run" / "kept" / "train").iterdir()
    (one / "model" / "model.safetensors").write_text("damaged")
    trained(folder)
    assert weights(folder) == "None 3"


def test_a_variant_takes_over_a_training_and_keeps_its_own(folder: Path, trainings: list[int | None]) -> None:
    trained(folder)
    shutil.copytree(folder / "run", folder / "other")
    trained(folder, "train.max_steps=20")
    other = load_pipeline(str(folder / "scripted.yaml"), ("train.max_steps=20",), folder / "other")
    lines = Lines()
    run(other, ("train",), reporter=lines, donors=[folder / "run"])
    assert "train       up to date, as in" in lines.text
    shutil.rmtree(folder / "run" / "kept")
    trained_again = Lines()
    run(load_pipeline(str(folder / "scripted.yaml"), (), folder / "other"), ("train",), reporter=trained_again)
    assert "train       found again" in trained_again.text
    assert trainings == [None, 20]


# Never made again unasked.


def test_a_training_that_exists_is_refused_where_it_is_not_asked_for(folder: Path, trainings: list[int | None]) -> None:
    trained(folder, retrain="refuse")  # nothing is trained yet: it begins
    trained(folder, retrain="refuse")
    before = (folder / "run" / "pipeline.json").read_bytes()
    with pytest.raises(UserError, match=r"out of date \(train.max_steps: unset, now 20; trained on 2.* `msr train .*y"):
        trained(folder, "train.max_steps=20", retrain="refuse")
    assert (folder / "run" / "pipeline.json").read_bytes() == before
    with pytest.raises(UserError, match=r"out of date \(data.source.users: 12, now 14; .*--train does so here"):
        trained(folder, "data.source.users=14", retrain="refuse")
    assert trainings == [None]
    assert trained(folder, retrain="refuse") == ["train       up to date"]
    trained(folder, "train.max_steps=20", retrain="refuse", force=("train",))
    assert trained(folder, retrain="refuse")[0].startswith("train       found again")
    assert trainings == [None, 20]


def test_a_training_whose_files_changed_is_refused_too(folder: Path, trainings: list[int | None]) -> None:
    trained(folder)
    (folder / "run" / "train" / "model" / "model.safetensors").write_text("changed")
    with pytest.raises(UserError):
        trained(folder, retrain="refuse")
    assert trainings == [None]


def test_an_export_makes_a_training_again_only_where_it_is_asked_to(
    folder: Path, trainings: list[int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    exported: list[str] = []

    def write(model: ModelConfig, weights: Weights, out: Path, dtype: str) -> int:
        exported.append((weights.adapters or [weights.full])[-1].joinpath("model.safetensors").read_text())
        return 7

    monkeypatch.setattr("msr_adapter.llamafactory.merged_model.write_merged_model", write)
    monkeypatch.setattr("msr_adapter.workflows.export.compare_scores", lambda *_: (0, None))
    monkeypatch.setattr("msr_adapter.workflows.export.describe", lambda *_: None)

    def msr_export(out: str, *arguments: str) -> Result:
        command = [
            "export",
            str(folder / "scripted.yaml"),
            "--run-dir",
            str(folder / "run"),
            "--out",
            str(folder / out),
        ]
        return CliRunner().invoke(app, [*command, "--quiet", *arguments])

    changed = ("--set", "train.max_steps=20")
    first = msr_export("first")  # nothing is trained yet: it begins
    assert first.exit_code == 0, first.output
    refused = msr_export("second", *changed)
    assert refused.exit_code == 2
    assert "train.max_steps: unset, now 20" in refused.stderr
    assert "--train does so here" in refused.stderr
    assert not (folder / "second").exists()
    assert trainings == [None]
    done = msr_export("second", *changed, "--train")
    assert done.exit_code == 0, done.output
    assert msr_export("third", *changed, "--train").exit_code == 0  # up to date: `--train` trains nothing
    assert msr_export("fourth", "--train").exit_code == 0  # the first training is kept, and found again
    assert trainings == [None, 20]
    assert exported == ["None 1", "20 2", "20 2", "None 1"]


# Killed around every rename.

KILL = """
import os, pathlib, signal, sys
from msr_adapter.pipeline.run_folder import Manifest, RunFolder
what, at, root = sys.argv[1], int(sys.argv[2]), pathlib.Path(sys.argv[3])
rename, left = os.rename, [at]

def killing(*arguments, **named):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    rename(*arguments, **named)
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)

os.rename = os.replace = killing
folder = RunFolder(root)
if what == "publish":
    out = folder.begin("train")
    (out / "weights").write_text("new")
    manifest = Manifest("train", {"config": "new"}, "new", {}, 1.0, "2030-01-02T00:00:00+0000")
    folder.publish(manifest, keep=True)
else:
    folder.take_back("train", next(folder.kept("train").iterdir()), keep=True)
"""


def making(name: str) -> Manifest:
    return Manifest("train", {"config": name}, name, {}, 1.0, "2030-01-01T00:00:00+0000")


def publish(folder: RunFolder, name: str) -> None:
    (folder.begin("train") / "weights").write_text(name)
    folder.publish(making(name), keep=True)


def all_weights(root: Path) -> Iterator[str]:
    for path in (root / "train", *(root / "kept" / "train").iterdir()):
        assert (path / "manifest.json").is_file()
        yield (path / "weights").read_text()


@pytest.mark.parametrize("what", ["publish", "take back"])
def test_a_kill_around_any_rename_leaves_both_trainings_whole(tmp_path: Path, what: str) -> None:
    for at in range(1, 20):
        root = tmp_path / str(at)
        folder = RunFolder(root)
        publish(folder, "old")
        if what == "take back":
            publish(folder, "new")
        done = subprocess.run([sys.executable, "-c", KILL, what, str(at), str(root)], check=False, timeout=60,
                              capture_output=True)  # fmt: skip
        folder.sweep(STAGE_NAMES, COSTLY)
        assert [path.name for path in root.iterdir() if path.name.startswith(".")] == []
        if done.returncode == 0:
            assert at > 4, "it was never killed"
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        found = sorted(all_weights(root)) if (root / "kept" / "train").exists() else ["old"]
        # Before its manifest is in place, the new one is not made yet: its unfinished work makes it again.
        assert found == (["old"] if what == "publish" and at == 1 else ["new", "old"]), at
    else:
        pytest.fail("more renames than expected")


def test_only_the_unfinished_work_that_became_the_model_goes(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for name in ("this", "that"):
        (folder.unfinished("train") / name).mkdir(parents=True)
    folder.begin("train")
    folder.publish(replace(making("old"), summary={WORKING_DIR: "this"}))
    assert os.listdir(folder.unfinished("train")) == ["that"]  # noqa: PTH208
    folder.begin("train")
    folder.publish(replace(making("new"), summary={WORKING_DIR: "that"}), keep=True)
    assert not folder.unfinished("train").exists()


# What `msr prune` lists and deletes.


def test_what_is_kept_is_listed_and_deleted_and_nothing_else(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for name in ("one", "two", "three"):
        publish(folder, name)
    (folder.kept("train") / "notes").mkdir()
    (folder.kept("train") / "notes" / "mine.txt").write_text("mine")
    (folder.unfinished("train") / "key").mkdir(parents=True)
    found = prunable(tmp_path, unfinished=False)
    assert sorted((one.folder / "weights").read_text() for one in found) == ["one", "two"]
    assert len(prunable(tmp_path, unfinished=True)) == 3
    for one in found:
        prune(one)
    assert prunable(tmp_path, unfinished=False) == []
    assert (folder.kept("train") / "notes" / "mine.txt").exists()
    assert (folder.stage("train") / "weights").read_text() == "three"


def test_what_a_killed_deletion_left_is_swept(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    publish(folder, "one")
    publish(folder, "two")
    (one,) = kept_stages(folder, "train")
    one.folder.rename(one.folder.with_name(f".{one.folder.name}.pruned"))
    (folder.unfinished("train") / ".key.pruned").mkdir(parents=True)
    folder.sweep(STAGE_NAMES, COSTLY)
    assert list(folder.unfinished("train").iterdir()) == []
    assert list(folder.kept("train").iterdir()) == []


def test_a_link_in_the_place_of_what_is_kept_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "kept").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="was not made by msr"):
        RunFolder(tmp_path / "run").begin("train")
