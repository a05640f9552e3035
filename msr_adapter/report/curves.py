"""What the report's plots draw; each function returns one drawing for `svg.draw_svg`."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from msr_adapter.arrays import Floats, Labels
from msr_adapter.evaluate.baselines.catalogue import Look
from msr_adapter.evaluate.metrics_file import CalibrationEntry, SliceGroup
from msr_adapter.evaluate.model_metrics import Judged
from msr_adapter.metrics import label
from msr_adapter.report.report_context import CheckpointPoint
from msr_adapter.report.svg import COLOR, Draw

Looks = Mapping[str, Look]
CheckpointValue = Literal["value", "loss"]

_CUTS = 100
"""Cuts of a ROC curve: more cannot be seen."""
_TICKS = 8
"""Checkpoints that are named one by one on the axis."""


def intervals(models: Mapping[str, Judged], metric: str, chance: float, looks: Looks) -> Draw:
    """Return the plot of one metric of every model, with its interval, beside chance."""

    def draw(axes: Axes) -> None:
        axes.axvline(chance, color=COLOR["muted"], linewidth=1, linestyle=(0, (2, 2)))
        for row, (name, judged) in enumerate(models.items()):
            value, color = judged.summary[metric], COLOR[looks[name].variable]
            mean = value["mean"]
            axes.plot([value["low"], value["high"]], [row, row], color=color, linewidth=3, solid_capstyle="round")
            axes.plot(mean, row, "o", color=color, markersize=8)
            axes.annotate(f"{mean:.3f}", (mean, row), (0, 9), textcoords="offset points", ha="center")
        axes.set(yticks=range(len(models)), yticklabels=list(models), xlabel=label(metric))
        axes.set_ylim(len(models) - 0.5, -0.7)  # the first model on top, with room for its number
        axes.margins(x=0.1)
        axes.grid(visible=False, axis="y")

    return draw


def hit_rate_curve(models: Mapping[str, Judged], looks: Looks) -> Draw:
    """Return the plot of every model's HR@k against k, up to 50."""

    def draw(axes: Axes) -> None:
        for name, judged in models.items():
            result = judged.result
            depths = np.arange(1, min(int(result.groups.sizes.max()), 50) + 1)
            rates = [result.at("hr", int(k)).mean() for k in depths]
            _line(axes, depths.astype(np.float64), np.array(rates), name, looks)
        axes.set(xlabel="k", ylim=(0, 1.02), xlim=(1, None))
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
        axes.legend(loc="lower right")

    return draw


def roc_curve(models: Mapping[str, Judged], labels: Labels, looks: Looks) -> Draw:
    """Return the plot of the true against the false positive rate of every model, over all users' candidates."""

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=COLOR["muted"], linewidth=1, linestyle=(0, (2, 2)))
        for name, judged in models.items():
            _line(axes, *roc_points(judged.result.groups.scores.astype(np.float64), labels), name, looks)
        axes.set(xlabel="false positive rate", ylabel="true positive rate", xlim=(-0.01, 1.01), ylim=(-0.01, 1.02))
        axes.legend(loc="lower right")

    return draw


def roc_points(scores: Floats, labels: Labels, chunk: int = 2**21) -> tuple[Floats, Floats]:
    """Return false and true positive rates (points,) from (0, 0) to (1, 1), the curve's own at up to `_CUTS` scores.

    A cut is a positive's score; the curve runs straight from what lies above it to what lies at or above it, so that
    tied scores are one step (Fawcett, "An introduction to ROC analysis", 2006). O(n log cuts) time; memory is that of
    ``chunk`` scores.
    """
    cuts = np.unique(scores[labels > 0])
    cuts = cuts[np.unique(np.linspace(0, len(cuts) - 1, min(_CUTS, len(cuts))).round().astype(int))]
    counts = np.zeros((2, 2, len(cuts) + 1), np.int64)  # label, above or at, place among the cuts
    for start in range(0, len(scores), chunk):
        part, hits = scores[start : start + chunk], labels[start : start + chunk] > 0
        for at, place in enumerate((np.searchsorted(cuts, part, "left"), np.searchsorted(cuts, part, "right"))):
            for kind, rows in enumerate((~hits, hits)):
                counts[kind, at] += np.bincount(place[rows], minlength=len(cuts) + 1)
    # From the highest cut to the lowest: first what is above it, then what is at or above it.
    passed = counts[:, :, ::-1].cumsum(axis=2)[:, :, :-1].transpose(0, 2, 1).reshape(2, -1)
    total = counts[:, 0].sum(axis=1, keepdims=True)
    points = np.concatenate([np.zeros((2, 1)), passed / np.maximum(total, 1), np.ones((2, 1))], axis=1)
    kept = np.append(True, np.any(np.diff(points, axis=1) != 0, axis=0))
    return points[0, kept], points[1, kept]


