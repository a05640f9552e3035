"""The report's plots: inline SVG whose colours are the page's CSS variables, so that they follow light and dark."""

import io
import re
from collections.abc import Callable, Mapping
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from msr_adapter.evaluate.history import History
from msr_adapter.evaluate.judging import Judged, label

# Placeholder colours: each becomes a CSS variable after drawing. Models differ in dash too, for readers without colour.
_INK, _MUTED, _GRID = "#010101", "#020202", "#030303"
_MODELS = {
    "trained": ("#040404", "solid"),
    "base": ("#050505", (0, (5, 2))),
    "popularity": ("#060606", (0, (3, 1, 1, 1))),
    "random": ("#070707", (0, (1, 2))),
    "oracle": ("#080808", (0, (8, 2, 1, 2))),
}
_VARIABLES = {_INK: "ink", _MUTED: "muted", _GRID: "line", **{color: name for name, (color, _) in _MODELS.items()}}

_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "msr",  # the same numbers give the same bytes
    "font.size": 11,
    "text.color": _INK,
    "axes.edgecolor": _MUTED,
    "axes.labelcolor": _MUTED,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.8,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "legend.frameon": False,
    "legend.fontsize": 10,
}


def draw_svg(name: str, draw: Callable[[Axes], None], size: tuple[float, float] = (4.7, 3.2)) -> str:
    """Return the SVG element of one plot of ``size`` inches; ``name`` keeps its ids apart from the other plots'."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.add_subplot())
        target = io.StringIO()
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(target, format="svg", transparent=True, metadata=metadata)
    return _inline(target.getvalue(), name)


def _inline(svg: str, name: str) -> str:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<(metadata|style)\b.*?</\1>", "", svg, flags=re.DOTALL)  # a style would reach the whole page
    svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
    svg = re.sub(r"font: (?:bold )?([\d.]+px)[^;\"]*", r"font-size: \1", svg)
    svg = re.sub(r"font-family: [^;\"]*;?", "", svg)  # the page's own font
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    for color, variable in _VARIABLES.items():
        svg = svg.replace(color, f"var(--{variable})")
    return svg.replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1)


def hit_rate_curve(models: Mapping[str, Judged]) -> Callable[[Axes], None]:
    """HR@k of every model against k."""

    def draw(axes: Axes) -> None:
        for name, judged in models.items():
            result = judged.result
            depths = np.arange(1, min(int(result.groups.sizes.max()), 50) + 1)
            rates = [result.at("hr", int(k)).mean() for k in depths]
            color, dash = _MODELS.get(name, (_MUTED, "solid"))
            axes.plot(
                depths, rates, color=color, linestyle=dash, linewidth=2.4 if name == "trained" else 1.6, label=name
            )
        axes.set(xlabel="k", ylim=(0, 1.02), xlim=(1, None))
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
        axes.legend(loc="lower right")

    return draw


def intervals(models: Mapping[str, Judged], metric: str, chance: float) -> Callable[[Axes], None]:
    """One metric of every model with its interval, beside chance."""

    def draw(axes: Axes) -> None:
        axes.axvline(chance, color=_MUTED, linewidth=1, linestyle=(0, (2, 2)))
        for row, (name, judged) in enumerate(models.items()):
            value = judged.summary[metric]
            color = _MODELS.get(name, (_MUTED, ""))[0]
            axes.plot([value["low"], value["high"]], [row, row], color=color, linewidth=3, solid_capstyle="round")
            axes.plot(value["mean"], row, "o", color=color, markersize=8)
            axes.annotate(f"{value['mean']:.3f}", (value["mean"], row), (0, 9), textcoords="offset points", ha="center")
        axes.set(
            yticks=range(len(models)), yticklabels=list(models), ylim=(len(models) - 0.5, -0.7), xlabel=label(metric)
        )
        axes.margins(x=0.1)
        axes.grid(visible=False, axis="y")

    return draw


def score_distribution(scores: npt.NDArray[np.float64], labels: npt.NDArray[np.int8]) -> Callable[[Axes], None]:
    """Densities of the trained model's log-odds of Yes for true items and for negatives."""

    def draw(axes: Axes) -> None:
        finite = scores[np.isfinite(scores)]
        low, high = np.quantile(finite, [0.002, 0.998]) if len(finite) else (0.0, 1.0)
        bars = int(np.clip(2 * np.sqrt(labels.sum()), 8, 40))
        edges = np.linspace(low - 1e-6, high + 1e-6, bars + 1)
        for value, name, color in ((1, "true item", _MODELS["trained"][0]), (0, "negatives", _MODELS["popularity"][0])):
            heights = _density(np.clip(scores[labels == value], low, high), edges)
            axes.stairs(heights, edges, fill=True, color=color, alpha=0.3)
            axes.stairs(heights, edges, color=color, linewidth=1.6, label=name)
        axes.set(xlabel="log-odds of Yes", yticks=[])
        axes.margins(y=0.3)  # room for the legend
        axes.spines["left"].set_visible(False)
        axes.legend(loc="upper right")

    return draw


def _density(values: npt.NDArray[np.float64], edges: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    counts = np.histogram(values, edges)[0].astype(np.float64)
    return np.asarray(counts / max(counts.sum(), 1) / np.diff(edges))


def loss_curve(history: History) -> Callable[[Axes], None]:
    """Training loss by step, smoothed, with the validation loss where there is one."""

    def draw(axes: Axes) -> None:
        steps, loss = np.array(list(history.loss)), np.array(list(history.loss.values()))
        color = _MODELS["trained"][0]
        if len(steps):
            axes.plot(steps, loss, color=color, linewidth=1, alpha=0.35)
            axes.plot(steps, _smooth(loss), color=color, linewidth=2.2, label="training")
        if history.validation:
            points = (list(history.validation), list(history.validation.values()))
            axes.plot(*points, "o--", color=_MODELS["popularity"][0], markersize=4, label="validation")
        axes.set(xlabel="step", ylim=(0, None))
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
        axes.legend(loc="upper right")

    return draw


def _smooth(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Centred moving average over a twentieth of the curve; the window shrinks at the ends."""
    half = len(values) // 40
    total = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    first, last = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    return np.asarray((total[last] - total[first]) / (last - first))
