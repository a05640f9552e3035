"""How good the inputs are: what the data audit measured, how long rows are, and how the summaries turned out."""

from collections.abc import Iterator, Mapping
from typing import Any

from msr_adapter.errors import plural
from msr_adapter.evaluate.metrics_file import EvaluationFinding
from msr_adapter.report.report_context import Manifests, StageSummary, summary_of

Audit = Mapping[str, Any]
"""The content of `audit.json`; older ones lack keys, and what they lack is left out."""

_HEURISTICS = {
    "popularity": "How many training interactions the item has",
    "recency": "How recent its last interaction is at the time of the test",
    "title_overlap": "Words shared with the titles of the history",
}
_SUMMARIES = {"items": "Item summaries", "users": "User summaries"}
_FAULTS = {
    "repeats": "repeat their prompt",
    "cut": "end at their budget",
    "forgets": "keep nothing of what was known before",
}
_TOO_MANY, _ENOUGH = 0.1, 20
"""Share of summaries with a fault from which it is a finding, if there are this many."""
_ALIKE = 0.8
"""Share of summaries nearly identical to another one from which it is a finding."""


def heuristic_rows(audit: Audit) -> list[dict[str, str]]:
    """Return AUC and GAUC of each heuristic that was measured on the test candidates: {label, auc, gauc}."""
    measured = audit.get("statistics", {}).get("heuristics", {})
    return [
        {"label": label, **{metric: f"{measured[name][metric]:.3f}" for metric in ("auc", "gauc")}}
        for name, label in _HEURISTICS.items()
        if name in measured
    ]


def data_facts(audit: Audit, lengths: StageSummary) -> list[tuple[str, str]]:
    """Return (what, how much) of the log, the test examples, the items and the training rows.

    ``lengths`` is the summary of the stage that estimates them.
    """
    statistics = audit.get("statistics") or {}
    facts = [*_log(statistics), *_tests(statistics), *_items(statistics)]
    if row := lengths.get("row"):
        size = f"median {row['median']:,.0f}, at most {row['max']:,}; the limit is {lengths['cutoff_len']:,}"
        facts.append(("Tokens of a training row, estimated", size))
    return facts


