"""From scores to numbers: every model under one protocol, on the same candidates and users."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from msr_adapter.arrays import Floats
from msr_adapter.config.schema import ProtocolConfig
from msr_adapter.errors import StageError
from msr_adapter.evaluate.baselines.catalogue import BASELINES, Baseline
from msr_adapter.evaluate.candidates import HeldOut
from msr_adapter.evaluate.metrics_file import EvaluationFinding, Interval
from msr_adapter.files import digest
from msr_adapter.metrics import (
    GroupMetrics,
    crossed_mean,
    evaluate_groups,
    label,
    largest_value,
    metric_intervals,
    paired_values,
)


@dataclass(frozen=True)
class Judged:
    """One model's metrics."""

    result: GroupMetrics
    values: dict[str, Floats]
    """Metric -> values (users,) whose mean it is (`metrics.paired_values`)."""
    summary: dict[str, Interval]
    trainings: dict[str, Floats] = field(default_factory=dict)
    """Of a model that was trained several times: metric -> values (trainings, users); ``values`` are their means then,
    ``summary`` covers users and trainings, and ``result`` is the first training's."""


def judge(protocol: ProtocolConfig, held_out: HeldOut, scores: Floats) -> Judged:
    """Evaluate one model's ``scores`` (n,). Raises StageError on candidate lists that cannot be judged."""
    try:
        result = evaluate_groups(scores, held_out.labels, held_out.offsets, protocol.ranking, protocol.k)
    except ValueError as error:
        raise StageError(
            f"the test candidates cannot be judged: {error}", next_step="run again with `--force data`"
        ) from error
    values = paired_values(result)
    return Judged(result, values, summarise(result, values, protocol.confidence.level))


def judge_trainings(protocol: ProtocolConfig, held_out: HeldOut, scores: Sequence[Floats]) -> Judged:
    """Evaluate a model by the ``scores`` (n,) of each of its trainings; one training is `judge`'s, bit for bit."""
    first, *others = [judge(protocol, held_out, one) for one in scores]
    if not others:
        return first
    trainings = {name: np.stack([one.values[name] for one in (first, *others)]) for name in first.values}
    values = {name: found.mean(axis=0) for name, found in trainings.items()}
    level, summary = protocol.confidence.level, {}
    over_users = metric_intervals(first.result, values, level)
    for name, found in trainings.items():
        # The mean of the metric itself: of a pooled AUC, the users' parts have it but for rounding.
        mean = float(np.mean([one.summary[name]["mean"] for one in (first, *others)]))
        low, high = crossed_mean(found).widened(over_users[name], level)
        most = largest_value(name, int(first.result.groups.counts.max()))
        summary[name] = Interval(mean=mean, low=max(low, 0.0), high=min(high, most))
    return Judged(first.result, values, summary, trainings)


def summarise(result: GroupMetrics, values: Mapping[str, Floats], level: float) -> dict[str, Interval]:
    """Return metric -> mean and interval over users."""
    ends, means = metric_intervals(result, values, level), result.means()
    return {name: {"mean": means[name], "low": ends[name][0], "high": ends[name][1]} for name in result.names}


def protocol_digest(protocol: Mapping[str, Any]) -> str:
    """Return the digest of a protocol's settings, without those that cannot change a number of the table.

    These are its name, its slices and the paths of files that decide the candidates: those have a digest of their own.
    """
    settings = {key: value for key, value in protocol.items() if key not in ("name", "candidates", "slices")}
    negatives = {key: value for key, value in protocol["negatives"].items() if key != "scores"}
    return digest(settings | {"negatives": negatives})


def chance(protocol: ProtocolConfig, held_out: HeldOut) -> dict[str, float]:
    """Return what a scorer that knows nothing gets, exactly: all candidates tied."""
    scores = np.zeros(held_out.table.num_rows)
    return evaluate_groups(scores, held_out.labels, held_out.offsets, protocol.ranking, protocol.k).means()


def oracle_lift_share(models: Mapping[str, Judged], chances: Mapping[str, float], primary: str) -> float | None:
    """Return the trained model's lift over chance as a share of the oracle's; None without an oracle above chance."""
    if "oracle" not in models:
        return None
    ceiling = models["oracle"].summary[primary]["mean"] - chances[primary]
    return (models["trained"].summary[primary]["mean"] - chances[primary]) / ceiling if ceiling > 0 else None


def tied_share(result: GroupMetrics) -> float:
    """Return the share of users whose target ties with at least one negative."""
    return float(np.mean(result.tied))


def find(
    models: Mapping[str, Judged], gaps: Mapping[str, Interval], mass: Mapping[str, float], primary: str
) -> list[EvaluationFinding]:
    """Return what a reader must know before quoting the numbers, as {severity, text}; severity: warning | info."""
    found: list[EvaluationFinding] = []
    for row in BASELINES:
        beaten = row.must_be_beaten and row.name in gaps
        if beaten and (finding := _not_above(models, gaps[row.name], row, primary)):
            found.append(finding)
    users = len(models["trained"].result.greater)
    if users < 100:
        size = "one test user: an interval over one user means nothing" if users == 1 else f"{users} test users"
        found.append(_finding("info", f"only {size}" + (": read the intervals, not the means" if users > 1 else "")))
    if (tied := tied_share(models["trained"].result)) > 0.01:
        found.append(_finding("info", f"the target ties with another candidate for {tied:.1%} of users"))
    for name, value in mass.items():
        if value < 0.5:
            text = f"{name}: Yes and No together get only {value:.1%} of the probability; it has not learned the format"
            found.append(_finding("warning" if name == "trained" else "info", text))
    return found


def _not_above(
    models: Mapping[str, Judged], gap: Interval, baseline: Baseline, primary: str
) -> EvaluationFinding | None:
    ours, theirs = models["trained"].summary[primary]["mean"], models[baseline.name].summary[primary]["mean"]
    numbers = f"{baseline.label} gives {label(primary)} {theirs:.3f}, the trained model {ours:.3f}"
    if gap["mean"] <= 0:
        return _finding("warning", f"{numbers}: it is not above")
    if gap["low"] <= 0:
        return _finding(
            "info", f"{numbers}: the difference is within the noise ({gap['low']:+.3f} to {gap['high']:+.3f})"
        )
    return None


def _finding(severity: str, text: str) -> EvaluationFinding:
    return {"severity": severity, "text": text[0].upper() + text[1:] + "."}