def _line(axes: Axes, x: Floats, y: Floats, name: str, looks: Looks) -> None:
    look, width = looks[name], 2.4 if name == "trained" else 1.6
    axes.plot(x, y, color=COLOR[look.variable], linestyle=look.dash, linewidth=width, label=name)


def score_distribution(scores: Floats, labels: Labels) -> Draw:
    """Return the plot of the densities of the trained model's log-odds of Yes: of positives, and of negatives."""

    def draw(axes: Axes) -> None:
        finite = scores[np.isfinite(scores)]
        low, high = np.quantile(finite, [0.002, 0.998]) if len(finite) else (0.0, 1.0)
        bars = int(np.clip(2 * np.sqrt((labels > 0).sum()), 8, 40))
        # A little wider than the scores: where all are equal, bins would have no width.
        edges = np.linspace(low - 1e-6, high + 1e-6, bars + 1)
        for wanted, name, color in ((True, "positives", "trained"), (False, "negatives", "popularity")):
            counts = np.histogram(np.clip(scores[(labels > 0) == wanted], low, high), edges)[0]
            heights = counts / max(counts.sum(), 1) / np.diff(edges)  # an area of one, whatever their number
            axes.stairs(heights, edges, fill=True, color=COLOR[color], alpha=0.3)
            axes.stairs(heights, edges, color=COLOR[color], linewidth=1.6, label=name)
        axes.set(xlabel="log-odds of Yes", yticks=[])
        axes.margins(y=0.3)  # room for the legend
        axes.spines["left"].set_visible(False)
        axes.legend(loc="upper right")

    return draw


