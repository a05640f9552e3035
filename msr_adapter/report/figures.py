"""The report's figures: which plots there are, their titles and captions. How each is drawn: `curves`."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from msr_adapter.evaluate.candidates import HeldOut
from msr_adapter.evaluate.metrics_file import MetricsFile
from msr_adapter.evaluate.model_metrics import Judged
from msr_adapter.metrics import label
from msr_adapter.report import curves
from msr_adapter.report.report_context import StageSummary
from msr_adapter.report.svg import SIZE, Draw, draw_svg, looks
from msr_adapter.report.tables import compared_models, slice_metric
from msr_adapter.report.training import TrainingCurves

_CURVES_SHOWN = 8
"""Models in one plot of curves: more cannot be told apart."""


class Figure(NamedTuple):
    """One plot."""

    title: str
    caption: str
    svg: Markup


def result_figures(metrics: MetricsFile, models: Mapping[str, Judged], held_out: HeldOut) -> list[Figure]:
    """Return the plots of the results: intervals, metric against k, ROC, score distribution, calibration."""
    look, primary = looks(models), metrics["primary"]
    level = f"{metrics['protocol']['confidence']['level']:.0%}"
    trained = models["trained"].result
    shown = dict(list(models.items())[:_CURVES_SHOWN])
    tall = (4.7, max(3.2, 0.9 + 0.46 * len(models)))
    drawn: list[tuple[str, str, Draw, tuple[float, float]]] = [
        (f"{label(primary)} by model", f"Mean and {level} interval; the dashed line is chance.",
         curves.intervals(models, primary, metrics["chance"][primary], look), tall),
        ("HR@k by k", "Share of users with a target among the first k.", curves.hit_rate_curve(shown, look), SIZE),
        ("ROC", "Candidates of all users pooled; the dashed diagonal is chance.",
         curves.roc_curve(shown, held_out.labels, look), SIZE),
        ("Scores of the trained model", "Positives and negatives, each with area one.",
         curves.score_distribution(trained.groups.scores.astype(np.float64), held_out.labels), SIZE),
    ]  # fmt: skip
    if calibration := {name: entry for name, entry in (metrics.get("calibration") or {}).items() if entry.get("bins")}:
        caption = "On the diagonal, p(yes) equals the share of positives; larger dots stand for more candidates."
        drawn.append(("Calibration", caption, curves.reliability(calibration, looks(calibration)), SIZE))
    return [_figure(f"result{number}", *each) for number, each in enumerate(drawn)]


def slice_figures(metrics: MetricsFile) -> list[Figure | None]:
    """Return one plot for each slice of `metrics.json`, None where its groups share no metric."""
    level = f"{metrics['protocol']['confidence']['level']:.0%}"
    drawn: list[Figure | None] = []
    for number, cut in enumerate(metrics.get("slices") or []):
        metric, models = slice_metric(cut, metrics["primary"]), compared_models(cut, metrics)
        if metric is None:
            drawn.append(None)
            continue
        draw = curves.slice_intervals(cut["groups"], metric, models, looks(metrics["models"]))
        pale = "; pale: too few users to trust the interval" if any(g.get("small") for g in cut["groups"]) else ""
        caption = f"{label(metric)} with {level} intervals; in brackets, the number of users{pale}."
        size = (5.4, 1.15 + 0.5 * len(cut["groups"]))
        drawn.append(_figure(f"slice{number}", f"By {cut['name']}", caption, draw, size))
    return drawn


def training_figures(log: TrainingCurves, summary: StageSummary) -> list[Figure]:
    """Return the curves of the training; ``summary`` is what the train stage says of itself."""
    selection, last = summary.get("selection"), summary.get("validation_loss")
    drawn: list[tuple[str, str, Draw, tuple[float, float]]] = []
    validation = log.validation
    if not validation and log.loss and isinstance(last, int | float) and not selection:
        validation = {max(log.loss): float(last)}
    if log.loss or validation:
        draw = curves.loss_curve(log.loss, validation, selection["chosen"] if selection else None)
        drawn.append(("Training loss", "As logged by LLaMA-Factory; the strong line is smoothed.", draw, SIZE))
    if selection:
        points, chosen = selection["points"], selection["chosen"]
        name = label(selection["metric"])
        value = curves.checkpoint_curve(points, "value", chosen, name)
        drawn.append((f"{name} on validation users", "Bars: 95% intervals over the users.", value, SIZE))
        loss = curves.checkpoint_curve(points, "loss", chosen, "−log p(right answer)")
        caption = "As the answers are scored; of Yes and No, positives and negatives have equal weight."
        drawn.append(("Validation loss", caption, loss, SIZE))
    if log.rate:
        drawn.append(("Learning rate", "As logged by LLaMA-Factory.", curves.rate_curve(log.rate), SIZE))
    return [_figure(f"training{number}", *each) for number, each in enumerate(drawn)]


def _figure(name: str, title: str, caption: str, draw: Draw, size: tuple[float, float]) -> Figure:
    return Figure(title, caption, Markup(draw_svg(name, f"{title}. {caption}", draw, size)))  # our own markup
