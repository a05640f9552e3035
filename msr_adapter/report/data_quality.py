"""What the data is worth: the audit's statistics and the forecast of the rows' length, as the report shows them."""

from collections.abc import Iterator, Mapping
from typing import Any

Statistics = Mapping[str, Any]

_SHORTCUTS = {
    "popularity": "How often training took the item",
    "recency": "How lately it did, before the moment of the test",
    "title_overlap": "Words shared with the titles of the history",
}


def shortcut_rows(audit: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return AUC and GAUC of each shortcut that was measured: {label, auc, gauc}."""
    measured = audit.get("statistics", {}).get("shortcuts", {})
    return [
        {"label": label, **{metric: f"{measured[name][metric]:.3f}" for metric in ("auc", "gauc")}}
        for name, label in _SHORTCUTS.items()
        if name in measured
    ]


def worth_facts(audit: Mapping[str, Any], forecast: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (what, how much) of the log, the tests, the items and the rows; what was not measured is left out."""
    statistics: Statistics = audit.get("statistics") or {}
    return [*_log(statistics), *_tests(statistics), *_items(statistics), *_rows(forecast)]


def _log(statistics: Statistics) -> Iterator[tuple[str, str]]:
    if log := statistics.get("log"):
        sizes = ", ".join(f"{log[noun]:,} {noun}" for noun in ("interactions", "users", "items"))
        yield "Kept", f"{sizes} (density {log['density']:.2%})"
        yield "Interactions per user", _spread(log["per_user"])
        yield "Interactions per item", _spread(log["per_item"])
    if history := statistics.get("history", {}).get("test"):
        yield "History of a test user", f"{_spread(history)} items"
    if (time := statistics.get("time")) and time["days"] is not None:
        yield "Time from first to last", f"{time['days']:,.0f} days"


def _tests(statistics: Statistics) -> Iterator[tuple[str, str]]:
    if leakage := statistics.get("time_leakage"):
        yield "Training log later than a test target", f"{leakage['mean_share_later']:.0%} on average"
    if cold := statistics.get("cold"):
        yield "Never seen in training", f"{cold['targets']:.1%} of test targets, {cold['negatives']:.1%} of negatives"
    if (labels := statistics.get("labels")) and labels["train"]["positives"]:
        yield "Negatives per positive in training", f"{labels['train']['negatives'] / labels['train']['positives']:.3g}"


def _items(statistics: Statistics) -> Iterator[tuple[str, str]]:
    if titles := statistics.get("titles"):
        parts = {"empty": titles["empty"], "also another item's": titles.get("same", 0.0),
                 "nearly another's": titles.get("nearly_same", 0.0)}  # fmt: skip
        yield "Titles", ", ".join(f"{name} {share:.1%}" for name, share in parts.items())
    if images := statistics.get("images"):
        shared = f", {images['shared']:.1%} of them shared" if "shared" in images else ""
        yield "Items with a picture", f"{images['with_image']:.1%}{shared}"


def _rows(forecast: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if row := forecast.get("row"):
        yield "Tokens of a row, forecast", (f"about {row['median']:,.0f}, at most {row['max']:,} of "
                                            f"{forecast['cutoff_len']:,}")  # fmt: skip


def _spread(found: Mapping[str, float]) -> str:
    low, high = found["5%"], found["95%"]
    return f"{found['median']:.0f} (5 to 95 %: {low:.0f} to {high:.0f})" if low < high else f"{found['median']:.0f}"