def reliability(calibration: Mapping[str, CalibrationEntry], looks: Looks) -> Draw:
    """Return the plot of how often candidates of a given p(yes) are positives; dots grow with their number."""

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=COLOR["muted"], linewidth=1, linestyle=(0, (2, 2)))
        for name, entry in calibration.items():
            bins = [each for each in entry["bins"] if each["count"]]
            if not bins:
                continue
            said, found = [each["mean_score"] for each in bins], [each["rate"] for each in bins]
            share = np.array([each["count"] for each in bins]) / sum(each["count"] for each in bins)
            color = COLOR[looks[name].variable]
            axes.plot(said, found, color=color, linestyle=looks[name].dash, linewidth=1.4, label=name)
            axes.scatter(said, found, s=12 + 90 * np.sqrt(share), color=color, linewidths=0)
        axes.set(xlabel="mean p(yes)", ylabel="share of positives", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axes.legend(loc="upper left")

    return draw


def slice_intervals(groups: Sequence[SliceGroup], metric: str, models: Sequence[str], looks: Looks) -> Draw:
    """Return the plot of one metric in each group of users, with its interval, a few models side by side."""

    def draw(axes: Axes) -> None:
        gap = 0.7 / max(len(models), 1)
        for place, name in enumerate(models):
            color, named = COLOR[looks[name].variable], name
            for row, group in enumerate(groups):
                value = group["models"].get(name, {}).get(metric)
                if value is None:
                    continue
                y = row + (place - (len(models) - 1) / 2) * gap
                ends, pale = [value["low"], value["high"]], 0.4 if group.get("small") else 1
                axes.plot(ends, [y, y], color=color, linewidth=2.4, solid_capstyle="round", alpha=pale)
                axes.plot(value["mean"], y, "o", color=color, markersize=6, label=named, alpha=pale)
                named = "_seen"  # matplotlib leaves names with an underscore out of the legend
        names = [f"{str(group['value'])[:24]}  ({group['users']:,})" for group in groups]
        axes.set(yticks=range(len(groups)), yticklabels=names, xlabel=label(metric))
        axes.set_ylim(len(groups) - 0.4, -0.6)
        axes.margins(x=0.08)
        axes.grid(visible=False, axis="y")
        legend = axes.legend(
            loc="upper center", bbox_to_anchor=(0.4, 1 + 0.5 / (0.6 + 0.5 * len(groups))), ncols=len(models)
        )
        # The legend copies the first dot of a model, which may be a pale one.
        for handle in legend.legend_handles:
            if handle is not None:
                handle.set_alpha(1)

    return draw


def loss_curve(loss: Mapping[int, float], validation: Mapping[int, float], kept: int | None = None) -> Draw:
    """Return the plot of the training loss by step, of the validation loss where there is one, and of the step kept."""

    def draw(axes: Axes) -> None:
        steps, values = np.array(list(loss)), np.array(list(loss.values()))
        if len(steps):
            axes.plot(steps, values, color=COLOR["trained"], linewidth=1, alpha=0.35)
            axes.plot(steps, _smooth(values), color=COLOR["trained"], linewidth=2.2, label="training")
        if validation:
            points = (list(validation), list(validation.values()))
            axes.plot(*points, "o--", color=COLOR["popularity"], markersize=4, label="validation")
        if kept is not None:
            axes.axvline(kept, color=COLOR["muted"], linewidth=1, linestyle=(0, (2, 2)), label="kept")
        axes.set(xlabel="step", ylim=(0, None))
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
        axes.legend(loc="upper right")

    return draw


def checkpoint_curve(points: Sequence[CheckpointPoint], key: CheckpointValue, chosen: int, name: str) -> Draw:
    """Return the plot of one number of every checkpoint (``key``): its metric with the interval, or its loss.

    A ring marks the kept one. The model before training, step 0, is a horizontal line to compare with.
    """

    def draw(axes: Axes) -> None:
        trained = [point for point in points if point["step"]]
        steps, values = [point["step"] for point in trained], [point[key] for point in trained]
        if key == "value":
            low, high = [point["low"] for point in trained], [point["high"] for point in trained]
            axes.vlines(steps, low, high, color=COLOR["trained"], linewidth=3, alpha=0.3)
        axes.plot(steps, values, "o-", color=COLOR["trained"], linewidth=2, markersize=5, label="checkpoints")
        best = next(point for point in trained if point["step"] == chosen)
        axes.plot(chosen, best[key], "o", color=COLOR["trained"], fillstyle="none", markersize=13, markeredgewidth=2,
                  linestyle="none", label=f"kept: step {chosen:,}")  # fmt: skip
        for point in points:
            if not point["step"]:
                axes.axhline(point[key], color=COLOR["base"], linewidth=1.6, linestyle=(0, (5, 2)), label="untrained")
        axes.set(xlabel="step", ylabel=name)
        axes.margins(x=0.08, y=0.14)
        if len(steps) <= _TICKS:
            axes.set_xticks(steps)
        else:
            axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
        axes.legend(loc="upper center", bbox_to_anchor=(0.47, 1.16), ncols=3, columnspacing=1.2)

    return draw


def _smooth(values: Floats) -> Floats:
    """Return the centred moving average over a twentieth of the curve; the window shrinks at the ends."""
    half = len(values) // 40
    total = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    first, last = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    return np.asarray((total[last] - total[first]) / (last - first))


def rate_curve(rates: Mapping[int, float]) -> Draw:
    """Return the plot of the learning rate by step."""

    def draw(axes: Axes) -> None:
        axes.plot(list(rates), list(rates.values()), color=COLOR["trained"], linewidth=2.2)
        axes.set(xlabel="step", ylim=(0, None))
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3), useMathText=False)
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))

    return draw
