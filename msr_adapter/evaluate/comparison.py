"""Paired comparison: models that were judged on the same users, tested against one of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from msr_adapter.errors import Problem, UserError, did_you_mean, plural
from msr_adapter.evaluate.model_metrics import Judged
from msr_adapter.evaluate.results import FinishedRun
from msr_adapter.metrics import (
    holm,
    paired_values,
    percentile_interval,
    sign_flip_test,
    smallest_difference,
    standard_errors,
)

PERMUTATIONS = 10_000


@dataclass(frozen=True)
class PairedDifference:
    """A model minus the reference in one metric."""

    model: str
    metric: str
    mean: float
    low: float
    high: float
    """Paired bootstrap interval."""
    p: float
    """Two-sided, of the paired sign-flip test."""
    p_holm: float
    """Adjusted for the number of comparisons in the same call."""
    smallest: float | None
    """Smallest true difference that this many users can show; None with one user and where no user differs."""


def compare(
    models: Mapping[str, Judged],
    reference: str,
    metrics: Sequence[str],
    level: float,
    seed: int,
    permutations: int = PERMUTATIONS,
) -> list[PairedDifference]:
    """Compare every model with ``reference`` in every metric, by metric; all were judged on the same users and draws.

    O(models x (permutations x users x metrics + candidates)) time.
    """
    base, others = models[reference], [name for name in models if name != reference]
    values = paired_values(base.result)
    p_values = {}
    for name in others:
        theirs = paired_values(models[name].result)
        gaps = np.stack([theirs[metric] - values[metric] for metric in metrics], axis=1)
        p_values[name] = dict(zip(metrics, sign_flip_test(gaps, permutations, seed).tolist(), strict=True))
    pairs = [(metric, name) for metric in metrics for name in others]
    # All models and metrics of the call are one family: whoever looks at them all may pick any.
    adjusted = holm([p_values[name][metric] for metric, name in pairs])
    smallest: dict[str, dict[str, float]] = {name: {} for name in others}
    if base.result.groups.users > 1:  # one user has no spread
        for name in others:
            errors = standard_errors(models[name].result, base.result, models[name].draws, base.draws, metrics)
            smallest[name] = {metric: smallest_difference(error) for metric, error in errors.items() if error > 0}
    rows = []
    for (metric, name), p_holm in zip(pairs, adjusted.tolist(), strict=True):
        one = models[name]
        low, high = percentile_interval(one.draws[metric] - base.draws[metric], level)
        mean = one.summary[metric]["mean"] - base.summary[metric]["mean"]
        rows.append(
            PairedDifference(name, metric, mean, low, high, p_values[name][metric], p_holm, smallest[name].get(metric))
        )
    return rows


def require_comparable(runs: Mapping[str, FinishedRun]) -> None:
    """Raise one UserError unless all ``runs`` (by label) have one protocol and the same candidate lists."""
    (first, base), *others = runs.items()
    problems = []
    for label, run in others:
        ours, theirs = run.metrics, base.metrics
        if ours["protocol_digest"] != theirs["protocol_digest"]:
            differing = "; ".join(_differing(ours["protocol"], theirs["protocol"])) or "written by another version"
            found = _unlike("protocol", ours["protocol_digest"], theirs["protocol_digest"], first)
            next_step = "Judge both under one protocol: msr evaluate ... --set evaluate.protocol=NAME"
            problems.append(Problem(label, "protocol", f"{found} ({differing})", "one protocol for all", next_step))
        elif ours["candidates"]["digest"] != theirs["candidates"]["digest"]:
            found = _unlike("candidates", ours["candidates"]["digest"], theirs["candidates"]["digest"], first)
            sizes = [f"{plural(metrics['users'], 'user')}, {plural(metrics['candidates']['rows'], 'row')}"
                     for metrics in (ours, theirs)]  # fmt: skip
            next_step = "Give both the same data, split and seed"
            problems.append(
                Problem(label, "candidates", f"{found} ({' here, '.join(sizes)} there)", "the same lists", next_step)
            )
    if problems:
        raise UserError(problems)


def _unlike(what: str, ours: str, theirs: str, first: str) -> str:
    return f"{what} digest {ours[:16]} is not {theirs[:16]} of {first}"


def _differing(ours: Mapping[str, object], theirs: Mapping[str, object], prefix: str = "") -> list[str]:
    """Say which settings differ: ``negatives.count: 20 here, 99 there``."""
    found: list[str] = []
    for key in dict.fromkeys([*ours, *theirs]):
        one, other = ours.get(key), theirs.get(key)
        if key == "name" and not prefix:
            continue  # what a protocol is called changes no number
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            found += _differing(one, other, f"{prefix}{key}.")
        elif one != other:
            here, there = (", ".join(map(str, value)) if isinstance(value, list) else value for value in (one, other))
            found.append(f"{prefix}{key}: {here} here, {there} there")
    return found


def chosen_metrics(asked: Sequence[str], known: Sequence[str], shown: Sequence[str]) -> list[str]:
    """Return the metrics asked for, or those ``shown`` by default. Raises UserError, all unknown names at once."""
    unknown = [
        Problem("--metric", "", f"`{name}`", f"the protocol has {', '.join(known)}", did_you_mean(name, known))
        for name in asked
        if name not in known
    ]
    if unknown:
        raise UserError(unknown)
    return list(dict.fromkeys(asked)) or list(shown)
