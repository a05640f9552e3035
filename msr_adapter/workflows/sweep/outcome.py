"""What a sweep found: `sweep.json`, a table, a plot, and the best trial as a pipeline of its own."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from os.path import relpath
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from matplotlib.axes import Axes

from msr_adapter.evaluate.text_tables import TextTable
from msr_adapter.files import write_json, write_text
from msr_adapter.metrics import label
from msr_adapter.report.svg import COLOR, draw_svg
from msr_adapter.workflows.sweep.search import Sweep, TrialResult, best_point

CAUTION = (
    "Values are of the validation users who chose the checkpoint and the settings: the best of many is too high. The "
    "search does not look at the test users."
)


@dataclass(frozen=True)
class Outcome:
    """A finished sweep."""

    sweep: Sweep
    results: Sequence[TrialResult]
    """In the order in which they were proposed; at least one has a value."""

    @property
    def best(self) -> TrialResult:
        """The trial of the highest value, the earliest among equals."""
        valued = [result for result in self.results if result.value is not None]
        return max(valued, key=lambda result: (result.value, -result.number))

    @property
    def metric(self) -> str:
        """What trials are compared by."""
        return self.sweep.full.pipeline.train.selection.metric

    @property
    def users(self) -> int:
        """How many validation users judged the best trial."""
        return int(best_point(self.best.run_dir)["users"])

    @property
    def pipeline(self) -> Path:
        """The best trial as a pipeline."""
        return self.sweep.folder / "best.yaml"

    def as_dict(self) -> dict[str, Any]:
        """Return `sweep.json`."""
        trials = [
            {"number": one.number, "settings": dict(one.settings), "value": one.value, "low": one.low, "high": one.high,
             "step": one.step, "failure": one.failure or None, "run": str(one.run_dir)}
            for one in self.results
        ]  # fmt: skip
        return {"pipeline": self.sweep.full.pipeline.name, "metric": self.metric, "users": self.users,
                "best": self.best.number, "best_pipeline": str(self.pipeline), "trials": trials,
                "caution": CAUTION}  # fmt: skip

    def table(self) -> TextTable:
        """Return the trials, the best first, those without a value last."""
        keys = list(self.sweep.space.dimensions)
        ranked = sorted(self.results, key=lambda one: (one.value is None, -(one.value or 0), one.number))
        rows = [
            [
                str(one.number),
                _value(one),
                "" if one.step is None else str(one.step),
                *(_shown(one.settings[k]) for k in keys),
            ]
            for one in ranked
        ]
        title = f"{self.sweep.full.pipeline.name}: {len(rows)} trials, {self.users} validation users"
        return TextTable(title, ["trial", label(self.metric), "checkpoint", *keys], rows, [CAUTION])

    def write(self) -> None:
        """Write `sweep.json`, `sweep.svg` and `best.yaml` into the sweep's folder."""
        write_json(self.sweep.folder / "sweep.json", self.as_dict())
        write_text(self.sweep.folder / "sweep.svg", self._plot())
        write_text(self.pipeline, self._best_yaml())

    def _best_yaml(self) -> str:
        """Return the best trial as a pipeline; it runs in the trial's own folder, whose training is not repeated."""
        full, best = self.sweep.full, self.best
        parent = (
            self.sweep.argument if full.origin.stem == self.sweep.argument else relpath(full.origin, self.sweep.folder)
        )
        tree: dict[str, Any] = {"extends": parent, "name": f"{full.pipeline.name}-best",
                                "run_dir": relpath(best.run_dir, self.sweep.folder)}  # fmt: skip
        resolved = self.sweep.loaded(best.settings).resolved
        for key in (*(each.partition("=")[0] for each in self.sweep.sets), "train.keep", *best.settings):
            _put(tree, key.split("."), _at(resolved, key.split(".")))  # resolved: paths are absolute
        record = {"trials": len(self.results), "metric": self.metric, "users": self.users}
        _put(tree, ["evaluate", "sweep"], record)
        title = f"# The best of {len(self.results)} trials by {label(self.metric)} on {self.users} validation users.\n"
        return title + yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)

    def _plot(self) -> str:
        valued = [
            (one.number, one.value, one.low or 0.0, one.high or 0.0) for one in self.results if one.value is not None
        ]
        numbers, values, lows, highs = (np.asarray(column) for column in zip(*valued, strict=True))

        def draw(axes: Axes) -> None:
            axes.vlines(numbers, lows, highs, color=COLOR["line"])
            axes.plot(numbers, values, "o", color=COLOR["other1"], label="trial")
            axes.step(numbers, np.maximum.accumulate(values), where="post", color=COLOR["trained"], label="best so far")
            axes.set_xlabel("trial")
            axes.set_ylabel(label(self.metric))
            axes.legend(loc="lower right")

        told = f"{label(self.metric)} of {len(valued)} trials, the best {values.max():.3f}"
        return draw_svg("sweep", told, draw, (7.0, 3.6))


def _at(tree: Any, path: Sequence[str]) -> Any:
    for part in path:
        tree = tree[part]
    return tree


def _put(tree: dict[str, Any], path: Sequence[str], value: object) -> None:
    for part in path[:-1]:
        tree = tree.setdefault(part, {})
    tree[path[-1]] = value


def _value(one: TrialResult) -> str:
    if one.value is None:
        return "failed"
    return f"{one.value:.4f} ({one.low:.4f} to {one.high:.4f})"


def _shown(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False).strip('"')
