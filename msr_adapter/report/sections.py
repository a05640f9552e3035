"""The report's sentences and key numbers: from `metrics.json`'s content to what the template shows."""

from collections.abc import Mapping, Sequence
from typing import Any

from msr_adapter.errors import plural
from msr_adapter.evaluate.metrics_file import EvaluationFinding, MetricsFile
from msr_adapter.metrics import label
from msr_adapter.report.tables import interval
from msr_adapter.report.training import Tile
from msr_adapter.report.user_texts import clip

_SEVERITIES = ("error", "warning", "info")


def headline(metrics: MetricsFile) -> str:
    """Say in one sentence what the trained model does, and what popularity and guessing do."""
    name = _headline_metric(metrics)
    size = " to ".join(dict.fromkeys(str(metrics["candidates"][bound]) for bound in ("smallest", "largest")))
    ours, chance = metrics["models"]["trained"]["metrics"][name]["mean"], metrics["chance"][name]
    rival = metrics["models"].get("popularity")
    users = plural(metrics["users"], "held-out user")
    shown = f"Given {size} candidates, {_the_target(metrics)}, the trained model"
    if name.startswith("hr@"):
        found = "one of these" if _several(metrics) else "that item"
        first = "first" if name == "hr@1" else f"among the first {name[3:]}"
        beside = f"popularity alone does so for {rival['metrics'][name]['mean']:.0%}, " if rival else ""
        return f"{shown} ranks {found} {first} for {ours:.0%} of {users}; {beside}guessing for {chance:.0%}."
    beside = f"popularity alone {rival['metrics'][name]['mean']:.3f}, " if rival else ""
    return f"{shown} reaches {label(name)} {ours:.3f} over {users}; {beside}guessing {chance:.3f}."


def _the_target(metrics: MetricsFile) -> str:
    """Say what the target is: the headline must not call the published code's target the next item."""
    if metrics["protocol"].get("target") == "most-popular-last":
        return "one of which is the latest of the user's most popular items"
    if _several(metrics):
        return "one or more of which the user really interacted with"
    return "one of which the user really interacted with next"


def _several(metrics: MetricsFile) -> bool:
    return int(metrics["candidates"]["targets"]) > int(metrics["users"])


def _headline_metric(metrics: MetricsFile) -> str:
    rates = [name for name in metrics["chance"] if name.startswith("hr@")]
    if not rates:
        return str(metrics["primary"])
    return "hr@5" if "hr@5" in rates else rates[len(rates) // 2]


def hit_depth(metrics: MetricsFile) -> int:
    """Return the k at which the headline counts hits; 5 when no hit rate was asked for."""
    name = _headline_metric(metrics)
    return int(name[3:]) if name.startswith("hr@") else 5


def context_line(metrics: MetricsFile) -> str:
    """Say how much of what is possible was reached, if an oracle tells what is possible; else nothing."""
    share = metrics["oracle_lift_share"]
    if share is None:
        return ""
    name = label(metrics["primary"])
    return f"In {name}, that is {share:.0%} of the way from chance to the true preferences of this synthetic dataset."


def tiles(metrics: MetricsFile) -> list[Tile]:
    """Return the three to five numbers that stand out."""
    ours, primary, share = metrics["models"]["trained"]["metrics"], metrics["primary"], metrics["oracle_lift_share"]
    shown = [
        Tile(f"{label(name)}, trained", f"{ours[name]['mean']:.3f}", interval(ours[name]))
        for name in dict.fromkeys([primary, _headline_metric(metrics)])
    ]
    if gap := metrics["differences"].get("popularity"):
        note = f"{gap['low']:+.3f} to {gap['high']:+.3f}, paired"
        shown.append(Tile(f"{label(primary)} over popularity", f"{gap['mean']:+.3f}", note))
    if share is not None:
        shown.append(Tile("Share of the oracle's lift", f"{share:.0%}", f"{label(primary)} above chance"))
    rows = f"{plural(metrics['candidates']['rows'], 'candidate')} ranked"
    return [*shown, Tile("Test users", f"{metrics['users']:,}", rows)]


def findings(found: Sequence[Mapping[str, object]]) -> list[EvaluationFinding]:
    """Order by severity; an unknown severity is shown as info, never dropped."""
    known: list[EvaluationFinding] = []
    for finding in found:
        severity = str(finding.get("severity"))
        shown = severity if severity in _SEVERITIES else "info"
        known.append({"severity": shown, "text": clip(str(finding.get("text", "")), 2000)})
    return sorted(known, key=lambda finding: _SEVERITIES.index(finding["severity"]))


def flatten(value: object, prefix: str = "") -> list[tuple[str, str]]:
    """Return nested counts as (``outer: inner``, text) pairs."""
    if not isinstance(value, Mapping):
        number = f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else ""
        return [(prefix, number or clip(str(value), 300))]
    pairs: list[tuple[str, str]] = []
    for key, inner in value.items():
        pairs += flatten(inner, f"{prefix}: {key}" if prefix else str(key))
    return [(clip(name.replace("_", " "), 120), text) for name, text in pairs]


def smallest_line(metrics: MetricsFile) -> str:
    """Say how small a difference this many users can show; nothing where that was not computed."""
    found = metrics.get("smallest_difference") or {}
    if not found:
        return ""
    sizes = ", ".join(f"{value:.3f} to {name}" for name, value in found.items())
    return (
        f"With {plural(metrics['users'], 'user')}, a two-sided test at the 5% level detects a true difference in "
        f"{label(metrics['primary'])} four times out of five if it is at least {sizes}. Smaller differences may exist "
        "without being detected."
    )


def run_line(metrics: MetricsFile, config: Mapping[str, Any], counts: Mapping[str, int]) -> list[tuple[str, str]]:
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


def _data_line(source: Mapping[str, object], counts: Mapping[str, int]) -> str:
    files = [str(source[key]) for key in ("interactions", "pairs", "path", "folder") if source.get(key)]
    names = [str(source.get("kind", "")), *(name.rsplit("/", 1)[-1] for name in files[:1])]
    sizes = [f"{counts[f'{noun}_kept']:,} {noun}" for noun in ("users", "items") if f"{noun}_kept" in counts]
    return ", ".join(filter(None, [*names, *sizes]))


def facts(metrics: MetricsFile) -> list[tuple[str, str]]:
    """Return what identifies the run, as (name, value) pairs."""
    protocol, candidates = metrics["protocol"], metrics["candidates"]
    mass = {name: model["answer_mass"] for name, model in metrics["models"].items() if "answer_mass" in model}
    return [
        ("Pipeline", metrics["pipeline"]),
        ("Seed", str(metrics["seed"])),
        ("Protocol", f"{protocol['name']} (digest {metrics['protocol_digest'][:16]})"),
        ("Candidates", f"{candidates['rows']:,} rows (digest {candidates['digest'][:16]})"),
        ("Probability on Yes and No", ", ".join(f"{name} {value:.3f}" for name, value in mass.items())),
        ("Users whose target is tied", f"{metrics['models']['trained']['tied_users']:.1%}"),
        ("Versions", ", ".join(f"{name} {version}" for name, version in metrics["versions"].items()) or "not recorded"),
    ]
