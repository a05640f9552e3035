"""What a run cost: a table of its stages from their manifests."""

from collections.abc import Mapping
from typing import Any

_STAGES = {
    "data": "Build data",
    "lengths": "Length estimate",
    "items": "Item summaries",
    "users": "User summaries",
    "truncate": "Truncated user summaries",
    "dataset": "Training rows",
    "train": "Training",
    "score": "Scores, trained",
    "score-base": "Scores, base",
    "baselines": "Baselines",
}


def cost_rows(manifests: Mapping[str, Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return {stage, time, memory, calls, cached, read, written} of each finished stage and of the whole.

    Calls and tokens are those of the distinct requests to a model, whether computed in this run or kept from before.
    """
    known = {name: manifests[name] for name in _STAGES if name in manifests}
    others = {name: manifests[name] for name in manifests if name not in _STAGES and name != "evaluate"}
    rows = [_row(_STAGES.get(name, name), manifest) for name, manifest in (known | others).items()]
    if len(rows) > 1:
        parts = [*known.values(), *others.values()]
        total = {"seconds": sum(float(part.get("seconds") or 0) for part in parts), "summary": _total(parts)}
        total |= {
            key: max((part.get(key) or 0 for part in parts), default=0) for key in ("peak_bytes", "peak_gpu_bytes")
        }
        rows.append(_row("Whole run", total))
    return rows


def sharing_lines(manifests: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Say of each scoring stage what sharing left of its tokens and pictures, and where the model had other words."""
    lines = []
    for name in ("score", "score-base"):
        summary = (manifests.get(name) or {}).get("summary") or {}
        parts = [*_shared(summary), *_elsewhere(summary)]
        if parts:
            lines.append(f"{_STAGES[name]}: {'; '.join(parts)}.")
    return lines


def _shared(summary: Mapping[str, Any]) -> list[str]:
    flat, done, least = (summary.get(f"tokens_{kind}") for kind in ("flat", "processed", "least"))
    if not flat or done is None:
        return []
    limit = f", where {least / flat:.0%} is the least" if least else ""
    told = [f"{done:,} tokens processed for prompts of {flat:,} ({done / flat:.0%}{limit})"]
    if summary.get("images_shown"):
        told.append(f"{summary['images_encoded']:,} pictures encoded for {summary['images_shown']:,} shown")
    if summary.get("unshared_rows"):
        told.append(f"{summary['unshared_rows']:,} prompts one by one, because {summary.get('unshared_because', '?')}")
    return told


def _elsewhere(summary: Mapping[str, Any]) -> list[str]:
    if not isinstance(summary.get("answer_mass"), float):
        return []
    told = f"{1 - summary['answer_mass']:.1%} of the probability is outside the answers"
    rather = summary.get("rather_something_else")
    return [f"{told}, and for {rather:,} candidates most of it" if rather else told]


def _row(name: str, manifest: Mapping[str, Any]) -> dict[str, str]:
    summary = manifest.get("summary") or {}
    calls = summary.get("distinct_requests", _sum(summary, "computed", "cached"))
    memory = [_bytes(manifest.get("peak_bytes"), "memory"), _bytes(manifest.get("peak_gpu_bytes"), "GPU")]
    return {
        "stage": name,
        "time": duration(float(manifest.get("seconds") or 0)),
        "memory": ", ".join(filter(None, memory)),
        "calls": _number(calls),
        "cached": _number(summary.get("cached")),
        "read": _number(summary.get("tokens_in")),
        "written": _number(summary.get("tokens_out")),
    }


def _total(parts: list[Mapping[str, Any]]) -> dict[str, int]:
    summaries = [part.get("summary") or {} for part in parts]
    keys = ("distinct_requests", "computed", "cached", "tokens_in", "tokens_out")
    found = {key: [each[key] for each in summaries if isinstance(each.get(key), int)] for key in keys}
    totals = {key: sum(values) for key, values in found.items() if values}
    if "computed" in totals:
        totals["distinct_requests"] = totals["computed"] + totals.get("cached", 0)
    return totals


def _sum(summary: Mapping[str, Any], *keys: str) -> int | None:
    found = [summary[key] for key in keys if isinstance(summary.get(key), int)]
    return sum(found) if found else None


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else ""


def _bytes(value: Any, what: str) -> str:
    if not isinstance(value, int) or not value:
        return ""
    size = f"{value / 2**30:.1f} GiB" if value >= 2**30 else f"{value / 2**20:.0f} MiB"
    return size if what == "memory" else f"{size} {what}"


def duration(seconds: float) -> str:
    """Return seconds as people say them: ``8.8 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"
