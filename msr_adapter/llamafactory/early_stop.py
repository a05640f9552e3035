"""Whether a training goes on: the trainer asks at each checkpoint and waits, msr answers. By two small files.

They lie in a folder beside the training YAML, which the processes of all machines see; where it is, trainers ask. The
trainer's half is run by path (`guard.py`), in every one of its processes; nothing of ours is imported.
"""

import json
import time
from pathlib import Path
from typing import Any

from msr_adapter.files import read_json_object

FOLDER = "handshake"

_SAVED, _VERDICT = "saved.json", "verdict.json"
_POLL_S = 0.1
_LONGEST_S = 24 * 3600.0
"""A judge that has not answered by then never will: the trainer ends with an error."""


class Desk:
    """msr's half."""

    def __init__(self, folder: Path) -> None:
        """Prepare ``folder`` for one trainer: what an earlier one asked is forgotten."""
        self._folder, self._answered = folder, 0
        folder.mkdir(parents=True, exist_ok=True)
        for name in (_SAVED, _VERDICT):
            (folder / name).unlink(missing_ok=True)

    def asked(self) -> int | None:
        """Return the step whose checkpoint waits for an answer; None: the trainer is at work."""
        step = read_json_object(self._folder / _SAVED).get("step", 0)
        return step if step != self._answered else None

    def answer(self, step: int, *, stop: bool) -> None:
        """Let the trainer go on, or end it."""
        _write(self._folder / _VERDICT, {"step": step, "stop": stop})
        self._answered = step


def install(folder: Path) -> None:
    """Let every trainer of this process ask in ``folder`` at each checkpoint. Imports transformers."""
    import transformers.trainer
    from accelerate.utils import broadcast_object_list  # type: ignore[import-untyped]
    from transformers import TrainerCallback

    class Asks(TrainerCallback):  # type: ignore[misc]  # untyped here
        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            stop = [state.is_world_process_zero and ask(folder, state.global_step)]
            broadcast_object_list(stop)  # all processes end at the same step, or none
            control.should_training_stop = control.should_training_stop or stop[0]

    transformers.trainer.DEFAULT_CALLBACKS.append(Asks)


def ask(folder: Path, step: int, longest: float = _LONGEST_S) -> bool:
    """Say that the checkpoint of ``step`` is there; return whether to stop. Raises TimeoutError without an answer."""
    _write(folder / _SAVED, {"step": step})
    deadline = time.monotonic() + longest
    while time.monotonic() < deadline:
        verdict = read_json_object(folder / _VERDICT)
        if verdict.get("step") == step:
            return bool(verdict["stop"])
        time.sleep(_POLL_S)
    raise TimeoutError(f"msr did not judge the checkpoint of step {step} within {longest:g} s")


def _write(path: Path, value: dict[str, Any]) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(value), encoding="utf-8")
    temporary.replace(path)
