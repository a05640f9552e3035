"""How plots look: the colour and dash of each model, and inline SVG drawn with the page's own colours.

Colours are names of the page's CSS variables, so that plots follow light and dark, screen and paper.
"""

import io
import re
from collections.abc import Callable, Iterable, Mapping
from html import escape
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from msr_adapter.evaluate.baselines.catalogue import BASELINES, Look

_KNOWN = {"trained": Look("trained", "solid"), "hybrid": Look("ink", (0, (12, 2)))} | {
    row.name: row.look for row in BASELINES
}
_OTHERS = (
    Look("other1", (0, (6, 1))),
    Look("other2", (0, (4, 1, 1, 1, 1, 1))),
    Look("other3", (0, (2, 1))),
    Look("other4", (0, (10, 3))),
    Look("other5", (0, (1, 1))),
    Look("other6", (0, (2, 2, 6, 2))),
)


def looks(models: Iterable[str]) -> Mapping[str, Look]:
    """Return the look of each model, in their order; other models share six looks in turn."""
    names = list(models)
    unknown = [name for name in names if name not in _KNOWN]
    others = {name: _OTHERS[place % len(_OTHERS)] for place, name in enumerate(unknown)}
    return {name: _KNOWN.get(name) or others[name] for name in names}


Draw = Callable[[Axes], None]
SIZE = (4.7, 3.2)
"""Inches of a plot."""

_NAMES = ("ink", "muted", "line", "trained", "base", "popularity", "random", "oracle",
          "other1", "other2", "other3", "other4", "other5", "other6")  # fmt: skip
COLOR = {name: f"#{number:02x}{number:02x}{number:02x}" for number, name in enumerate(_NAMES, start=1)}
"""CSS variable -> the stand-in that matplotlib draws with: it accepts no variables, so these replace it afterwards."""

_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text, in the font of the page
    "svg.hashsalt": "msr",  # the same numbers give the same bytes
    "font.size": 11,
    "text.color": COLOR["ink"],
    "axes.edgecolor": COLOR["muted"],
    "axes.labelcolor": COLOR["muted"],
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": COLOR["line"],
    "grid.linewidth": 0.8,
    "xtick.color": COLOR["muted"],
    "ytick.color": COLOR["muted"],
    "legend.frameon": False,
    "legend.fontsize": 10,
    "text.parse_math": False,  # a model or slice called "$x$" is called so
}


def draw_svg(name: str, label: str, draw: Draw, size: tuple[float, float] = SIZE) -> str:
    """Return the SVG element of one plot of ``size`` inches, which screen readers announce as ``label``.

    ``name`` keeps its ids apart from those of other plots. It has no style attribute: the page's policy forbids them.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.add_subplot())
        target = io.StringIO()
        # Matplotlib would write the date and its version, which change without the numbers.
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(target, format="svg", transparent=True, metadata=metadata)
    return _inline(target.getvalue(), name, label)


def _inline(svg: str, name: str, label: str) -> str:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<(metadata|style)\b.*?</\1>", "", svg, flags=re.DOTALL)  # a style would reach the whole page
    # Without a size of its own the plot is as wide as its place in the page.
    svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
    svg = re.sub(r' style="([^"]*)"', _as_attributes, svg)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    for variable, color in COLOR.items():
        svg = svg.replace(color, f"var(--{variable})")
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1)


def _as_attributes(style: re.Match[str]) -> str:
    """Turn declarations into presentation attributes; the font family is left to the page."""
    found = dict(part.split(":", 1) for part in style[1].split(";") if ":" in part)
    declared = {key.strip(): value.strip() for key, value in found.items()}
    if (font := declared.pop("font", None)) and (size := re.search(r"[\d.]+px", font)):
        declared["font-size"] = size[0]
    declared.pop("font-family", None)
    return "".join(f' {key}="{value}"' for key, value in declared.items())
