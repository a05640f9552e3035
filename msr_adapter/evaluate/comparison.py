"""Paired comparisons: models that were judged on the same users, tested against each other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Protocol

import numpy as np

from msr_adapter.arrays import Floats
from msr_adapter.config.schema import ProtocolConfig
from msr_adapter.errors import Problem, UserError, did_you_mean, plural
from msr_adapter.evaluate.metrics_file import Difference, Interval
from msr_adapter.evaluate.results import FinishedRun
from msr_adapter.metrics import (
    ComparisonFamily,
    CrossedMean,
    SignFlips,
    crossed_difference,
    difference_interval,
    holm,
    label,
    sign_flips,
    smallest_difference,
    standard_error,
)


class HasUsersValues(Protocol):
    """A model that was judged: its values user by user, and what they come to."""

    @property
    def values(self) -> Mapping[str, Floats]:
        """Metric -> values (users,) whose mean it is."""

    @property
    def summary(self) -> Mapping[str, Interval]:
        """Metric -> mean and interval."""

    @property
    def trainings(self) -> Mapping[str, Floats]:
        """Metric -> values (trainings, users) of a model that was trained several times; else nothing."""


@dataclass(frozen=True)
class PairedDifference:
    """A model minus the reference in one metric."""

    model: str
    reference: str
    metric: str
    mean: float
    low: float
    high: float
    """Ends of the interval over users, of this difference alone."""
    p: float
    """Two-sided, of the paired sign-flip test, of this difference alone."""
    p_adjusted: float
    """Adjusted for all comparisons among which somebody may pick: see `Comparison`."""
    smallest: float | None
    """Smallest true difference that the adjusted test finds 80% of the time with this many users; None with one user
    and where no user differs, and where trainings count too."""
    trainings: tuple[int, int] = (1, 1)
    """Trainings of the model and of the reference: with more than one, interval and p-values cover these too."""
    needed: int | None = None
    """Trainings of each that a 5% test needs to find this very difference 80% of the time: see
    `CrossedMean.trainings_needed`."""


@dataclass(frozen=True)
class ComparisonPlan:
    """What is compared, settled before a number is seen."""

    metrics: Sequence[str]
    primary: str | None
    """The one of them that is tested first; None: all are equal."""
    level: float
    samples: int
    """Random sign patterns."""
    seed: int

    @staticmethod
    def of(protocol: ProtocolConfig, metrics: Sequence[str], seed: int) -> "ComparisonPlan":
        """Return the plan for some of a protocol's ``metrics``: its primary one comes first where it is among them."""
        primary = protocol.primary_metric if protocol.primary_metric in metrics else None
        return ComparisonPlan(metrics, primary, protocol.confidence.level, protocol.confidence.samples, seed)


@dataclass(frozen=True)
class Comparison:
    """Differences with p-values whose error is controlled.

    In the primary metric, the chance of any false claim is at most 5% over all its comparisons, whatever is true of
    the others. The other metrics are tested together, and only where the primary one shows a difference: their adjusted
    p-value is never below its. So if nothing differs, the chance of any claim at all is at most 5%.
    """

    differences: Sequence[PairedDifference]
    """By metric; those to the reference."""
    primary: str | None
    first: int
    """Comparisons in the primary metric: of all pairs where the reference was chosen by its result."""
    then: int
    """Comparisons in the other metrics."""


def compare(
    models: Mapping[str, HasUsersValues], reference: str, plan: ComparisonPlan, *, chosen: bool = False
) -> Comparison:
    """Compare every model with ``reference`` in every metric of the plan; all were judged on the same users.

    ``chosen``: the reference was picked because of its result (`msr compare --to best`). Whoever does that has looked
    at all pairs, so all are tested. O(samples x (users x models + pairs) x metrics) time.
    """
    others = [name for name in models if name != reference]
    shown = [(name, reference) for name in others]
    # The shown ones first; a pair has no direction for the test.
    tested = shown + [pair for pair in combinations(models, 2) if reference not in pair] if chosen else shown
    return _tested(models, tested, len(shown), plan)


def trained_minus_others(models: Mapping[str, HasUsersValues], plan: ComparisonPlan) -> Comparison:
    """Return the trained model minus every other one."""
    return _tested(models, [("trained", name) for name in models if name != "trained"], len(models) - 1, plan)


def _tested(
    models: Mapping[str, HasUsersValues], pairs: Sequence[tuple[str, str]], shown: int, plan: ComparisonPlan
) -> Comparison:
    """Test all ``pairs`` in all metrics; return the differences of the first ``shown`` of them."""
    columns = {(name, metric): number for number, (name, metric) in enumerate(
        (name, metric) for name in models for metric in plan.metrics)}  # fmt: skip
    values = np.stack([models[name].values[metric] for name, metric in columns], axis=1)
    rows = [(one, other, metric) for metric in plan.metrics for one, other in pairs]
    first = [row for row, (_, _, metric) in enumerate(rows) if metric == plan.primary]
    then = [row for row, (_, _, metric) in enumerate(rows) if metric != plan.primary]
    numbers = [(columns[one, metric], columns[other, metric]) for one, other, metric in rows]
    flips = sign_flips(values, numbers, (first, then), plan.samples, plan.seed)
    crossed = {number: _crossed(models, row) for number, row in enumerate(rows) if _is_crossed(models, row)}
    flips = _with_trainings(flips, crossed, (first, then)) if crossed else flips
    adjusted, critical = _gated(flips, first, then, len(pairs))
    made = [
        _difference(models, rows[row], plan.level, (float(flips.p[row]), adjusted[row], critical[row]))
        for row in range(len(rows))
        if row % len(pairs) < shown
    ]
    made = [_over_trainings(one, models, plan.level) for one in made] if crossed else made
    return Comparison(made, plan.primary, len(first), len(then))


