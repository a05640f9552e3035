"""The report's sentences and key numbers: from `metrics.json`'s content to what the template shows."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from msr_adapter.errors import plural
from msr_adapter.evaluate.metrics_file import EvaluationFinding, MetricsFile
from msr_adapter.evaluate.text_tables import p_text
from msr_adapter.metrics import label
from msr_adapter.report.tables import about_metric, interval
from msr_adapter.report.training import Tile
from msr_adapter.report.user_texts import clip

_SEVERITIES = ("error", "warning", "info")


def headline(metrics: MetricsFile) -> str:
    """Say what the trained model does, and what popularity and guessing do, in a sentence below the verdict.

    The primary metric and GAUC lead; how often the target is among the first is said in words.
    """
    size = " to ".join(dict.fromkeys(str(metrics["candidates"][bound]) for bound in ("smallest", "largest")))
    users = plural(metrics["users"], "held-out user")
    leading = leading_metrics(metrics)
    text = f"Given {size} candidates, {_the_target(metrics)}, the trained model"
    if leading:
        ours = " and ".join(f"{label(name)} {_mean(metrics, 'trained', name):.3f}" for name in leading)
        text += f" reaches {ours} over {users} ({_beside(metrics, leading, '{:.3f}', '')})"
    rate = _hit_rate(metrics)
    if rate is None:
        return f"{text}."
    found = "one of these" if _several(metrics) else "that item"
    first = "first" if rate == "hr@1" else f"among the first {rate[3:]}"
    who = "" if leading else f" of {users}"
    hits = f"ranks {found} {first} for {_mean(metrics, 'trained', rate):.0%}{who}"
    return f"{text}{'; it' if leading else ''} {hits}; {_beside(metrics, [rate], '{:.0%}', 'for ')}."


def leading_metrics(metrics: MetricsFile) -> list[str]:
    """Return the metrics that stand first: the primary one and GAUC; hit rates are said in words."""
    names = dict.fromkeys([metrics["primary"], "gauc"])
    return [name for name in names if name in metrics["chance"] and not name.startswith("hr@")]


def _mean(metrics: MetricsFile, model: str, name: str) -> float:
    return metrics["models"][model]["metrics"][name]["mean"]


def _beside(metrics: MetricsFile, names: Sequence[str], form: str, word: str) -> str:
    """Return what popularity and guessing reach in ``names``, each number written by ``form`` after ``word``."""
    rival = [_mean(metrics, "popularity", name) for name in names] if "popularity" in metrics["models"] else []
    guess = [metrics["chance"][name] for name in names]
    said = [(who, " and ".join(form.format(value) for value in values))
            for who, values in (("popularity alone", rival), ("guessing", guess)) if values]  # fmt: skip
    return ", ".join(f"{who} {word}{numbers}" for who, numbers in said)


def _the_target(metrics: MetricsFile) -> str:
    """Say what the target is: the headline must not call the published code's target the next item."""
    if metrics["protocol"].get("target") == "most-popular-last":
        return "one of which is the latest of the user's most popular items"
    if _several(metrics):
        return "one or more of which the user really interacted with"
    return "one of which the user really interacted with next"


def _several(metrics: MetricsFile) -> bool:
    return int(metrics["candidates"]["targets"]) > int(metrics["users"])


def _hit_rate(metrics: MetricsFile) -> str | None:
    rates = [name for name in metrics["chance"] if name.startswith("hr@")]
    if not rates:
        return None
    return "hr@5" if "hr@5" in rates else rates[len(rates) // 2]


def hit_depth(metrics: MetricsFile) -> int:
    """Return the k at which the headline counts hits; 5 when no hit rate was asked for."""
    name = _hit_rate(metrics)
    return int(name[3:]) if name else 5


def context_line(metrics: MetricsFile) -> str:
    """Say how much of what is possible was reached, if an oracle tells what is possible; else nothing."""
    share = metrics["oracle_lift_share"]
    if share is None:
        return ""
    name = label(metrics["primary"])
    return f"In {name}, that is {share:.0%} of the way from chance to the true preferences of this synthetic dataset."


def tiles(metrics: MetricsFile) -> list[Tile]:
    """Return the three to five numbers that stand out: the trained model's metrics, what it gains, over whom."""
    ours, primary, share = metrics["models"]["trained"]["metrics"], metrics["primary"], metrics["oracle_lift_share"]
    names = dict.fromkeys([primary, *leading_metrics(metrics), _hit_rate(metrics) or primary])
    shown = [
        Tile(f"{label(name)}, trained", f"{ours[name]['mean']:.3f}", interval(ours[name]), about_metric(name))
        for name in names
    ]
    if share is not None:
        about = f"{label(primary)} above chance, of what the true preferences of this synthetic dataset reach"
        shown.append(Tile("Share of the oracle's lift", f"{share:.0%}", f"{label(primary)} above chance", about))
    elif gap := metrics["differences"].get("popularity"):
        note = f"{gap['low']:+.3f} to {gap['high']:+.3f}, paired; p {p_text(gap['p_adjusted'])}, adjusted"
        shown.append(Tile(f"{label(primary)} over popularity", f"{gap['mean']:+.3f}", note, about_metric(primary)))
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
        f"With {plural(metrics['users'], 'user')}, a two-sided test at the 5% level, adjusted for the "
        f"{plural(len(metrics['differences']), 'comparison')}, detects a true difference in "
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


def date_line(manifests: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the day on which the last stage before this page was finished, as in 29 November 2026."""
    times = [str(manifest["finished"]) for manifest in manifests.values() if manifest.get("finished")]
    try:
        day = max(map(datetime.fromisoformat, times))
    except (ValueError, TypeError):  # none, or what no stage of ours wrote
        return ""
    return f"{day.day} {day:%B %Y}"


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
        ("Primary metric", label(metrics["primary"])),
        ("Candidates", f"{candidates['rows']:,} rows (digest {candidates['digest'][:16]})"),
        ("Probability on Yes and No", ", ".join(f"{name} {value:.3f}" for name, value in mass.items()))
        if mass
        else ("Scores of models", "log-likelihood ratios, no probabilities: calibration is not reported"),
        ("Users whose target is tied", f"{metrics['models']['trained']['tied_users']:.1%}"),
        ("Versions", ", ".join(f"{name} {version}" for name, version in metrics["versions"].items()) or "not recorded"),
    ]