def _log(statistics: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if log := statistics.get("log"):
        sizes = ", ".join(f"{log[noun]:,} {noun}" for noun in ("interactions", "users", "items"))
        yield "Kept", f"{sizes} (density {log['density']:.2%})"
        yield "Interactions per user", _spread(log["per_user"])
        yield "Interactions per item", _spread(log["per_item"])
    if history := statistics.get("history", {}).get("test"):
        yield "History of a test user", _spread(history, " items")
    if (time := statistics.get("time")) and time["days"] is not None:
        yield "Time from first to last", f"{time['days']:,.0f} days"


def _tests(statistics: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if leakage := statistics.get("time_leakage"):
        yield "Training log later than a test target", f"{leakage['mean_share_later']:.0%} on average"
    if filters := statistics.get("filter_leakage"):
        yield "Items that filters keep or drop by what is held out", f"{filters['share_of_items']:.1%}"
    if offer := statistics.get("not_on_offer"):
        yield "Negatives that first appear after the test target", f"{offer['negatives']:.1%}"
    if cold := statistics.get("cold"):
        yield "Never seen in training", f"{cold['targets']:.1%} of test targets, {cold['negatives']:.1%} of negatives"
    if (labels := statistics.get("labels")) and labels["train"]["positives"]:
        yield "Negatives per positive in training", f"{labels['train']['negatives'] / labels['train']['positives']:.3g}"


def _items(statistics: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if titles := statistics.get("titles"):
        same, nearly = titles.get("same", 0.0), titles.get("nearly_same", 0.0)
        yield "Titles", f"{titles['empty']:.1%} empty, {same:.1%} shared with another item, {nearly:.1%} nearly so"
    if images := statistics.get("images"):
        shared = f", {images['shared']:.1%} of them shared with another item" if "shared" in images else ""
        yield "Items with an image", f"{images['with_image']:.1%}{shared}"


def _spread(found: Mapping[str, float], unit: str = "") -> str:
    median, low, high = found["median"], found["5%"], found["95%"]
    return f"median {median:.0f}{unit} (90% between {low:.0f} and {high:.0f})" if low < high else f"{median:.0f}{unit}"


def summary_rows(manifests: Manifests) -> list[dict[str, str]]:
    """Return one row for each stage that asked a model.

    {stage, asked, failed, refused, empty, cut, length, distinct, alike, repeats_share, cut_share, forgets_share}.
    """
    rows = []
    for stage, summary in _asked(manifests).items():
        lengths, cut = summary.get("lengths"), summary.get("cut_by_budget", 0)
        rows.append({
            "stage": _SUMMARIES[stage],
            "asked": f"{summary['requests']:,}",
            "failed": f"{summary.get('failed', 0):,}",
            "refused": f"{summary.get('refused', 0):,}",
            "empty": f"{summary.get('empty_answers', 0):,}",
            "cut": f"{cut:,} ({summary.get('trimmed', 0):,} trimmed)" if cut else "0",
            "length": f"{lengths['median']:,.0f} ({lengths['p5']:,.0f} – {lengths['p95']:,.0f})" if lengths else "",
            "distinct": _share(summary.get("distinctness")),
            "alike": _share(summary.get("near_identical")),
            **{f"{name}_share": _share((summary.get("faults") or {}).get(name)) for name in _FAULTS},
        })  # fmt: skip
    return rows


def summary_findings(manifests: Manifests) -> list[EvaluationFinding]:
    """Return failed requests and items with nothing to describe, by name, and summaries that are all alike."""
    found: list[tuple[str, str]] = []
    for stage, summary in _asked(manifests).items():
        if failures := summary.get("failures"):
            named = "; ".join(f"`{one['id']}` ({one['reason']})" for one in failures)
            more = summary["failed"] - len(failures)
            asked = plural(summary["requests"], "request")
            text = f"{_SUMMARIES[stage]}: {summary['failed']:,} of {asked} failed: {named}"
            text += f", and {more} more" if more else ""
            found.append(("warning", f"{text}. All are in {stage}/failures.json; the next run asks them again."))
        if (alike := summary.get("near_identical") or 0) > _ALIKE:
            text = f"{_SUMMARIES[stage]}: {alike:.0%} are nearly identical to another one"
            found.append(("warning", f"{text}. They hardly tell users or items apart: read some of them."))
        faults = {name: share for name, share in (summary.get("faults") or {}).items() if (share or 0) > _TOO_MANY}
        if faults and summary.get("distinct_requests", 0) >= _ENOUGH:
            told = " and ".join(f"{share:.0%} {_FAULTS[name]}" for name, share in faults.items())
            step = "A small model may follow `templates: small` better, or need a larger max_new_tokens."
            found.append(("warning", f"{_SUMMARIES[stage]}: {told}. {step}"))
        untitled, bare = summary.get("untitled", ()), summary.get("bare", ())
        for names, count, what in (
            (untitled, summary.get("untitled_items", len(untitled)), "no title"),
            (bare, summary.get("bare_items", len(bare)), "neither title, description nor image, and no summary"),
        ):
            if names:
                which = ", ".join(f"`{name}`" for name in names) + (" and others" if count > len(names) else "")
                found.append(("info", f"{plural(count, 'item')} {'have' if count > 1 else 'has'} {what}: {which}."))
    return [{"severity": severity, "text": text} for severity, text in found]


def _asked(manifests: Manifests) -> dict[str, StageSummary]:
    summaries = {stage: summary_of(manifests, stage) for stage in _SUMMARIES}
    return {stage: summary for stage, summary in summaries.items() if "requests" in summary}


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"
