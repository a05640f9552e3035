"""The metrics of parts of the users: each model in each group, with its own interval."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from msr_adapter.arrays import Floats, Integers
from msr_adapter.config.schema import ProtocolConfig, SliceTablesConfig
from msr_adapter.evaluate.candidates import HeldOut
from msr_adapter.evaluate.judging import primary_metric
from msr_adapter.evaluate.slice_groups import GROUPINGS, UserFacts, table_slices
from msr_adapter.metrics import bootstrap, evaluate_groups, percentile_interval

SMALL = 30
"""Fewer users than this: the group is shown and marked, its interval is not to be trusted."""
_DEPTH = 5


def slice_metrics(
    protocol: ProtocolConfig,
    tables: SliceTablesConfig,
    held_out: HeldOut,
    scores: Mapping[str, Floats],
    facts: UserFacts,
    seed: int,
) -> list[dict[str, Any]]:
    """Return, per slice, its groups with users and every model's metrics in them: mean, low, high.

    A slice that puts all users into one group says nothing new and is left out. The bootstrap is over the group's
    users; AUC is pooled within the group. O(slices x models x a bootstrap of all users).
    """
    slices = [GROUPINGS[name](facts) for name in protocol.slices] + table_slices(tables, facts)
    metrics, depths = sliced_metrics(protocol)
    found = []
    for one in (one for one in slices if len(one.values) > 1):
        groups = []
        for number, value in enumerate(one.values):
            users = np.flatnonzero(one.group == number)
            models = _judge(protocol, metrics, depths, held_out, users, scores, seed)
            groups.append({"value": value, "users": len(users), "small": len(users) < SMALL, "models": models})
        found.append({"name": one.name, "groups": groups})
    return found


def sliced_metrics(protocol: ProtocolConfig) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return the metrics and the one depth that slices show: the protocol's, at 5 or its first k."""
    depth = _DEPTH if _DEPTH in protocol.k else protocol.k[0]
    kept = [name for name in protocol.ranking if name != "recall" or "hr" not in protocol.ranking]
    return tuple(kept), (depth,) if primary_metric(protocol).partition("@")[2] in ("", str(depth)) else protocol.k


def _judge(
    protocol: ProtocolConfig, metrics: Sequence[str], depths: Sequence[int], held_out: HeldOut,
    users: Integers, scores: Mapping[str, Floats], seed: int,
) -> dict[str, dict[str, dict[str, float]]]:  # fmt: skip
    """Return model -> metric -> mean, low, high over ``users`` (rows of the held-out users) alone."""
    starts, sizes = held_out.offsets[users], np.diff(held_out.offsets)[users]
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    rows = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], sizes)
    labels, found = held_out.labels[rows], {}
    for name, values in scores.items():
        result = evaluate_groups(values[rows], labels, offsets, metrics, depths)
        draws = bootstrap(result, protocol.confidence.samples, seed)
        found[name] = {
            metric: dict(zip(("mean", "low", "high"), (mean, *_interval(draws[metric], protocol)), strict=True))
            for metric, mean in result.means().items()
        }
    return found


def _interval(draws: Floats, protocol: ProtocolConfig) -> tuple[float, float]:
    return percentile_interval(draws, protocol.confidence.level)


def say_slices(slices: Sequence[Mapping[str, Any]]) -> str:
    """Say how many slices there are and how many of their groups are small."""
    groups = [group for one in slices for group in one["groups"]]
    small = sum(group["small"] for group in groups)
    marked = f", {small} of them with fewer than {SMALL} users" if small else ""
    return f"Slices: {', '.join(one['name'] for one in slices)} ({len(groups)} groups{marked}); see the report"