def _is_crossed(models: Mapping[str, HasUsersValues], row: tuple[str, str, str]) -> bool:
    return bool(models[row[0]].trainings or models[row[1]].trainings)


def _crossed(models: Mapping[str, HasUsersValues], row: tuple[str, str, str]) -> CrossedMean:
    """Return the difference over users and trainings; a model that was not repeated is one training."""
    metric = row[2]
    first, second = (one.trainings.get(metric, one.values[metric][None]) for one in (models[row[0]], models[row[1]]))
    return crossed_difference(first, second)


def _with_trainings(
    flips: SignFlips, crossed: Mapping[int, CrossedMean], families: Sequence[Sequence[int]]
) -> SignFlips:
    """Return p-values that cover trainings where there are several; each family is adjusted by Holm's procedure then.

    Signs of users say nothing of other trainings, so the maximum of flipped differences cannot adjust for these.
    """
    p = flips.p.copy()
    for row, found in crossed.items():
        p[row] = max(found.p, p[row])  # what users alone do not show, more trainings do not
    adjusted = [ComparisonFamily(holm(p[np.asarray(rows, np.int64)]), family.critical)
                for rows, family in zip(families, flips.families, strict=True)]  # fmt: skip
    return SignFlips(p, tuple(adjusted))


def _over_trainings(row: PairedDifference, models: Mapping[str, HasUsersValues], level: float) -> PairedDifference:
    """Return a difference with the interval over users and trainings, where there are several."""
    key = (row.model, row.reference, row.metric)
    if not _is_crossed(models, key):
        return row
    found = _crossed(models, key)
    low, high = found.widened((row.low, row.high), level)
    counts = [len(models[name].trainings.get(row.metric, ())) or 1 for name in key[:2]]
    needed = found.trainings_needed()
    return replace(row, low=low, high=high, smallest=None, trainings=(counts[0], counts[1]), needed=needed)


def _gated(
    flips: SignFlips, first: Sequence[int], then: Sequence[int], pairs: int
) -> tuple[dict[int, float], dict[int, float]]:
    """Return row -> adjusted p-value, and row -> standard errors that a difference needs."""
    adjusted: dict[int, float] = {}
    critical: dict[int, float] = {}
    for rows, family in zip((first, then), flips.families, strict=True):
        adjusted |= dict(zip(rows, family.adjusted.tolist(), strict=True))
        critical |= dict.fromkeys(rows, family.critical)
    primary = {row % pairs: adjusted[row] for row in first}
    return {row: max(p, primary.get(row % pairs, 0.0)) for row, p in adjusted.items()}, critical


def _difference(
    models: Mapping[str, HasUsersValues], row: tuple[str, str, str], level: float, test: tuple[float, float, float]
) -> PairedDifference:
    (name, reference, metric), (p, adjusted, critical) = row, test
    one, other = models[name], models[reference]
    low, high = difference_interval(one.values[metric], other.values[metric], level)
    error = standard_error(one.values[metric], other.values[metric])
    smallest = smallest_difference(error, critical) if error > 0 else None
    mean = one.summary[metric]["mean"] - other.summary[metric]["mean"]
    return PairedDifference(name, reference, metric, mean, low, high, p, adjusted, smallest)


def as_difference(row: PairedDifference) -> Difference:
    """Return what `metrics.json` says of a difference."""
    return {"mean": row.mean, "low": row.low, "high": row.high, "p": row.p, "p_adjusted": row.p_adjusted}


def comparison_line(comparison: Comparison) -> str:
    """Say what the adjusted p-values are adjusted for."""
    first, then = (plural(count, "comparison") for count in (comparison.first, comparison.then))
    method = "Holm" if any(max(row.trainings) > 1 for row in comparison.differences) else "max-T"
    if comparison.primary is None or not comparison.then:
        where = f" in {label(comparison.primary)}" if comparison.primary else ""
        return f"p adjusted ({method}) for {first if comparison.first else then}{where}."
    return (
        f"p adjusted ({method}) for {first} in {label(comparison.primary)}, which is tested first, and for {then} in "
        "the other metrics, which count only where it differs."
    )


def require_comparable(runs: Mapping[str, FinishedRun]) -> None:
    """Raise one UserError unless all ``runs`` (by label) have one protocol and the same candidate lists."""
    (first, base), *others = runs.items()
    problems = []
    for name, run in others:
        ours, theirs = run.metrics, base.metrics
        if ours["protocol_digest"] != theirs["protocol_digest"]:
            differing = "; ".join(_differing(ours["protocol"], theirs["protocol"])) or "written by another version"
            found = _unlike("protocol", ours["protocol_digest"], theirs["protocol_digest"], first)
            next_step = "Judge both under one protocol: msr evaluate ... --set evaluate.protocol=NAME"
            problems.append(Problem(name, "protocol", f"{found} ({differing})", "one protocol for all", next_step))
        elif ours["candidates"]["digest"] != theirs["candidates"]["digest"]:
            found = _unlike("candidates", ours["candidates"]["digest"], theirs["candidates"]["digest"], first)
            sizes = [f"{plural(metrics['users'], 'user')}, {plural(metrics['candidates']['rows'], 'row')}"
                     for metrics in (ours, theirs)]  # fmt: skip
            next_step = "Give both the same data, split and seed"
            problems.append(
                Problem(name, "candidates", f"{found} ({' here, '.join(sizes)} there)", "the same lists", next_step)
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
