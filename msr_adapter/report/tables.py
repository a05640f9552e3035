"""The report's tables of slices: which metric and which models a slice is seen by."""

from collections.abc import Mapping
from typing import Any

from msr_adapter.evaluate.text_tables import short
from msr_adapter.metrics import label
from msr_adapter.report.user_texts import clip

_PREFERRED = ("gauc", "ndcg@10", "ndcg@5", "hr@5")
"""Metrics that every user has, for slices without the primary one."""
_PLOTTED = 3


def slice_metric(cut: Mapping[str, Any], primary: str) -> str | None:
    """Return the metric that all groups of ``cut`` have: the primary one if they do; None without any."""
    named = [set(values) for group in cut["groups"] for values in group["models"].values()]
    common = set.intersection(*named) if named else set()
    preferred = next((name for name in (primary, *_PREFERRED) if name in common), None)
    return preferred or min(common, default=None)


def compared_models(cut: Mapping[str, Any], metrics: Mapping[str, Any]) -> list[str]:
    """Return the models worth drawing: trained, popularity, and the best other one that could be used."""
    there = {name for group in cut["groups"] for name in group["models"]}
    primary = metrics["primary"]
    ranked = sorted(metrics["models"], key=lambda name: -metrics["models"][name]["metrics"][primary]["mean"])
    wanted = dict.fromkeys(["trained", "popularity", *(name for name in ranked if name not in ("oracle", "random"))])
    return [name for name in wanted if name in there][:_PLOTTED]


def slice_rows(cut: Mapping[str, Any], metric: str | None) -> dict[str, Any]:
    """Return the table of one slice: {name, metric, models, rows: [{value, users, cells: [{mean, range}]}]}."""
    models = list(dict.fromkeys(name for group in cut["groups"] for name in group["models"]))
    rows = [
        {
            "value": clip(str(group["value"]), 60),
            "users": f"{group['users']:,}{', few' if group.get('small') else ''}",
            "cells": [_cell(group["models"].get(name, {}).get(metric)) for name in models],
        }
        for group in cut["groups"]
    ]
    return {"name": cut["name"], "metric": label(metric or ""), "models": models, "rows": rows}


def _cell(value: Mapping[str, float] | None) -> dict[str, str]:
    if value is None:
        return {"mean": "–", "range": ""}
    return {"mean": f"{value['mean']:.3f}", "range": f"{short(value['low'])} – {short(value['high'])}"}
