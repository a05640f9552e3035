"""LLaMA-Factory's checkpoints on disk: which are whole, from which training goes on, what of them may go.

A checkpoint's `trainer_state.json` is written last, so that one which parses vouches for what was begun before it;
sizes are checked all the same.
"""

import json
import re
import shutil
import struct
import zipfile
from pathlib import Path
from typing import Any

from msr_adapter.files import read_json_object, write_text
from msr_adapter.filesystem import open_file

TRAINER_LOG = "trainer_log.jsonl"
STATE = "trainer_state.json"

_NAME = re.compile(r"checkpoint-(\d+)")
_WEIGHTS = ("adapter_model*.safetensors", "model*.safetensors", "pytorch_model_fsdp_0")
_RESUMING = ("optimizer.*", "optimizer_*", "scheduler.*", "scaler.*", "rng_state*.pth", "global_step*", "latest",
             "zero_to_fp32.py", "pytorch_model_fsdp_*")  # fmt: skip
"""What only the next step of the same training needs."""
_LOGGED = {"loss": "loss", "learning_rate": "lr", "epoch": "epoch", "eval_loss": "eval_loss",
           "num_input_tokens_seen": "total_tokens"}  # fmt: skip
"""The trainer's own names -> those of LLaMA-Factory's log."""


def checkpoints(output_dir: Path) -> dict[int, Path]:
    """Return step -> folder of every checkpoint, whole or not, by step."""
    found = {int(match[1]): path for path in output_dir.glob("checkpoint-*") if (match := _NAME.fullmatch(path.name))}
    return dict(sorted(found.items()))


def whole(output_dir: Path) -> dict[int, Path]:
    """Return step -> folder of the checkpoints whose weights can be loaded, by step."""
    return {step: path for step, path in checkpoints(output_dir).items() if is_whole(path, step)}


def settle(output_dir: Path, processes: int) -> int:
    """Make ``output_dir`` what a training of ``processes`` processes can go on from; return the step, 0 = the start.

    Half-written checkpoints, those after the last one that can be continued, and the files of an interrupted final
    save are removed. So is a checkpoint of the last step: the trainer would take one more step from there. The
    trainer's log ends at the returned step, without a line twice or missing.
    """
    kept = whole(output_dir)
    # A checkpoint that can be scored may lack what goes on from it: an older one then has to do.
    last = max((step for step, path in kept.items() if _can_go_on(path, processes)), default=0)
    for step, path in checkpoints(output_dir).items():
        if step not in kept or step > last:
            shutil.rmtree(path)
    for path in output_dir.iterdir() if output_dir.is_dir() else ():
        if not _NAME.fullmatch(path.name) and path.name != TRAINER_LOG:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    _rewind(output_dir / TRAINER_LOG, read_state(kept[last]) if last else {})
    return last


def strip(checkpoint: Path) -> int:
    """Remove optimizer, scheduler and random states, which only a continued training needs; return the bytes freed."""
    freed = 0
    for path in {path for pattern in _RESUMING for path in checkpoint.glob(pattern)}:
        files = path.rglob("*") if path.is_dir() else [path]
        freed += sum(file.stat().st_size for file in files if file.is_file())
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return freed


def lasting(folder: Path) -> list[Path]:
    """Return the files of the model in ``folder``, sorted: without checkpoints and what only a continued training
    needs."""
    gone = {path for pattern in ("checkpoint-*", *_RESUMING) for path in folder.glob(pattern)}
    return sorted(path for path in folder.rglob("*") if path.is_file() and gone.isdisjoint((path, *path.parents)))


def read_state(folder: Path) -> dict[str, Any]:
    """Return the trainer's state beside weights: `global_step`, `max_steps`, `log_history`; {} without a whole one."""
    return read_json_object(folder / STATE)


def is_whole(checkpoint: Path, step: int) -> bool:
    """Tell whether the weights in ``checkpoint`` are all there, and those of ``step``."""
    weights = [path for pattern in _WEIGHTS for path in checkpoint.glob(pattern)]
    for index in checkpoint.glob("*.safetensors.index.json"):
        # A damaged index names a file that is not there: the checkpoint is not whole then.
        weights += [
            checkpoint / name for name in set(read_json_object(index).get("weight_map", {"": "(damaged)"}).values())
        ]
    return (
        read_state(checkpoint).get("global_step") == step
        and bool(weights)
        and all(path.is_dir() or _whole_tensors(path) for path in weights)
    )


def _can_go_on(checkpoint: Path, processes: int) -> bool:
    """Tell whether steps are left, and optimizer, scheduler and every process's random state are there and whole."""
    state = read_state(checkpoint)
    states = [*checkpoint.glob("optimizer.*"), *checkpoint.glob("scheduler.pt")]
    random = ["rng_state.pth"] if processes == 1 else [f"rng_state_{rank}.pth" for rank in range(processes)]
    sharded = [path for pattern in ("global_step*", "optimizer_*") for path in checkpoint.glob(pattern)]
    return (
        state["global_step"] < state["max_steps"]
        and (len(states) == 2 or bool(sharded))
        # torch.save writes ZIP files, whose directory is at the end: a file that was cut off has none.
        and all(map(zipfile.is_zipfile, states))
        and all(zipfile.is_zipfile(checkpoint / name) for name in random)
    )


def _whole_tensors(path: Path) -> bool:
    """Tell whether a safetensors file is as long as its header says."""
    try:
        with open_file(path) as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > path.stat().st_size:
                return False
            header = json.loads(file.read(length))
        end = max((part["data_offsets"][1] for name, part in header.items() if name != "__metadata__"), default=0)
        return bool(path.stat().st_size == 8 + length + end)
    except (OSError, struct.error, ValueError, KeyError):
        return False


def log_row(line: str | bytes) -> dict[str, Any]:
    """Return what a line of the trainer's log says; {} for one that a kill or a full disk cut, which others follow."""
    try:
        row = json.loads(line)
    except ValueError:
        return {}
    return row if isinstance(row, dict) else {}


def _rewind(log: Path, state: dict[str, Any]) -> None:
    """Cut ``log`` at the step of ``state``; lines that a kill kept from it are made from the state's own history."""
    step, total = state.get("global_step", 0), state.get("max_steps", 0)
    if not step:
        log.unlink(missing_ok=True)
        return
    kept: dict[tuple[int, bool], dict[str, Any]] = {}
    for entry in state["log_history"]:
        if "loss" in entry or "eval_loss" in entry:
            row = {"current_steps": entry["step"], "total_steps": total}
            row |= {ours: entry[theirs] for theirs, ours in _LOGGED.items() if theirs in entry}
            kept[entry["step"], "eval_loss" in entry] = row | {"percentage": round(100 * entry["step"] / total, 2)}
    for row in _lines(log):
        if (key := (row.get("current_steps", 0), "eval_loss" in row)) in kept:
            kept[key] = row
    write_text(log, "".join(json.dumps(row) + "\n" for _, row in sorted(kept.items())))


def _lines(log: Path) -> list[dict[str, Any]]:
    """Return the log's whole lines that tell a loss."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else ()
    return [row for row in map(log_row, lines) if "loss" in row or "eval_loss" in row]
