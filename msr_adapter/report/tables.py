"""The report's tables of results: metrics by model, calibration, beyond accuracy, slices."""

from typing import NamedTuple

from msr_adapter.evaluate.baselines.catalogue import BASELINES
from msr_adapter.evaluate.metrics_file import Interval, MetricsFile, SliceEntry
from msr_adapter.evaluate.text_tables import full_metrics, full_models, short, shown_metrics
from msr_adapter.metrics import METRICS, ProbabilityMetric, label, metric_row
from msr_adapter.report.user_texts import clip

_PREFERRED = ("gauc", "ndcg@10", "ndcg@5", "hr@5")
"""Metrics that every user has, for slices without the primary one."""
_PLOTTED = 3


class Cell(NamedTuple):
    """One model's value and its interval, as text."""

    model: str
    mean: str
    range: str


class MetricRow(NamedTuple):
    """One metric of every model."""

    label: str
    cells: list[Cell]
    chance: str
    about: str = ""
    """What the metric is, in one line."""


class ModelRow(NamedTuple):
    """One model's numbers in a `ModelTable`."""

    model: str
    cells: list[str]


class ModelTable(NamedTuple):
    """A row for each model, a column for each of ``names``."""

    names: list[str]
    rows: list[ModelRow]
    notes: list[str]
    """What the columns mean, where that is known."""


class SliceRow(NamedTuple):
    """One group of users."""

    value: str
    users: str
    cells: list[Cell]


class SliceTable(NamedTuple):
    """One metric in each group of users of a slice."""

    name: str
    metric: str
    models: list[str]
    rows: list[SliceRow]


def about_metric(name: str) -> str:
    """Return what a metric such as ``hr@5`` is, in one line; nothing where its name is none of ours."""
    row, k = metric_row(name), name.partition("@")[2]
    return row.about.format(k=k) if row else ""


def metric_rows(metrics: MetricsFile) -> list[MetricRow]:
    """Return the rows of the metric table."""
    return [
        MetricRow(
            label(name),
            [_cell(model, entry["metrics"][name]) for model, entry in metrics["models"].items()],
            f"{metrics['chance'][name]:.3f}",
            about_metric(name),
        )
        for name in shown_metrics(metrics)
    ]


def full_rows(metrics: MetricsFile) -> list[MetricRow]:
    """Return the rows of the table over the whole catalogue; none where it was not ranked."""
    models, full = full_models(metrics), metrics.get("full")
    return [
        MetricRow(
            label(name),
            [_cell(model, values[name]) for model, values in models.items()],
            f"{full['chance'][name]:.3f}" if full else "",
            about_metric(name),
        )
        for name in full_metrics(metrics)
    ]


def calibration_table(metrics: MetricsFile) -> ModelTable | None:
    """Return the calibration of the models with probabilities; None if nothing was asked for."""
    found = metrics.get("calibration") or {}
    known = [row.name for row in METRICS if isinstance(row, ProbabilityMetric)]
    names = [name for name in known if any(name in entry for entry in found.values())]
    if not names:
        return None
    rows = [ModelRow(model, [_number(entry.get(name)) for name in names]) for model, entry in found.items()]
    return ModelTable([label(name) for name in names], rows, [])


def beyond_accuracy_table(metrics: MetricsFile, depth: int) -> ModelTable | None:
    """Return what the top-k lists hold, right or not; None if nothing was asked for.

    One depth is shown, ``depth`` where there is one; the others are in `metrics.json`.
    """
    found = metrics.get("beyond") or {}
    names = list(dict.fromkeys(name for values in found.values() for name in values))
    depths = list(dict.fromkeys(name.partition("@")[2] for name in names))
    if not depths:
        return None
    k = str(depth) if str(depth) in depths else depths[0]
    names = [name for name in names if name.partition("@")[2] == k]
    rows = [ModelRow(model, [_number(values.get(name)) for name in names]) for model, values in found.items()]
    notes = [f"{row.label}: {row.about.format(k=k)}" for name in names if (row := metric_row(name))]
    return ModelTable([label(name) for name in names], rows, notes)


def _number(value: object) -> str:
    """Return a number as text, a dash for none."""
    return "–" if not isinstance(value, int | float) else f"{value:,.1f}" if abs(value) >= 10 else f"{value:.3f}"


def slice_metric(cut: SliceEntry, primary: str) -> str | None:
    """Return the metric that all groups of ``cut`` have: the primary one if they do; None without any."""
    named = [set(values) for group in cut["groups"] for values in group["models"].values()]
    common = set.intersection(*named) if named else set()
    preferred = next((name for name in (primary, *_PREFERRED) if name in common), None)
    return preferred or min(common, default=None)


def compared_models(cut: SliceEntry, metrics: MetricsFile) -> list[str]:
    """Return the models worth drawing: trained, popularity, and the best of the others that must be beaten."""
    there = {name for group in cut["groups"] for name in group["models"]}
    primary, excluded = metrics["primary"], {row.name for row in BASELINES if not row.must_be_beaten}
    ranked = sorted(metrics["models"], key=lambda name: -metrics["models"][name]["metrics"][primary]["mean"])
    wanted = dict.fromkeys(["trained", "popularity", *(name for name in ranked if name not in excluded)])
    return [name for name in wanted if name in there][:_PLOTTED]


def slice_table(cut: SliceEntry, metric: str | None) -> SliceTable:
    """Return the table of one slice; a model that was not judged in a group has a dash there."""
    models = list(dict.fromkeys(name for group in cut["groups"] for name in group["models"]))
    rows = [
        SliceRow(
            clip(str(group["value"]), 60),
            f"{group['users']:,}{', few' if group.get('small') else ''}",
            [_cell(name, group["models"].get(name, {}).get(metric or "")) for name in models],
        )
        for group in cut["groups"]
    ]
    return SliceTable(cut["name"], label(metric or ""), models, rows)


def _cell(model: str, value: Interval | None) -> Cell:
    return Cell(model, "–", "") if value is None else Cell(model, f"{value['mean']:.3f}", interval(value))


def interval(value: Interval) -> str:
    """Return the ends of an interval as text: ``.450 – .560``."""
    return f"{short(value['low'])} – {short(value['high'])}"
