"""What a run folder says, as a tracker takes it: flat settings, and points.

Names of points; `@` is written `_at_`, which all trackers take:

train/loss, train/learning_rate, train/validation_loss      step: the trainer's
validation/<metric>, and with _low and _high its interval; validation/loss    step: the checkpoint's, 0 = untrained
test/<model>/<metric>, and with _low and _high              step: the checkpoint's that was kept
full/<model>/<metric>, and with _low and _high              the same, ranked among the whole catalogue
difference/<model>/<metric>, with _low, _high and _p        the trained model minus another, paired; p is adjusted
"""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from msr_adapter.redaction import redact_values
from msr_adapter.report.training import read_training_log
from msr_adapter.tracking.outbox import Point, now

_PLACES = ("run_dir", "cache", "execution", "tracking", "name")
"""Sections that are no settings of an experiment: where it runs, and what it is called."""


def flat_settings(resolved: Mapping[str, Any]) -> dict[str, str]:
    """Return a resolved pipeline as dotted keys and texts, without secrets and without places."""
    found = {key: value for key, value in resolved.items() if key not in _PLACES}
    return dict(_leaves(redact_values(found)))


def _leaves(settings: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def curve_points(training_log: Path) -> list[Point]:
    """Return the curves of a training, under way or ended."""
    curves = read_training_log(training_log)
    named = {"train/loss": curves.loss, "train/validation_loss": curves.validation, "train/learning_rate": curves.rate}
    return _points((name, step, value) for name, curve in named.items() for step, value in curve.items())


def checkpoint_points(selection: Mapping[str, Any]) -> list[Point]:
    """Return what checkpoints are worth on the validation users; nothing where they were not compared."""
    if not selection:
        return []
    name = f"validation/{written(selection['metric'])}"
    parts = {name: "value", f"{name}_low": "low", f"{name}_high": "high", "validation/loss": "loss"}
    return _points((key, one["step"], one[part]) for one in selection["points"] for key, part in parts.items())


def metric_points(metrics: Mapping[str, Any], step: int) -> list[Point]:
    """Return the metrics of all models on the test users, at the ``step`` of the checkpoint that was kept."""
    found: list[tuple[str, int, float]] = []
    for model, judged in metrics["models"].items():
        for metric, interval in judged["metrics"].items():
            found += _with_interval(f"test/{model}/{written(metric)}", step, interval)
    for model, difference in metrics["differences"].items():
        found += _with_difference(f"difference/{model}/{written(metrics['primary'])}", step, difference)
    full = metrics.get("full") or {}
    ranked = {**full.get("models", {}), **((full.get("retrieval") or {}).get("models", {}))}
    for model, values in ranked.items():
        for metric, interval in values.items():
            found += _with_interval(f"full/{model}/{written(metric)}", step, interval)
    return _points(iter(found))


def _with_interval(name: str, step: int, interval: Mapping[str, float]) -> list[tuple[str, int, float]]:
    return [
        (name, step, interval["mean"]),
        (f"{name}_low", step, interval["low"]),
        (f"{name}_high", step, interval["high"]),
    ]


def _with_difference(name: str, step: int, difference: Mapping[str, float]) -> list[tuple[str, int, float]]:
    return [*_with_interval(name, step, difference), (f"{name}_p", step, difference["p_adjusted"])]


def written(metric: str) -> str:
    """Return a metric's name in letters that every tracker takes: ``ndcg_at_10``."""
    return metric.replace("@", "_at_")


def _points(found: Iterator[tuple[str, int, float]]) -> list[Point]:
    time = now()
    return [Point(name, int(step), float(value), time) for name, step, value in found if math.isfinite(value)]
