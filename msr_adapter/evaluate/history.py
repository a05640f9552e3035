"""The training run as LLaMA-Factory logged it."""

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class History:
    """Curves by step; each may be empty."""

    loss: dict[int, float]
    """Step -> training loss."""
    validation: dict[int, float]
    """Step -> validation loss."""
    rate: dict[int, float]
    """Step -> learning rate."""


def read_history(path: Path | None) -> History:
    """Read `trainer_log.jsonl`; no file means no curves.

    The log is appended to on resume, so the last word on a step counts; a line cut short by a kill is skipped.
    """
    curves: dict[str, dict[int, float]] = {"loss": {}, "eval_loss": {}, "lr": {}}
    text = path.read_text(encoding="utf-8", errors="replace") if path is not None and path.exists() else ""
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        for key, curve in curves.items():
            if isinstance(row, dict) and isinstance(row.get(key), int | float):
                curve[int(row.get("current_steps", len(curve)))] = float(row[key])
    return History(*(dict(sorted(curve.items())) for curve in curves.values()))
