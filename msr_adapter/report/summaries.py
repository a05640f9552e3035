"""What the report says of the summaries: how they went, and what is odd about them, with names."""

from collections.abc import Mapping
from typing import Any

_STAGES = {"items": "Item summaries", "users": "User summaries"}
_ALIKE = 0.8
"""Share of summaries nearly identical to another from which it is a finding."""

Manifests = Mapping[str, Mapping[str, Any]]


def summary_rows(manifests: Manifests) -> list[dict[str, str]]:
    """Return {stage, asked, failed, declined, empty, cut, length, distinct, alike} of each stage that asked a model."""
    return [_row(_STAGES[stage], summary) for stage, summary in _asked(manifests).items()]


def summary_findings(manifests: Manifests) -> list[dict[str, str]]:
    """Return what a reader must know: failed requests and items without words, by name, and summaries all alike."""
    found = []
    for stage, summary in _asked(manifests).items():
        if failures := summary.get("failures"):
            named = "; ".join(f"`{one['id']}` ({one['reason']})" for one in failures)
            more = summary["failed"] - len(failures)
            text = f"{_STAGES[stage]}: {summary['failed']} of {summary['requests']} requests failed: {named}"
            text += f", and {more} more" if more else ""
            found.append(("warning", f"{text}. All are in {stage}/failures.json; the next run asks them again."))
        if summary.get("near_identical", 0) > _ALIKE:
            text = f"{_STAGES[stage]}: {summary['near_identical']:.0%} are nearly identical to another one"
            found.append(("warning", f"{text}. They can hardly tell users or items apart: read some of them."))
        for key, what in (("untitled", "no title"), ("bare", "neither title, description nor picture, and no summary")):
            if names := summary.get(key):
                count = summary.get(f"{key}_items", len(names))
                which = ", ".join(f"`{name}`" for name in names) + (" and others" if count > len(names) else "")
                found.append(("info", f"{count} item{'s have' if count > 1 else ' has'} {what}: {which}."))
    return [{"severity": severity, "topic": "summaries", "text": text} for severity, text in found]


def _asked(manifests: Manifests) -> dict[str, Mapping[str, Any]]:
    summaries = {stage: manifests.get(stage, {}).get("summary") or {} for stage in _STAGES}
    return {stage: summary for stage, summary in summaries.items() if "requests" in summary}


def _row(name: str, summary: Mapping[str, Any]) -> dict[str, str]:
    lengths, cut = summary.get("lengths") or {}, summary.get("cut_by_budget", 0)
    return {
        "stage": name,
        "asked": f"{summary['requests']:,}",
        "failed": f"{summary.get('failed', 0):,}",
        "declined": f"{summary.get('refused', 0):,}",
        "empty": f"{summary.get('empty_answers', 0):,}",
        "cut": f"{cut:,} ({summary.get('trimmed', 0):,} trimmed)" if cut else "0",
        "length": f"{lengths['median']:,.0f} ({lengths['p5']:,.0f} – {lengths['p95']:,.0f})" if lengths else "",
        "distinct": _share(summary.get("distinctness")),
        "alike": _share(summary.get("near_identical")),
    }


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"
