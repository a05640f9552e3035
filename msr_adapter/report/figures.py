"""The report's figures: which plots there are, what they are called, what they say."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from msr_adapter.evaluate.candidates import HeldOut
from msr_adapter.evaluate.judging import Judged
from msr_adapter.metrics import label
from msr_adapter.report import curves
from msr_adapter.report.plots import Draw, draw_svg, looks
from msr_adapter.report.tables import compared_models, slice_metric
from msr_adapter.report.training import History

_CURVES_SHOWN = 8
"""Models in one plot of curves: more cannot be told apart."""


class Figure(NamedTuple):
    """One plot."""

    title: str
    caption: str
    svg: Markup


def result_figures(metrics: Mapping[str, Any], models: Mapping[str, Judged], held_out: HeldOut) -> list[Figure]:
    """Return the plots of the results: intervals, metric against k, ROC, score distribution, calibration."""
    look, primary = looks(models), metrics["primary"]
    level = f"{metrics['protocol']['confidence']['level']:.0%}"
    trained = models["trained"].result
    shown = dict(list(models.items())[:_CURVES_SHOWN])
    tall = (4.7, max(3.2, 0.9 + 0.46 * len(models)))
    drawn: list[tuple[str, str, Draw, tuple[float, float]]] = [
        (f"{label(primary)} by model", f"Mean and {level} interval; the dashed line is chance.",
         curves.intervals(models, primary, metrics["chance"][primary], look), tall),
        ("HR@k by k", "Share of users with a true item among the first k.", curves.hit_rate_curve(shown, look), _SIZE),
        ("ROC", "Candidates of all users pooled; the dashed diagonal is chance.",
         curves.roc_curve(shown, held_out.labels, look), _SIZE),
        ("Scores of the trained model", "True items against negatives, each with area one.",
         curves.score_distribution(trained.groups.scores.astype(np.float64), held_out.labels), _SIZE),
    ]  # fmt: skip
    if calibration := {name: entry for name, entry in (metrics.get("calibration") or {}).items() if entry.get("bins")}:
        caption = "Does p(yes) mean what it says? On the diagonal it does; the larger a dot, the more candidates."
        drawn.append(("Calibration", caption, curves.reliability(calibration, looks(calibration)), _SIZE))
    return [_figure(f"result{number}", *each) for number, each in enumerate(drawn)]


def slice_figures(metrics: Mapping[str, Any]) -> list[Figure | None]:
    """Return one plot for each slice of `metrics.json`, None where its groups share no metric."""
    return list(_slices(metrics, metrics.get("slices") or []))


def _slices(metrics: Mapping[str, Any], slices: Sequence[Mapping[str, Any]]) -> Iterator[Figure | None]:
    level = f"{metrics['protocol']['confidence']['level']:.0%}"
    for number, cut in enumerate(slices):
        metric, models = slice_metric(cut, metrics["primary"]), compared_models(cut, metrics)
        if metric is None:
            yield None
            continue
        draw = curves.slice_intervals(cut["groups"], metric, models, looks(metrics["models"]))
        size = (5.4, 1.15 + 0.5 * len(cut["groups"]))
        pale = "; pale: too few users to trust the interval" if any(g.get("small") for g in cut["groups"]) else ""
        caption = f"{label(metric)} with {level} intervals; in brackets, how many users{pale}."
        yield _figure(f"slice{number}", f"By {cut['name']}", caption, draw, size)


def training_figures(history: History, summary: Mapping[str, Any]) -> list[Figure]:
    """Return the curves that the training left; ``summary`` is what the train stage said of itself."""
    selection, last = summary.get("selection"), summary.get("validation_loss")
    drawn: list[tuple[str, str, Draw, tuple[float, float]]] = []
    validation = history.validation
    if not validation and history.loss and isinstance(last, int | float) and not selection:
        validation = {max(history.loss): float(last)}
    if history.loss or validation:
        draw = curves.loss_curve(history.loss, validation, selection["chosen"] if selection else None)
        drawn.append(("Training loss", "As LLaMA-Factory logged it; the strong line is smoothed.", draw, _SIZE))
    if selection:
        points, chosen = selection["points"], selection["chosen"]
        name = label(selection["metric"])
        value = curves.checkpoint_curve(points, "value", chosen, name)
        drawn.append((f"{name} on validation users", "Bars: 95% intervals over the users.", value, _SIZE))
        loss = curves.checkpoint_curve(points, "loss", chosen, "−log p(right answer)")
        drawn.append(
            ("Validation loss", "Of the first answer token; true items and others weigh the same.", loss, _SIZE)
        )
    if history.rate:
        drawn.append(("Learning rate", "As LLaMA-Factory logged it.", curves.rate_curve(history.rate), _SIZE))
    return [_figure(f"training{number}", *each) for number, each in enumerate(drawn)]


_SIZE = (4.7, 3.2)


def _figure(name: str, title: str, caption: str, draw: Draw, size: tuple[float, float]) -> Figure:
    return Figure(title, caption, Markup(draw_svg(name, f"{title}. {caption}", draw, size)))  # our own markup
