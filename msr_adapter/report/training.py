"""The training: LLaMA-Factory's log of it, its key numbers, which checkpoint was kept and why."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from msr_adapter.errors import plural
from msr_adapter.evaluate.metrics_file import EvaluationFinding
from msr_adapter.evaluate.text_tables import short
from msr_adapter.metrics import label
from msr_adapter.report.cost import size
from msr_adapter.report.report_context import Measured, Selection, StageSummary


@dataclass(frozen=True)
class TrainingCurves:
    """Curves by step; each may be empty."""

    loss: dict[int, float]
    """Step -> training loss."""
    validation: dict[int, float]
    """Step -> validation loss."""
    rate: dict[int, float]
    """Step -> learning rate."""


def read_training_log(path: Path | None) -> TrainingCurves:
    """Read `trainer_log.jsonl`; no file means no curves.

    A resumed training appends to the log, so the last line about a step counts; a line cut short by a kill is skipped.
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
    return TrainingCurves(*(dict(sorted(curve.items())) for curve in curves.values()))


class Tile(NamedTuple):
    """A number that stands out."""

    label: str
    value: str
    note: str
    about: str = ""
    """What the number is, in one line."""


class CheckpointRow(NamedTuple):
    """One checkpoint as text; the model before training is ``untrained``."""

    step: str
    value: str
    range: str
    """The interval of the value."""
    loss: str
    kept: bool


class CheckpointTable(NamedTuple):
    """All checkpoints on the validation users, and why one of them was kept."""

    metric: str
    users: str
    """With the noun: ``30 validation users``."""
    candidates: str
    reason: str
    rows: list[CheckpointRow]


def training_tiles(summary: StageSummary) -> list[Tile]:
    """Return the training's key numbers; older trainings lack some, and these are left out."""
    measured = summary.get("measured") or Measured()
    found = [_kept(summary), _loss(summary), _speed(measured), _parameters(measured), _time(measured)]
    return [tile for tile in [*found, _memory(measured)] if tile]


def _kept(summary: StageSummary) -> Tile | None:
    selection, steps = summary.get("selection"), summary.get("steps")
    if not steps:
        return None
    if not selection:
        return Tile("Steps", f"{steps:,}", "the last checkpoint is kept")
    points = sum(point["step"] > 0 for point in selection["points"])
    early = f", stopped early of {summary['planned_steps']:,}" if selection["stopped"] else ""
    note = f"of {steps:,} steps{early}: best {label(selection['metric'])} of {points}"
    return Tile("Checkpoint kept", f"{selection['chosen']:,}", note)


def _loss(summary: StageSummary) -> Tile | None:
    first, last = summary.get("first_loss"), summary.get("last_loss")
    return None if first is None or last is None else Tile("Training loss", f"{last:.3f}", f"from {first:.3f}")


def _speed(measured: Measured) -> Tile | None:
    rows, tokens = measured.get("rows_per_second"), measured.get("tokens_per_second")
    note = f"{_count(tokens)} tokens per second" if tokens else ""
    return Tile("Rows per second", f"{rows:,.0f}" if rows >= 10 else f"{rows:.2g}", note) if rows else None


def _parameters(measured: Measured) -> Tile | None:
    trained, total = measured.get("trainable_parameters"), measured.get("parameters")
    if not trained or not total:
        return None
    note = f"{trained / total:.1%} of {_count(total)}" if trained < total else "all of them"
    return Tile("Parameters trained", _count(trained), note)


def _time(measured: Measured) -> Tile | None:
    seconds, start = measured.get("seconds"), measured.get("from_step")
    note = f"since step {start:,}, where it resumed" if start else "without loading data and model"
    return Tile("Training time", _short_time(seconds), note) if seconds else None


def _memory(measured: Measured) -> Tile | None:
    main, gpu = size(measured.get("peak_bytes")), size(measured.get("peak_gpu_bytes"))
    if gpu:
        return Tile("Peak GPU memory", gpu, f"and {main} of main memory" if main else "tensors on one GPU")
    return Tile("Peak memory", main, "of the trainer's largest process") if main else None


def checkpoint_table(selection: Selection | None) -> CheckpointTable | None:
    """Return the curve of the checkpoints as numbers, if they were compared."""
    if not selection:
        return None
    rows = [
        CheckpointRow(
            f"{point['step']:,}" if point["step"] else "untrained",
            f"{point['value']:.3f}",
            f"{short(point['low'])} – {short(point['high'])}",
            f"{point['loss']:.3f}",
            point["step"] == selection["chosen"],
        )
        for point in selection["points"]
    ]
    users, name = selection["users"], label(selection["metric"])
    return CheckpointTable(
        name, plural(users, "validation user"), f"{selection['candidates']:,}",
        selection["reason"].replace(selection["metric"], name, 1), rows,
    )  # fmt: skip


def checkpoint_findings(summary: StageSummary) -> list[EvaluationFinding]:
    """Return what the choice of a checkpoint has to say."""
    selection = summary.get("selection")
    return list(selection["findings"]) if selection else []


def _short_time(seconds: float) -> str:
    """Return seconds short enough for a tile: ``8.8 s``, ``83 s``, ``4.2 min``, ``2.1 h``."""
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6_000 else f"{seconds / 3_600:.1f} h"


def _count(number: float) -> str:
    for unit_size, unit in ((1e9, " billion"), (1e6, " million")):
        if number >= unit_size:
            return f"{number / unit_size:.3g}{unit}"
    return f"{number:,.0f}"
