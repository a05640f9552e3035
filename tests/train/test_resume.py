"""A training that is killed goes on from its last whole checkpoint, and ends as if nothing had happened."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from msr_adapter.config.schema import TrainConfig
from msr_adapter.errors import UserError
from msr_adapter.llamafactory.checkpoints import checkpoints, settle, strip, whole
from msr_adapter.llamafactory.launcher import Trained
from msr_adapter.llamafactory.model_weights import BASE
from msr_adapter.llamafactory.training_yaml import training_config
from msr_adapter.stage_arguments import Job
from msr_adapter.train import train
from msr_adapter.train.training import content_stamps
from msr_adapter.train.working_dir import WorkingDir, working_dir
from tests.support.checkpoint_folders import write_checkpoint, write_log
from tests.support.paths import ROOT
from tests.support.tiny_run import QUIET, stages, train_config

TRAINING = {"max_steps": 24, "checkpoint_steps": 4, "learning_rate": 1e-3, "lora": {"rank": 4, "dropout": 0.1}}
CHILD = """\
import json, sys
from pathlib import Path
from tests.support.tiny_run import QUIET
from msr_adapter.config.schema import TrainConfig
from msr_adapter.train import train
from msr_adapter.stage_arguments import Job
from tests.support.tiny_run import stages_in
config, folder, out, unfinished = sys.argv[1:]
out = Path(out)
out.mkdir()
train(TrainConfig.model_validate_json(config), stages_in(Path(folder)), Job(out, QUIET), Path(unfinished))
"""


def run(config: TrainConfig, out: Path, unfinished: Path) -> dict[str, Any]:
    made = stages()
    out.mkdir()
    return train(config, made, Job(out, QUIET), unfinished)


def killed(config: TrainConfig, folder: Path, unfinished: Path, after: int) -> int:
    """Train in a process of its own and ``kill -9`` it once the checkpoint of step ``after`` is whole.

    Returns the step of its last whole checkpoint.
    """
    made = stages()
    arguments = [config.model_dump_json(), *map(str, (made.data.parent, folder / "killed", unfinished))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", CHILD, *arguments], env=environment) as process:
        while True:
            assert process.poll() is None, "it ended before it could be killed"
            found = [step for path in unfinished.glob("*/model") for step in whole(path)]
            if found and max(found) >= after:
                break
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    (work,) = unfinished.iterdir()
    deadline = time.monotonic() + 20
    while any(f"{work}" in line for line in _command_lines()):  # the trainer dies with its parent
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return max(whole(work / "model"))


def _command_lines() -> list[str]:
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return lines


def log_lines(out: Path) -> list[dict[str, Any]]:
    timed = {"elapsed_time", "remaining_time", "throughput"}
    rows = [json.loads(line) for line in (out / "model" / "trainer_log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in timed} for row in rows]


@pytest.mark.slow  # `test_resume.py` kills a whole run by default
@pytest.mark.parametrize(("method", "batches"), [("lora", "random"), ("full", "random"), ("full", "similar-length")])
def test_a_killed_training_ends_as_an_undisturbed_one(tmp_path: Path, method: str, batches: str) -> None:
    config = train_config(method=method, batches=batches, **TRAINING)
    unfinished = tmp_path / "unfinished"
    undisturbed = run(config, tmp_path / "whole", tmp_path / "other")
    step = killed(config, tmp_path, unfinished, 8)
    assert 8 <= step < 24
    again = run(config, tmp_path / "again", unfinished)
    differ = {"pruned_bytes": 0, "measured": None}
    assert again | differ == undisturbed | differ
    assert 8 <= again["measured"]["from_step"] < 24
    assert again["measured"]["rows_per_second"] > 0
    assert again["steps"] == 24
    assert log_lines(tmp_path / "again") == log_lines(tmp_path / "whole")
    name = "adapter_model.safetensors" if method == "lora" else "model.safetensors"
    first, second = ((tmp_path / run / "model" / name).read_bytes() for run in ("whole", "again"))
    assert first == second  # float32 on a CPU: bit for bit


def logged(output_dir: Path) -> list[int]:
    return [json.loads(line)["current_steps"] for line in (output_dir / "trainer_log.jsonl").read_text().splitlines()]


def cut(path: Path) -> None:
    """Leave the first half of a file, as a kill in the middle of writing does."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_training_goes_on_from_the_last_checkpoint_and_the_log_ends_there(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 4), write_checkpoint(tmp_path, 8)
    write_log(tmp_path, 2, 4, 6, 8, 10, tail='{"current_steps": 12, "lo')
    (tmp_path / "adapter_model.safetensors").write_bytes(b"a final save that was interrupted")
    (tmp_path / "trainer_state.json").write_text("{}")
    assert settle(tmp_path, 1) == 8
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-4", "checkpoint-8", "trainer_log.jsonl"]
    assert logged(tmp_path) == [2, 4, 6, 8]


