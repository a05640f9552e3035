"""Training as a subprocess: started, followed, stopped with us, believed only when the model is there."""

import contextlib
import itertools
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from msr_adapter.errors import StageError
from msr_adapter.files import read_json_object
from msr_adapter.llamafactory import trainer_entrypoint
from msr_adapter.llamafactory.checkpoints import TRAINER_LOG, log_row, read_state
from msr_adapter.llamafactory.failures import explain
from msr_adapter.llamafactory.nodes import ONE_PROCESS, Node, trainer_arguments, trainer_variables
from msr_adapter.progress import Reporter

_POLL_S = 0.2
_GRACE_S = 10.0
_NOTES = 10
UNSET = ("USE_V1", "USE_RAY", "USE_MCA", "IMAGE_PLACEHOLDER", "VIDEO_PLACEHOLDER", "AUDIO_PLACEHOLDER",
         "ALLOW_EXTRA_ARGS", "LLAMABOARD_ENABLED", "LLAMABOARD_WORKDIR", "LLAMAFACTORY_VERBOSITY", "FORCE_TORCHRUN",
         "RANK", "LOCAL_RANK", "WORLD_SIZE", "MSR_TORCHRUN_PID", "MSR_ANSWER_LOGITS")  # fmt: skip
"""Variables that would change what LLaMA-Factory trains, or what it prints and how it is started."""


@dataclass(frozen=True)
class TrainerRun:
    """One training as the trainer is started for it."""

    yaml: Path
    """LLaMA-Factory's arguments; the output goes to `train.log` beside it."""
    output_dir: Path
    """What the arguments name: checkpoints there are gone on from, see `checkpoints.settle`."""
    saved: str
    """Pattern of the files in it that must be there in the end, see `finetuning_methods`."""
    small: bool = False
    """The model gets one CPU thread unless OMP_NUM_THREADS says otherwise."""
    place: Node = ONE_PROCESS
    """How many processes train here, and with how many other machines."""
    start: int = 0
    """Step of the checkpoint that it goes on from."""


@dataclass(frozen=True)
class Trained:
    """What a finished training says of itself."""

    steps: int
    first_loss: float | None
    last_loss: float | None
    mean_loss: float
    eval_loss: float | None
    planned: int
    """More than ``steps`` if it was told to stop early."""
    measured: Mapping[str, float | None] = field(default_factory=dict)
    """What it took: see `training_measurements.measures`."""


@dataclass(frozen=True)
class TrainerWatch:
    """What is done beside a training while it runs."""

    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables of the trainer."""
    look: Callable[[int], None] = lambda _: None
    """Called several times a second with the trainer's process id."""
    stopped: Callable[[], int | None] = lambda: None
    """Step at which the trainer was told to stop early; None: it was not."""


_UNWATCHED = TrainerWatch()


def launch(run: TrainerRun, reporter: Reporter, watch: TrainerWatch = _UNWATCHED) -> Trained:
    """Run LLaMA-Factory and return what it trained.

    Raises `StageError` with the end of the log, the likely cause and the next step; a KeyboardInterrupt ends the
    trainer first.
    """
    log = run.yaml.with_name("train.log")
    cache = run.yaml.with_name(".datasets-cache")
    shutil.rmtree(cache, ignore_errors=True)  # of an attempt that was killed
    reporter.note(f"LLaMA-Factory starts; its output goes to {log}")
    environment = child_environment(os.environ, cache, small=run.small) | dict(watch.environment)
    events = run.output_dir / TRAINER_LOG
    known = events.stat().st_size if events.exists() else 0
    with log.open("wb") as sink, trainer_process(run.place, run.yaml, environment, sink) as process:
        steps = _show(_events(events, known, process, watch.look), run.start, reporter)
        returncode = process.wait()
    shutil.rmtree(cache, ignore_errors=True)
    if returncode != 0:
        raise explain(returncode, log, steps)
    return verify(run.output_dir, run.saved, watch.stopped())


def child_environment(parent: Mapping[str, str], cache: Path, *, small: bool) -> dict[str, str]:
    """Return the trainer's environment: ``parent`` without the variables in `UNSET`, and with ``cache`` for datasets.

    A ``small`` model gets one CPU thread.
    """
    environment = {key: value for key, value in parent.items() if key not in UNSET}
    # torchrun must be found although nobody activated this environment.
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), parent.get("PATH", os.defpath)])
    # The shared cache is keyed by paths: it would give back the token counts of images that have changed since.
    environment["HF_DATASETS_CACHE"] = str(cache)
    environment["PYTHONUNBUFFERED"] = "1"
    if small:
        environment.setdefault("OMP_NUM_THREADS", "1")
    return environment


