"""The report's words and figures: from `metrics.json`'s content to what the template shows."""

from collections.abc import Mapping
from typing import Any

from msr_adapter.evaluate.cases import clip
from msr_adapter.evaluate.judging import label
from msr_adapter.evaluate.tables import short, shown_metrics

_SEVERITIES = ("error", "warning", "info")


def headline(metrics: Mapping[str, Any]) -> str:
    """Say in one plain sentence what the trained model does, and what popularity and guessing do."""
    name = _headline_metric(metrics)
    size = " to ".join(dict.fromkeys(str(metrics["candidates"][bound]) for bound in ("smallest", "largest")))
    ours, chance = metrics["models"]["trained"]["metrics"][name]["mean"], metrics["chance"][name]
    rival = metrics["models"].get("popularity")
    users = f"{metrics['users']:,} held-out users"
    shown = f"Shown {size} candidates, one of them the item the user really took next, the trained model"
    if name.startswith("hr@"):
        first = "first" if name == "hr@1" else f"among its first {name[3:]}"
        beside = f"popularity alone does so for {rival['metrics'][name]['mean']:.0%}, " if rival else ""
        return f"{shown} puts that item {first} for {ours:.0%} of {users}; {beside}guessing for {chance:.0%}."
    beside = f"popularity alone {rival['metrics'][name]['mean']:.3f}, " if rival else ""
    return f"{shown} reaches {label(name)} {ours:.3f} over {users}; {beside}guessing {chance:.3f}."


def _headline_metric(metrics: Mapping[str, Any]) -> str:
    rates = [name for name in metrics["chance"] if name.startswith("hr@")]
    if not rates:
        return str(metrics["primary"])
    return "hr@5" if "hr@5" in rates else rates[len(rates) // 2]


def context_line(metrics: Mapping[str, Any]) -> str:
    """Say how much of the possible was reached, where the possible is known; else nothing."""
    share = metrics["oracle_lift_share"]
    if share is None:
        return ""
    name = label(metrics["primary"])
    return f"In {name}, that is {share:.0%} of the way from chance to what the shop's true tastes achieve."


def tiles(metrics: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the three to five numbers that stand out: {label, value, note}."""
    ours, primary, share = metrics["models"]["trained"]["metrics"], metrics["primary"], metrics["oracle_lift_share"]
    shown = [
        (f"{label(name)}, trained", f"{ours[name]['mean']:.3f}", _range(ours[name]))
        for name in dict.fromkeys([primary, _headline_metric(metrics)])
    ]
    if gap := metrics["differences"].get("popularity"):
        note = f"{gap['low']:+.3f} to {gap['high']:+.3f}, paired"
        shown.append((f"{label(primary)} over popularity", f"{gap['mean']:+.3f}", note))
    if share is not None:
        shown.append(("Of the oracle's lift", f"{share:.0%}", f"{label(primary)} over chance"))
    shown.append(("Test users", f"{metrics['users']:,}", f"{metrics['candidates']['rows']:,} candidates ranked"))
    return [{"label": name, "value": value, "note": note} for name, value, note in shown]


def _range(value: Mapping[str, float]) -> str:
    return f"{short(value['low'])} – {short(value['high'])}"


def rows(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of the metric table: {label, cells: {model, mean, range}, chance}."""
    shown = []
    for name in shown_metrics(metrics):
        values = {model: entry["metrics"][name] for model, entry in metrics["models"].items()}
        cells = [
            {"model": model, "mean": f"{value['mean']:.3f}", "range": _range(value)} for model, value in values.items()
        ]
        shown.append({"label": label(name), "cells": cells, "chance": f"{metrics['chance'][name]:.3f}"})
    return shown


def findings(found: list[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Order by severity; a severity we do not know is shown as info, never dropped."""
    known = [(_severity(finding), clip(str(finding.get("text", "")), 2000)) for finding in found]
    known.sort(key=lambda row: _SEVERITIES.index(row[0]))
    return [{"severity": severity, "text": text} for severity, text in known]


def _severity(finding: Mapping[str, Any]) -> str:
    severity = str(finding.get("severity", "info"))
    return severity if severity in _SEVERITIES else "info"


def flatten(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Return nested counts as (``outer: inner``, text) pairs."""
    if not isinstance(value, Mapping):
        return [(prefix, f"{value:,}" if isinstance(value, int | float) else clip(str(value), 300))]
    pairs = []
    for key, inner in value.items():
        pairs += flatten(inner, f"{prefix}: {key}" if prefix else str(key))
    return [(clip(name.replace("_", " "), 120), text) for name, text in pairs]


def facts(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what identifies the run, as (name, value) pairs."""
    protocol, candidates = metrics["protocol"], metrics["candidates"]
    mass = {name: model["answer_mass"] for name, model in metrics["models"].items() if "answer_mass" in model}
    return [
        ("Pipeline", metrics["pipeline"]),
        ("Seed", str(metrics["seed"])),
        ("Protocol", f"{protocol['name']} (digest {metrics['protocol_digest'][:16]})"),
        ("Candidates", f"{candidates['rows']:,} rows (digest {candidates['digest'][:16]})"),
        ("Probability on Yes and No", ", ".join(f"{name} {value:.3f}" for name, value in mass.items())),
        ("Users with a tied true item", f"{metrics['models']['trained']['tied_users']:.1%}"),
        ("Versions", ", ".join(f"{name} {version}" for name, version in metrics["versions"].items()) or "not recorded"),
    ]
