"""The training run as LLaMA-Factory logged it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msr_adapter.evaluate.text_tables import short
from msr_adapter.metrics import label


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


# The training in the report: what it took, which checkpoint is kept, and why. From the train stage's manifest.

Summary = Mapping[str, Any]
"""What the train stage said of itself; older ones lack keys, and what they lack is left out."""


def training_tiles(summary: Summary) -> list[dict[str, str]]:
    """Return the training's key numbers: {label, value, note}."""
    took = summary.get("measured") or {}
    found = [_kept(summary), _loss(summary), _speed(took), _parameters(took), _time(took), _memory(took)]
    return [{"label": tile[0], "value": tile[1], "note": tile[2]} for tile in found if tile]


def _kept(summary: Summary) -> tuple[str, str, str] | None:
    selection, steps = summary.get("selection"), summary.get("steps")
    if not steps:
        return None
    if not selection:
        return "Steps", f"{steps:,}", "the last is kept"
    points = sum(point["step"] > 0 for point in selection["points"])
    early = f", stopped early of {summary['planned_steps']:,}" if selection["stopped"] else ""
    note = f"of {steps:,} steps{early}: best {label(selection['metric'])} of {points}"
    return "Checkpoint kept", f"{selection['chosen']:,}", note


def _loss(summary: Summary) -> tuple[str, str, str] | None:
    first, last = summary.get("first_loss"), summary.get("last_loss")
    return None if first is None or last is None else ("Training loss", f"{last:.3f}", f"from {first:.3f}")


def _speed(took: Summary) -> tuple[str, str, str] | None:
    rows, tokens = took.get("rows_per_second"), took.get("tokens_per_second")
    note = f"{_count(tokens)} tokens a second" if tokens else ""
    return ("Rows a second", f"{rows:,.0f}" if rows >= 10 else f"{rows:.2g}", note) if rows else None


def _parameters(took: Summary) -> tuple[str, str, str] | None:
    trained, all_of_them = took.get("trainable_parameters"), took.get("parameters")
    if not trained or not all_of_them:
        return None
    share = trained / all_of_them
    return (
        "Parameters trained",
        _count(trained),
        f"{share:.1%} of {_count(all_of_them)}" if share < 1 else "all of them",
    )


def _time(took: Summary) -> tuple[str, str, str] | None:
    seconds, start = took.get("seconds"), took.get("from_step")
    note = f"since step {start:,}, where it went on" if start else "data and model loaded"
    return ("Training time", _short_time(seconds), note) if seconds else None


def _memory(took: Summary) -> tuple[str, str, str] | None:
    main, gpu = took.get("peak_bytes"), took.get("peak_gpu_bytes")
    if gpu:
        return "Peak GPU memory", _bytes(gpu), f"and {_bytes(main)} of main memory" if main else "one GPU's tensors"
    return ("Peak memory", _bytes(main), "of the trainer's largest process") if main else None


def selection_table(summary: Summary) -> dict[str, Any] | None:
    """Return the curve as numbers, if there is one.

    {metric, users, candidates, reason, rows: [{step, value, range, loss, kept}]}
    """
    selection = summary.get("selection")
    if not selection:
        return None
    rows = [
        {
            "step": f"{point['step']:,}" if point["step"] else "untrained",
            "value": f"{point['value']:.3f}",
            "range": f"{short(point['low'])} – {short(point['high'])}",
            "loss": f"{point['loss']:.3f}",
            "kept": point["step"] == selection["chosen"],
        }
        for point in selection["points"]
    ]
    users = selection["users"]
    return {
        "metric": label(selection["metric"]), "users": f"{users:,} validation user{'s' * (users != 1)}",
        "candidates": f"{selection['candidates']:,}",
        "reason": selection["reason"].replace(selection["metric"], label(selection["metric"]), 1), "rows": rows,
    }  # fmt: skip


def training_findings(summary: Summary) -> list[Mapping[str, Any]]:
    """Return what the choice of a checkpoint has to say."""
    return list((summary.get("selection") or {}).get("findings", []))


def _short_time(seconds: float) -> str:
    """Return seconds so that they fit a tile: ``8.8 s``, ``83 s``, ``4.2 min``, ``2.1 h``."""
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6_000 else f"{seconds / 3_600:.1f} h"


def _count(number: float) -> str:
    for size, unit in ((1e9, " billion"), (1e6, " million")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:,.0f}"


def _bytes(number: int) -> str:
    return f"{number / 2**30:.1f} GiB" if number >= 2**30 else f"{number / 2**20:.0f} MiB"
