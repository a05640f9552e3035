"""Checkpoints as the trainer leaves them, for tests of what becomes of them."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file


def write_checkpoint(output_dir: Path, step: int, planned: int = 12) -> Path:
    """Write what the trainer leaves at ``step``, with a loss for every second step."""
    folder = output_dir / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    save_file({"weight": torch.full((3, 5), float(step))}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text("{}")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        torch.save({"step": step}, folder / name)
    history = [{"step": n, "loss": 1 / n, "learning_rate": 0.1, "epoch": n / 10} for n in range(2, step + 1, 2)]
    state = {"global_step": step, "max_steps": planned, "log_history": history}
    (folder / "trainer_state.json").write_text(json.dumps(state))
    return folder


def write_log(output_dir: Path, *steps: int, tail: str = "") -> None:
    """Write the trainer's log with a line for each of ``steps``, and ``tail``."""
    rows = [{"current_steps": step, "total_steps": 12, "loss": 1 / step, "elapsed_time": "0:00:09"} for step in steps]
    (output_dir / "trainer_log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + tail)
