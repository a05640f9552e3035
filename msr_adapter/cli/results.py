"""What a finished command shows: the file it was run for, and the metrics when it ends with them."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from msr_adapter.pipeline import RunResult

_PIPE_WIDTH = 160

_MADE = {
    "data": ("audit", "audit.json"),
    "forecast": ("forecast of the rows' length", "forecast.json"),
    "items": ("item summaries", "items.parquet"),
    "users": ("user summaries", "users.parquet"),
    "fit": ("shortened preferences", "shortened.parquet"),
    "dataset": ("LLaMA-Factory dataset", "dataset_info.json"),
    "train": ("trained model", "model"),
    "score": ("scores", "scores.parquet"),
    "score-base": ("scores", "scores.parquet"),
    "baselines": ("baseline scores", "manifest.json"),
    "evaluate": ("report", "report.html"),
}


def made(result: "RunResult") -> tuple[str, Path]:
    """Return what the last stage makes and where it is."""
    last = result.stages[-1].name
    what, file = _MADE[last]
    return what, result.run_dir / last / file


def as_dict(name: str, result: "RunResult") -> dict[str, Any]:
    """Return the JSON object of a finished command."""
    stages = [asdict(stage) for stage in result.stages]
    return {"pipeline": name, "run_dir": str(result.run_dir), "stages": stages, "result": str(made(result)[1])}


def print_metrics(result: "RunResult", quiet: bool) -> None:
    """Print the metrics table on standard output, unless the stage has just shown it or the run has none."""
    last = result.stages[-1]
    if last.name != "evaluate" or (last.state == "done" and not quiet):
        return
    from rich.console import Console

    from msr_adapter.evaluate.tables import console_table

    metrics = json.loads((result.run_dir / "evaluate" / "metrics.json").read_text(encoding="utf-8"))
    Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH).print(console_table(metrics))