def test_lines_that_the_kill_kept_from_the_log_are_made_from_the_checkpoint(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 8)
    write_log(tmp_path, 2, 4, 6)
    settle(tmp_path, 1)
    *told, made = (json.loads(line) for line in (tmp_path / "trainer_log.jsonl").read_text().splitlines())
    assert [row["elapsed_time"] for row in told] == ["0:00:09"] * 3
    assert made == {"current_steps": 8, "total_steps": 12, "loss": 1 / 8, "lr": 0.1, "epoch": 0.8, "percentage": 66.67}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda c: cut(c / "adapter_model.safetensors"),
        lambda c: (c / "adapter_model.safetensors").write_bytes(b"\0" * 200),
        lambda c: (c / "adapter_model.safetensors").unlink(),
        lambda c: cut(c / "trainer_state.json"),
        lambda c: (c / "trainer_state.json").unlink(),
        lambda c: cut(c / "optimizer.pt"),
        lambda c: (c / "optimizer.pt").unlink(),
        lambda c: cut(c / "scheduler.pt"),
        lambda c: cut(c / "rng_state.pth"),
        lambda c: (c / "rng_state.pth").unlink(),
        lambda c: (c / "model.safetensors.index.json").write_text('{"weight_map": {"w": "model-2.safetensors"}}'),
        lambda c: (c / "model.safetensors.index.json").write_text('{"weight_map": {"w'),
    ],
)
def test_a_half_written_checkpoint_is_removed(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    write_checkpoint(tmp_path, 4)
    spoil(write_checkpoint(tmp_path, 8))
    write_log(tmp_path, 2, 4, 6, 8)
    assert settle(tmp_path, 1) == 4
    assert list(checkpoints(tmp_path)) == [4]
    assert logged(tmp_path) == [2, 4]


def test_without_a_whole_checkpoint_training_starts_anew(tmp_path: Path) -> None:
    cut(write_checkpoint(tmp_path, 4) / "trainer_state.json")
    write_log(tmp_path, 2, 4)
    assert settle(tmp_path, 1) == 0
    assert not list(tmp_path.iterdir())
    assert settle(tmp_path / "absent", 1) == 0


def test_training_never_goes_on_from_the_last_step(tmp_path: Path) -> None:
    """The trainer would take one more step there."""
    write_checkpoint(tmp_path, 8), write_checkpoint(tmp_path, 12)
    assert settle(tmp_path, 1) == 8


def test_every_process_needs_its_random_state(tmp_path: Path) -> None:
    for step, ranks in ((4, (0, 1)), (8, (0,))):
        folder = write_checkpoint(tmp_path, step)
        for rank in ranks:
            shutil.copy(folder / "rng_state.pth", folder / f"rng_state_{rank}.pth")
        (folder / "rng_state.pth").unlink()
    assert settle(tmp_path, 2) == 4


def test_stripping_keeps_the_weights_and_frees_the_rest(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, 4)
    freed = sum((folder / name).stat().st_size for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"))
    assert strip(folder) == freed
    assert {path.name for path in folder.iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors", "trainer_state.json",
    }  # fmt: skip
    assert list(whole(tmp_path)) == [4]
    assert settle(tmp_path, 1) == 0


def test_only_the_very_same_training_meets_its_checkpoints(tmp_path: Path) -> None:
    made = stages()

    def folder(processes: int = 1, data: Path = made.data, dataset: Path = made.dataset, **settings: Any) -> str:
        config = train_config(**settings)
        yaml = training_config(config, data, dataset, tmp_path, 0)
        return working_dir(
            tmp_path, yaml, processes, content_stamps(config, replace(made, data=data, dataset=dataset), BASE)
        ).folder.name

    moved = Path(shutil.copytree(made.data, tmp_path / "data")), Path(shutil.copytree(made.dataset, tmp_path / "rows"))
    assert folder() == folder(data=moved[0], dataset=moved[1])
    (moved[1] / "dataset_info.json").write_text((made.dataset / "dataset_info.json").read_text() + "\n")
    others = [
        folder(learning_rate=2e-2), folder(processes=2), folder(dataset=moved[1]), folder(max_steps=4),
        folder(model=train_config().model.model_copy(update={"image_max_pixels": 3136})),
        folder(overrides={"adam_beta2": 0.95}),
    ]  # fmt: skip
    assert len({folder(), *others}) == 7


def finished(folder: Path) -> tuple[WorkingDir, Trained]:
    """Return what a trainer leaves that ended after 12 steps."""
    work = WorkingDir(folder / "unfinished" / "abc")
    for step in (8, 12):
        write_checkpoint(work.model, step)
    for name in ("adapter_model.safetensors", "trainer_state.json"):
        shutil.copy(work.model / "checkpoint-12" / name, work.model)
    write_log(work.model, 2, 12)
    work.log.write_text("said")
    return work, Trained(12, 0.9, 0.4, 0.5, None, 12, {"seconds": 4.5})


def test_a_finished_trainer_is_not_started_again(tmp_path: Path) -> None:
    work, ended = finished(tmp_path)
    assert work.done() is None
    work.finish(ended)
    assert work.done() == ended
    for out in (tmp_path / "killed", tmp_path / "out"):  # the second attempt finds all that the first one did
        out.mkdir()
        chosen = work.candidates(12)[8 if out.name == "killed" else 12]
        assert work.hand_over(out, chosen) > 0
        assert sorted(path.name for path in out.iterdir()) == ["model", "train.log"]
        assert {path.name for path in (out / "model").iterdir()} >= {
            "adapter_model.safetensors", "trainer_state.json", "trainer_log.jsonl",
        }  # fmt: skip
        assert not list(out.rglob("checkpoint-*")) + list(out.rglob("optimizer*"))
        assert (out / "model" / "adapter_model.safetensors").samefile(chosen / "adapter_model.safetensors")
        assert work.done() == ended


@pytest.mark.parametrize(
    "spoil",
    [
        shutil.rmtree,
        lambda model: shutil.rmtree(model / "checkpoint-12") or (model / "adapter_model.safetensors").unlink(),
        lambda model: shutil.rmtree(model / "checkpoint-12") or cut(model / "adapter_model.safetensors"),
    ],
)
def test_a_finished_training_whose_weights_are_gone_is_not_done(
    tmp_path: Path, spoil: Callable[[Path], object]
) -> None:
    work, ended = finished(tmp_path)
    work.finish(ended)
    spoil(work.model)
    assert work.done() is None
    assert work.settle(1) in (0, 8)  # and training can go on


def test_killed_before_the_model_is_in_its_place_nothing_is_trained_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, unfinished = train_config(max_steps=1), tmp_path / "unfinished"
    first = run(config, tmp_path / "first", unfinished)
    shutil.rmtree(tmp_path / "first")  # what was handed over, as the next attempt does
    monkeypatch.setattr("msr_adapter.train.training.train_to_end", lambda *_: pytest.fail("trained again"))
    again = run(config, tmp_path / "again", unfinished)
    assert again == first
    assert (tmp_path / "again" / "model" / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "optimizer.pt", "trainer_state.json"])
def test_a_training_goes_on_from_no_checkpoint_that_was_changed(tmp_path: Path, name: str) -> None:
    work = WorkingDir(tmp_path / "key")
    for step in (2, 4):
        work.note(write_checkpoint(work.model, step))
    work.require_unaltered()
    assert work.settle(1) == 4
    path = work.model / "checkpoint-4" / name
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(UserError, match=f"checkpoint-4/{name}: changed by hand.* or remove .*key to train"):
        work.require_unaltered()
    shutil.rmtree(path.parent)
    work.require_unaltered()  # what is gone is no fault: training goes on from an older one
    assert work.settle(1) == 2
    write_checkpoint(work.model, 4, planned=20)  # made again, and not so to the byte
    work.require_unaltered()


def test_what_the_trainer_made_is_no_other_when_it_is_taken(tmp_path: Path) -> None:
    work = WorkingDir(tmp_path / "key")
    shutil.copytree(write_checkpoint(tmp_path, 12), work.model)
    work.finish(Trained(12, None, None, 0.5, None, 12))
    assert work.done()
    work.require_unaltered()
    (work.model / "adapter_model.safetensors").write_bytes(b"another")
    with pytest.raises(UserError, match="changed by hand"):
        work.require_unaltered()
