"""The colours and dashes of models: names of the page's CSS variables, so that plots follow light and dark."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Look:
    """How one model is drawn; unlike dashes serve readers without colour."""

    variable: str
    """A CSS variable of the page, without its dashes; also the page's class of coloured dots."""
    dash: Any
    """A matplotlib line style."""


_KNOWN = {
    "trained": Look("trained", "solid"),
    "base": Look("base", (0, (5, 2))),
    "popularity": Look("popularity", (0, (3, 1, 1, 1))),
    "random": Look("random", (0, (1, 2))),
    "oracle": Look("oracle", (0, (8, 2, 1, 2))),
}
_OTHERS = (
    Look("other1", (0, (6, 1))),
    Look("other2", (0, (4, 1, 1, 1, 1, 1))),
    Look("other3", (0, (2, 1))),
    Look("other4", (0, (10, 3))),
    Look("other5", (0, (1, 1))),
)


def looks(models: Iterable[str]) -> Mapping[str, Look]:
    """Return the look of each model, in their order; models we do not know share five looks in turn."""
    names = list(models)
    unknown = [name for name in names if name not in _KNOWN]
    others = {name: _OTHERS[place % len(_OTHERS)] for place, name in enumerate(unknown)}
    return {name: _KNOWN.get(name) or others[name] for name in names}
