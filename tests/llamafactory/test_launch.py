"""The trainer as a subprocess: followed, stopped, explained. A script stands in for it where it would only be slow."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from msr_adapter.errors import StageError
from msr_adapter.filesystem import is_full
from msr_adapter.llamafactory import trainer_entrypoint
from msr_adapter.llamafactory.checkpoints import log_row
from msr_adapter.llamafactory.failures import KNOWN, explain
from msr_adapter.llamafactory.launcher import Trained, TrainerRun, child_environment, launch, verify
from msr_adapter.llamafactory.training_yaml import training_config, write_yaml
from msr_adapter.progress import Reporter
from msr_adapter.prompts import Prompts
from msr_adapter.stage_arguments import Job
from msr_adapter.train import build_dataset
from tests.support.tiny_run import QUIET, stages, train_config, write_upstream

ENTRYPOINT = trainer_entrypoint.__file__
ADAPTER = "adapter_model*.safetensors"


def write_finished(folder: Path, steps: int = 3, planned: int = 3, loss: float = 0.5) -> None:
    """Write what a finished LoRA training leaves."""
    folder.mkdir(exist_ok=True)
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    (folder / "train_results.json").write_text(json.dumps({"train_loss": loss}))
    history = [{"step": 1, "loss": 0.9}, {"step": 3, "loss": 0.3}, {"step": 3, "train_loss": loss}]
    state = {"global_step": steps, "max_steps": planned, "log_history": history}
    (folder / "trainer_state.json").write_text(json.dumps(state))


def without_losses(folder: Path) -> None:
    (folder / "train_results.json").write_text('{"train_runtime": 1.5}')
    (folder / "trainer_state.json").write_text('{"global_step": 3, "max_steps": 3}')


def stand_in(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> Path:
    """Let `launch` run ``script`` instead of LLaMA-Factory; return the YAML to launch."""
    path = folder / "stand_in.py"
    path.write_text(script)
    monkeypatch.setattr(trainer_entrypoint, "__file__", str(path))
    yaml = folder / "train.yaml"
    yaml.write_text("")
    (folder / "model").mkdir()
    return yaml


def run(yaml: Path, reporter: Reporter = QUIET) -> Trained:
    return launch(TrainerRun(yaml, yaml.parent / "model", ADAPTER, small=True), reporter)


def test_a_finished_training_is_believed(tmp_path: Path) -> None:
    write_finished(tmp_path / "model")
    (tmp_path / "model" / "eval_results.json").write_text('{"eval_loss": 0.6}')
    assert verify(tmp_path / "model", ADAPTER) == Trained(3, 0.9, 0.3, 0.5, 0.6, 3)


def test_a_mean_that_the_trainer_did_not_tell_is_that_of_its_steps(tmp_path: Path) -> None:
    write_finished(tmp_path / "model")
    (tmp_path / "model" / "train_results.json").write_text('{"train_runtime": 1.5}')
    assert verify(tmp_path / "model", ADAPTER) == Trained(3, 0.9, 0.3, 0.5, None, 3)  # (0.9 + 2 x 0.3) / 3


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda m: (m / "adapter_model.safetensors").unlink(), "adapter_model.*missing or empty"),
        (lambda m: (m / "adapter_model.safetensors").write_bytes(b""), "adapter_model.*missing or empty"),
        (lambda m: (m / "train_results.json").unlink(), "train_results.json is missing"),
        (lambda m: (m / "trainer_state.json").unlink(), "0 of 0 steps"),
        (lambda m: write_finished(m, steps=0), "0 of 3 steps"),
        (lambda m: write_finished(m, steps=2), "2 of 3 steps"),
        (lambda m: write_finished(m, loss=float("nan")), "mean loss is nan"),
        (lambda m: (m / "train_results.json").write_text('{"train_loss": null}'), "no loss was reported"),
        (lambda m: (m / "train_results.json").write_text('{"train_loss": "low"}'), "no loss was reported"),
        (lambda m: without_losses(m), "no loss was reported"),
    ],
)
def test_exit_code_zero_proves_nothing(tmp_path: Path, spoil: Any, said: str) -> None:
    write_finished(tmp_path / "model")
    spoil(tmp_path / "model")
    with pytest.raises(StageError, match=said):
        verify(tmp_path / "model", ADAPTER)
    with pytest.raises(StageError, match=r"model\*\.safetensors"):
        verify(tmp_path / "model", "model*.safetensors")


def test_steps_and_losses_are_shown_while_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [{"current_steps": n, "total_steps": 20, "loss": 1 / n} for n in range(1, 21)]
    yaml = stand_in(
        monkeypatch, tmp_path,
        "import json\nlog = open('model/trainer_log.jsonl', 'w')\n"
        f"for line in {lines}: print(json.dumps(line), file=log)\n",
    )  # fmt: skip
    write_finished(tmp_path / "model")
    log = tmp_path / "run.log"
    run(yaml, reporter=QUIET.with_log(log))
    said = log.read_text()
    assert "step 1/20  loss 1.0000" in said
    assert "step 20/20  loss 0.0500" in said
    assert said.count("  loss ") == 11
    assert "training: 20/20" in said


def test_a_killed_trainer_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    yaml = stand_in(monkeypatch, tmp_path, "import os\nprint('working', flush=True)\nos.kill(os.getpid(), 9)\n")
    with pytest.raises(StageError, match=r"ended by SIGKILL after 0 steps") as caught:
        run(yaml)
    assert "ran out of memory" in caught.value.cause
    assert "| working" in caught.value.what


def test_an_interrupt_ends_the_trainer_and_its_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    yaml = stand_in(
        monkeypatch, tmp_path,
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "open('pids.tmp', 'w').write(f'{os.getpid()} {child.pid}')\nos.rename('pids.tmp', 'pids')\ntime.sleep(600)\n",
    )  # fmt: skip
    pids = tmp_path / "pids"

    def interrupt() -> None:
        while not pids.exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        run(yaml)
    assert_gone(*map(int, pids.read_text().split()))


def test_the_trainer_dies_with_us_even_by_kill_9(tmp_path: Path) -> None:
    child = (
        f"import runpy, sys, time; runpy.run_path({ENTRYPOINT!r})['die_with'](int(sys.argv[1])); "
        "print('up', flush=True); time.sleep(600)"
    )
    parent = (
        "import os, subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}, str(os.getpid())], stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\nprint(child.pid, flush=True)\nchild.wait()\n"
    )
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.kill()
        process.wait()
    assert_gone(pid)


def assert_gone(*pids: int) -> None:
    deadline = time.monotonic() + 20
    for pid in pids:
        while Path(f"/proc/{pid}").exists() and "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text():
            assert time.monotonic() < deadline, f"process {pid} still runs"
            time.sleep(0.05)


def test_the_trainer_environment(tmp_path: Path) -> None:
    parent = {"PATH": "/bin", "USE_V1": "1", "IMAGE_PLACEHOLDER": "<pic>", "HF_HUB_OFFLINE": "1"}
    made = child_environment(parent, tmp_path, small=True)
    assert made["PATH"].split(os.pathsep) == [str(Path(sys.executable).parent), "/bin"]
    assert (made["HF_DATASETS_CACHE"], made["HF_HUB_OFFLINE"], made["OMP_NUM_THREADS"]) == (str(tmp_path), "1", "1")
    assert not {"USE_V1", "IMAGE_PLACEHOLDER"} & made.keys()
    assert child_environment({"OMP_NUM_THREADS": "6"}, tmp_path, small=True)["OMP_NUM_THREADS"] == "6"
    assert "OMP_NUM_THREADS" not in child_environment({}, tmp_path, small=False)


SEEN = {
    "ValueError: Image features and image tokens do not match, tokens: 0, features: 1536": "cut at cutoff_len",
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB": "memory of this device",
    "OSError: [Errno 28] No space left on device": "disk is full",
    "RuntimeError: Cannot find valid samples, check `data/README.md` for the data format.": "no row",
    "RuntimeError: Detected that PyTorch and TorchAudio were compiled with different CUDA versions.": "do not match",
    "ImportError: transformers>=4.55,<=5.6 is required for a normal functioning of this module": "version",
    "ValueError: Your setup doesn't support bf16/gpu. You need to assign use_cpu": "bfloat16",
    "FileNotFoundError: [Errno 2] No such file or directory: 'images/7.png'": "disappeared",
    "OSError: image file is truncated (3 bytes not processed)": "damaged",
    "ValueError: The number of images does not match the number of <image> tokens in": "literal placeholder",
    "ValueError: This model does not support image input.": "no image input",
    "ValueError: Target modules {'q'} not found in the base model.": "train.lora.target",
    "OSError: We couldn't connect to the hub to load this file": "cannot be found or downloaded",
    "UnidentifiedImageError: cannot identify image file 'x.jpg'": "damaged",
    "ValueError: Some keys are not used by the HfArgumentParser: ['zz']": "train.overrides",
    "KeyboardInterrupt": "interrupted",
    "something else entirely": "not a failure known to msr",
}


@pytest.mark.parametrize("line", SEEN)
def test_known_failures(tmp_path: Path, line: str) -> None:
    log = tmp_path / "train.log"
    log.write_text(f"Traceback\n 10%|#\r 20%|##\r{line}\n")
    error = explain(1, log, 4)
    assert SEEN[line] in error.cause
    assert line in error.what
    assert "10%" not in error.what


def test_a_log_that_a_full_disk_kept_silent_is_explained_by_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "train.log").write_text("Trac")
    assert "not a failure known to msr" in explain(1, tmp_path / "train.log", 4).cause
    monkeypatch.setattr("msr_adapter.filesystem._free", lambda place: 4096)
    error = explain(1, tmp_path / "train.log", 4)
    assert is_full(error)
    assert "free some space" in error.next_step


@pytest.mark.parametrize("line", ['{"current_steps": 1, "lo{"current_steps": 2}', "", "[1]", "\xff", '{"a":'])
def test_a_line_of_the_trainers_log_that_was_cut_says_nothing(line: str) -> None:
    assert log_row(line) == {}


def test_every_pattern_is_tested() -> None:
    assert len(SEEN) - 1 >= len(KNOWN)


def real_yaml(out: Path, data: Path, dataset: Path, **settings: Any) -> Path:
    config = training_config(train_config(**settings), data, dataset, out / "model", 0)
    write_yaml(out / "train.yaml", config, "")
    return out / "train.yaml"


def test_llamafactory_itself_on_a_damaged_image(tmp_path: Path) -> None:
    made = write_upstream(tmp_path)
    made.dataset.mkdir()
    build_dataset(train_config(), made, Prompts(), Job(made.dataset, QUIET))
    for image in (made.data / "images").iterdir():
        image.write_bytes(b"this is no image")
    with pytest.raises(StageError, match="cannot identify image file") as caught:
        run(real_yaml(tmp_path, made.data, made.dataset))
    assert "damaged" in caught.value.cause
    assert "--force data" in caught.value.next_step


def test_llamafactory_itself_on_an_unknown_key(tmp_path: Path) -> None:
    made = stages()
    path = real_yaml(tmp_path, made.data, made.dataset)
    path.write_text(path.read_text() + "no_such_key: 1\n")  # what we write is held against LLaMA-Factory's own list
    with pytest.raises(StageError, match="no_such_key") as caught:
        run(path)
    assert "train.overrides" in caught.value.cause
