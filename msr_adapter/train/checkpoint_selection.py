"""Which checkpoint is kept: each is judged by how it ranks, in the order of training.

`selection.json`::

    {"metric", "users": validation users asked about, "candidates": theirs,
     "points": [{"step", "value", "low", "high": interval over users, "loss": validation loss}], step 0 = untrained,
     "chosen": step, "rule": how, "highest": step, "error": standard error of its value,
     "loss": the chosen one's validation loss, "reason", "stopped": step at which training ended early, or null,
     "findings"}
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msr_adapter.config.schema import SelectionConfig
from msr_adapter.errors import plural
from msr_adapter.metrics import Judgement
from msr_adapter.progress import Reporter

Judge = Callable[[Path | None, Reporter], Judgement]
"""Judges the weights in a folder; None = the model before training."""
Points = Mapping[int, Judgement]
"""Step -> what its weights are worth; step 0 is the model before training."""

_QUIET = Reporter(quiet=True)


@dataclass
class Chooser:
    """Judges checkpoints, chooses the best, and tells when none of the last few was better."""

    selection: SelectionConfig
    judge: Judge
    reporter: Reporter
    points: dict[int, Judgement] = field(default_factory=dict)
    waited: float = 0.0
    """Seconds for which the trainer waited."""

    def look_at(self, checkpoints: Mapping[int, Path | None], *, aside: bool = False) -> None:
        """Judge those of ``checkpoints`` that are not judged yet, up to the one at which training may stop.

        ``aside``: another bar is on the screen.
        """
        for step, folder in sorted(checkpoints.items()):
            if step in self.points or self.exhausted():
                continue
            started = time.monotonic()
            found = self.points[step] = self.judge(folder, _QUIET if aside else self.reporter)
            self.waited += time.monotonic() - started if aside else 0
            what = f"checkpoint {step}" if step else "untrained"
            self.reporter.note(
                f"  {what}: {self.selection.metric} {found.value:.4f} ({found.low:.4f} to {found.high:.4f}) on "
                f"{plural(found.users, 'validation user')}, loss {found.loss:.4f}"
            )

    def exhausted(self) -> bool:
        """Return whether the last `selection.patience` checkpoints, or more, were no better than the best one."""
        trained = sorted(step for step in self.points if step)
        if self.selection.patience is None or not trained:
            return False
        return sum(step > best(self.points) for step in trained) >= self.selection.patience

    def outcome(self, last: int, planned: int) -> dict[str, Any]:
        """Return `selection.json`'s content after a training that ended at step ``last`` of ``planned``."""
        rule = self.selection.rule
        chosen, some = choose(self.points, rule), next(iter(self.points.values()))
        points = [{"step": step, "value": p.value, "low": p.low, "high": p.high, "loss": p.loss}
                  for step, p in sorted(self.points.items())]  # fmt: skip
        return {
            "metric": self.selection.metric, "users": some.users, "candidates": some.candidates, "points": points,
            "chosen": chosen, "rule": rule, "highest": best(self.points),
            "error": self.points[best(self.points)].error, "loss": self.points[chosen].loss,
            "reason": self._reason(chosen, last, planned),
            "stopped": last if last < planned else None, "findings": _findings(self.points, self.selection.metric),
        }  # fmt: skip

    def _reason(self, chosen: int, last: int, planned: int) -> str:
        """Return the sentence that says why ``chosen`` was chosen, and why training ended early if it did."""
        trained, highest = sorted(step for step in self.points if step), best(self.points)
        top, metric = self.points[highest], self.selection.metric
        equal = [step for step in trained if self.points[step].value == top.value]
        if chosen == highest:
            text = f"highest {metric} of {plural(len(trained), 'checkpoint')}"
            text += f"; the earliest of {len(equal)} with that value" if len(equal) > 1 else ""
        else:
            text = (f"earliest of {plural(len(trained), 'checkpoint')} within one standard error ({top.error:.4f}) of "
                    f"the highest {metric}, {top.value:.4f} at checkpoint {highest}")  # fmt: skip
        if last < planned:
            text += (
                f"; training stopped at step {last} of {planned}, after {self.selection.patience} without a better one"
            )
        return text


def best(points: Points) -> int:
    """Return the step of the highest value, the earliest among equals; never the untrained model."""
    return max((step for step in points if step), key=lambda step: (points[step].value, -step))


def choose(points: Points, rule: str) -> int:
    """Return the step that is kept by ``rule`` (`train.selection.rule`); never the untrained model.

    The one-standard-error rule (Breiman et al., "Classification and Regression Trees", 1984): of those that cannot be
    told from the highest the earliest, which has fitted the training rows least.
    """
    highest = best(points)
    if rule == "highest":
        return highest
    bar = points[highest].value - points[highest].error
    return min(step for step in points if step and points[step].value >= bar)


def _findings(points: Points, metric: str) -> list[dict[str, str]]:
    chosen = best(points)
    trained = [points[step].value for step in points if step]
    if len(trained) > 1 and len(set(trained)) == 1:
        text = (
            f"{metric} is {trained[0]:.3f} for every checkpoint: it does not tell them apart, and the first was kept."
        )
        return [{"severity": "warning", "text": text}]
    if 0 not in points or points[chosen].value > points[0].value:
        return []
    text = (f"Training did not help: on the validation users, no checkpoint reaches a higher {metric} than the "
            f"untrained model ({points[chosen].value:.3f} against {points[0].value:.3f}).")  # fmt: skip
    return [{"severity": "warning", "text": text}]
