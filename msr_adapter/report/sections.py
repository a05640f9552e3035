"""The report's words and figures: from `metrics.json`'s content to what the template shows."""

from collections.abc import Mapping
from typing import Any

from msr_adapter.evaluate.text_tables import short, shown_metrics
from msr_adapter.metrics import label
from msr_adapter.report.user_texts import clip

_SEVERITIES = ("error", "warning", "info")


def headline(metrics: Mapping[str, Any]) -> str:
    """Say in one plain sentence what the trained model does, and what popularity and guessing do."""
    name = _headline_metric(metrics)
    size = " to ".join(dict.fromkeys(str(metrics["candidates"][bound]) for bound in ("smallest", "largest")))
    ours, chance = metrics["models"]["trained"]["metrics"][name]["mean"], metrics["chance"][name]
    rival = metrics["models"].get("popularity")
    users = f"{metrics['users']:,} held-out user{'' if metrics['users'] == 1 else 's'}"
    shown = f"Shown {size} candidates, {_what_is_sought(metrics)}, the trained model"
    if name.startswith("hr@"):
        found = "one of these" if _several(metrics) else "that item"
        first = "first" if name == "hr@1" else f"among its first {name[3:]}"
        beside = f"popularity alone does so for {rival['metrics'][name]['mean']:.0%}, " if rival else ""
        return f"{shown} puts {found} {first} for {ours:.0%} of {users}; {beside}guessing for {chance:.0%}."
    beside = f"popularity alone {rival['metrics'][name]['mean']:.3f}, " if rival else ""
    return f"{shown} reaches {label(name)} {ours:.3f} over {users}; {beside}guessing {chance:.3f}."


def _what_is_sought(metrics: Mapping[str, Any]) -> str:
    """Say what the target is: the headline must not call the published code's target the next item."""
    if metrics["protocol"].get("target") == "most-popular-last":
        return "one of them the latest of the user's most popular items"
    if _several(metrics):
        return "one or more of them items the user really took"
    return "one of them the item the user really took next"


def _several(metrics: Mapping[str, Any]) -> bool:
    return int(metrics["candidates"]["targets"]) > int(metrics["users"])


def _headline_metric(metrics: Mapping[str, Any]) -> str:
    rates = [name for name in metrics["chance"] if name.startswith("hr@")]
    if not rates:
        return str(metrics["primary"])
    return "hr@5" if "hr@5" in rates else rates[len(rates) // 2]


def hit_depth(metrics: Mapping[str, Any]) -> int:
    """Return the k that the headline counts hits at; 5 when no hit rate was asked for."""
    name = _headline_metric(metrics)
    return int(name[3:]) if name.startswith("hr@") else 5


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
        number = f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else ""
        return [(prefix, number or clip(str(value), 300))]
    pairs = []
    for key, inner in value.items():
        pairs += flatten(inner, f"{prefix}: {key}" if prefix else str(key))
    return [(clip(name.replace("_", " "), 120), text) for name, text in pairs]


def smallest_line(metrics: Mapping[str, Any]) -> str:
    """Say which differences this many users can show; nothing where that was not computed."""
    found = metrics.get("smallest_difference") or {}
    if not found:
        return ""
    sizes = ", ".join(f"{value:.3f} to {name}" for name, value in found.items())
    return (
        f"With {metrics['users']:,} users, a two-sided 5% test shows a true difference in {label(metrics['primary'])} "
        f"four times out of five if it is at least {sizes}. Smaller ones may be there and stay unseen."
    )


_CALIBRATION = {"log_loss": "Log loss", "brier": "Brier score", "ece": "Calibration error"}


def calibration_table(metrics: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return {names, rows: [{model, cells}]} of the models with probabilities; None if nothing was asked for."""
    found = metrics.get("calibration") or {}
    names = [name for name in _CALIBRATION if any(name in entry for entry in found.values())]
    if not names:
        return None
    rows = [{"model": model, "cells": [_figure(entry.get(name)) for name in names]} for model, entry in found.items()]
    return {"names": [_CALIBRATION[name] for name in names], "rows": rows}


_BEYOND = {
    "coverage": "share of the catalogue that reaches a top-{k}",
    "gini": "inequality of how often items reach a top-{k}: 0 all alike, 1 one item always",
    "popularity": "mean number of training interactions of a top-{k} item",
    "novelty": "mean self-information of a top-{k} item in bits: rare items have more",
}


def beyond_table(metrics: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what the top-k lists hold, beyond being right: {names, notes, rows: [{model, cells}]}; None if absent.

    One depth is shown, the headline's where there is one; the others are in `metrics.json`.
    """
    found = metrics.get("beyond") or {}
    names = list(dict.fromkeys(name for values in found.values() for name in values))
    depths = list(dict.fromkeys(name.partition("@")[2] for name in names))
    if not depths:
        return None
    depth = str(hit_depth(metrics)) if str(hit_depth(metrics)) in depths else depths[0]
    names = [name for name in names if name.partition("@")[2] == depth]
    rows = [{"model": model, "cells": [_figure(values.get(name)) for name in names]} for model, values in found.items()]
    return {
        "names": [name.capitalize() for name in names],
        "notes": [_beyond_note(name) for name in names],
        "rows": rows,
    }


def _beyond_note(name: str) -> str:
    kind, _, depth = name.partition("@")
    return f"{kind.capitalize()}: {_BEYOND[kind].format(k=depth)}" if kind in _BEYOND else ""


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:,.1f}" if abs(value) >= 10 else f"{value:.3f}"


def run_line(metrics: Mapping[str, Any], config: Mapping[str, Any], counts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what was run, in a few (name, value) pairs: data, model, protocol, candidates, version.

    ``config`` is the resolved pipeline, ``counts`` the data audit's; what they lack is left out.
    """
    train = config.get("train", {})
    model = (train.get("model") or {}).get("path")
    pairs = [
        ("Data", _data_line(config.get("data", {}).get("source", {}), counts)),
        ("Recommender", ", ".join(str(part) for part in (model, train.get("method")) if part)),
        ("Protocol", f"{metrics['protocol']['name']} · {metrics['protocol_digest'][:8]}"),
        ("Candidates", f"{metrics['candidates']['rows']:,} · {metrics['candidates']['digest'][:8]}"),
        ("Seed", str(metrics["seed"])),
        ("Version", f"msr {metrics['versions']['msr']}" if "msr" in metrics["versions"] else ""),
    ]
    return [(name, clip(value, 80)) for name, value in pairs if value]


def _data_line(source: Mapping[str, Any], counts: Mapping[str, Any]) -> str:
    files = [str(source[key]) for key in ("interactions", "pairs", "path", "folder") if source.get(key)]
    names = [str(source.get("kind", "")), *(name.rsplit("/", 1)[-1] for name in files[:1])]
    sizes = [f"{counts[f'{noun}_kept']:,} {noun}" for noun in ("users", "items") if f"{noun}_kept" in counts]
    return ", ".join(filter(None, [*names, *sizes]))


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