def verify(output_dir: Path, saved: str, stopped: int | None = None) -> Trained:
    """Return what was trained, or raise `StageError`: an exit code of 0 alone proves nothing.

    ``saved`` is the pattern of the weights, ``stopped`` the step at which the trainer was told to stop early.
    """
    results, state = read_json_object(output_dir / "train_results.json"), read_state(output_dir)
    weights = [path for path in output_dir.glob(saved) if path.stat().st_size > 0]
    steps, planned = int(state.get("global_step", 0)), int(state.get("max_steps", 0))
    losses = _losses(state)
    found = results.get("train_loss", _mean(losses) if losses else None)
    mean = float(found) if isinstance(found, int | float) else None
    doubts = [
        "train_results.json is missing" if not results else "",
        f"{saved} is missing or empty" if not weights else "",
        f"{steps} of {planned} steps were taken" if not 0 < steps == (stopped or planned) else "",
        "no loss was reported" if results and mean is None else "",
        f"the mean loss is {mean}" if mean is not None and not math.isfinite(mean) else "",
    ]
    if mean is None or any(doubts):
        what = f"LLaMA-Factory ended without an error, but {'; '.join(filter(None, doubts))} ({output_dir})"
        raise StageError(what, "an interrupted save, or a diverged loss", "read train.log; lower the learning rate")
    evaluated = read_json_object(output_dir / "eval_results.json").get("eval_loss")
    return trained_of(state, mean, evaluated)


def trained_of(state: Mapping[str, Any], mean_loss: float = math.nan, eval_loss: float | None = None) -> Trained:
    """Return `Trained` from `trainer_state.json`; ``mean_loss`` stands in where its history has no loss."""
    losses = _losses(state)
    first, last = (next(iter(losses.values())), losses[max(losses)]) if losses else (None, None)
    mean = _mean(losses) if losses else mean_loss
    return Trained(state["global_step"], first, last, mean, eval_loss, state["max_steps"])


def _losses(state: Mapping[str, Any]) -> dict[int, float]:
    """Return step -> the loss told there, oldest first; nothing where the state has no history."""
    return {entry["step"]: entry["loss"] for entry in state.get("log_history", ()) if "loss" in entry}


def _mean(losses: Mapping[int, float]) -> float:
    """Return the mean loss of the steps told: each value is the mean since the one before.

    The trainer's own mean forgets, when it goes on from a checkpoint, the steps before that.
    """
    before = itertools.chain([0], losses)
    return sum(loss * (step - previous) for (step, loss), previous in zip(losses.items(), before, strict=False)) / max(
        losses
    )


@contextlib.contextmanager
def trainer_process(
    place: Node, yaml: Path, environment: Mapping[str, str], sink: BinaryIO
) -> Iterator[subprocess.Popen[bytes]]:
    """Start this machine's trainers on ``yaml``; they are stopped when the context ends before they do."""
    # -P: no folder of the caller's shadows a library. A session of its own: Ctrl-C reaches us, and we end it.
    command = [sys.executable, "-P", trainer_entrypoint.__file__, str(os.getpid()), *trainer_arguments(place, yaml)]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT,
        env={**environment, **trainer_variables(place, environment)}, cwd=yaml.parent, start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the trainer and all its children: asked first, then forced. Does nothing when it has ended by itself."""
    for how in (signal.SIGINT, signal.SIGKILL):
        if process.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, how)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_S)


def _events(
    path: Path, position: int, process: subprocess.Popen[bytes], look: Callable[[int], None]
) -> Iterator[dict[str, Any]]:
    """Yield the trainer's log lines from ``position`` on as they are completed, until it ends."""
    while True:
        ended = process.poll() is not None  # asked before reading: what it wrote last is read too
        if path.exists():
            with path.open("rb") as file:
                file.seek(position)
                for line in file:
                    # The trainer may be in the middle of a line: that is read again, whole, next time.
                    if line.endswith(b"\n"):
                        position += len(line)
                        if row := log_row(line):
                            yield row
        if ended:
            return
        look(process.pid)
        time.sleep(_POLL_S)


def _show(events: Iterator[dict[str, Any]], start: int, reporter: Reporter) -> int:
    """Show steps and losses as they come; return the last step."""
    with reporter.waiting("starting the trainer"):  # its imports, the rows' tokens and the model take minutes
        first = next(events, None)
    if first is None:
        return start
    step = start
    noted = _NOTES * start // first["total_steps"] + bool(start)  # of a resumed training, what was noted before
    with reporter.track("training", first["total_steps"] - start) as advance:
        for event in itertools.chain([first], events):
            total = event["total_steps"]
            advance(event["current_steps"] - step)
            step = event["current_steps"]
            if "loss" in event and step * _NOTES >= noted * total:
                noted = step * _NOTES // total + 1
                reporter.note(f"  step {step}/{total}  loss {event['loss']:.4f}")
    return step
