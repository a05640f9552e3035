"""What LLaMA-Factory's trainers lack, added to every one of their processes: run by path, nothing of ours is imported.

- Restoring the weights of a fully trained model when its training goes on from a checkpoint. transformers 5.6 saves
  under the names of the published checkpoints and restores by those of the model in memory: where the two differ, as in
  most vision-language models, it restores nothing, warns, and trains the base model on.
- Early stopping by what msr thinks of a checkpoint. The trainer asks at each one and waits, msr answers: two small
  files in a folder beside the training YAML, which the processes of all machines see. Where it is, trainers ask.
"""

import json
import time
from pathlib import Path
from typing import Any

FOLDER = "early-stop"
"""Where questions and answers lie, beside the training YAML."""

_SAVED, _VERDICT = "saved.json", "verdict.json"
_POLL_S = 0.1
_LONGEST_S = 24 * 3600.0
"""A judge that has not answered by then never will: the trainer ends with an error."""


def install(yaml_folder: Path) -> None:
    """Add the callbacks to every trainer of this process; the one that asks only where its folder is there.

    Imports transformers.
    """
    import transformers.trainer
    from transformers import TrainerCallback

    class RestoreWeights(TrainerCallback):  # type: ignore[misc]  # untyped here
        def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            # DeepSpeed and FSDP keep weights by the names in memory, PEFT its adapters by its own.
            if args.resume_from_checkpoint and not (args.deepspeed or args.fsdp or hasattr(model, "peft_config")):
                restore_weights(model, args.resume_from_checkpoint)

    class AskWhetherToStop(TrainerCallback):  # type: ignore[misc]  # untyped here
        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            from accelerate.utils import broadcast_object_list  # type: ignore[import-untyped]

            stop = [state.is_world_process_zero and ask(yaml_folder / FOLDER, state.global_step)]
            broadcast_object_list(stop)  # all processes end at the same step, or none
            control.should_training_stop = control.should_training_stop or stop[0]

    transformers.trainer.DEFAULT_CALLBACKS.append(RestoreWeights)
    if (yaml_folder / FOLDER).is_dir():
        transformers.trainer.DEFAULT_CALLBACKS.append(AskWhetherToStop)


def restore_weights(model: Any, checkpoint: str) -> None:
    """Copy the weights saved in ``checkpoint`` into ``model``, in place; raises if one is missing or left over."""
    import torch

    # In float32, whatever dtype the configuration names: trained weights are saved so.
    saved = type(model).from_pretrained(checkpoint, dtype=torch.float32)
    model.load_state_dict(saved.state_dict(), strict=True)


def ask(folder: Path, step: int, longest: float = _LONGEST_S) -> bool:
    """Say that the checkpoint of ``step`` is there; return whether to stop. Raises TimeoutError without an answer."""
    _write(folder / _SAVED, {"step": step})
    deadline = time.monotonic() + longest
    while time.monotonic() < deadline:
        verdict = _read(folder / _VERDICT)
        if verdict.get("step") == step:
            return bool(verdict["stop"])
        time.sleep(_POLL_S)
    raise TimeoutError(f"msr did not judge the checkpoint of step {step} within {longest:g} s")


class StopQuestions:
    """msr's half of early stopping: the trainer's questions, and their answers."""

    def __init__(self, folder: Path) -> None:
        """Prepare ``folder`` for one trainer: what an earlier one asked is forgotten."""
        self._folder, self._answered = folder, 0
        folder.mkdir(parents=True, exist_ok=True)
        for name in (_SAVED, _VERDICT):
            (folder / name).unlink(missing_ok=True)

    def asked(self) -> int | None:
        """Return the step whose checkpoint waits for an answer; None: the trainer is at work."""
        step = _read(self._folder / _SAVED).get("step", 0)
        return step if step != self._answered else None

    def answer(self, step: int, *, stop: bool) -> None:
        """Tell the trainer, which waits at ``step``, to go on or to ``stop``."""
        _write(self._folder / _VERDICT, {"step": step, "stop": stop})
        self._answered = step


def _read(path: Path) -> dict[str, int]:
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def _write(path: Path, value: dict[str, int]) -> None:
    # Renamed into place: the other side never reads half a file.
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(value), encoding="utf-8")
    temporary.replace(path)
