"""The metrics of parts of the users: each model in each group, with its own interval."""

from collections.abc import Mapping, Sequence

import numpy as np

from msr_adapter.arrays import Floats, Integers, ranges
from msr_adapter.config.schema import EvaluateConfig, ProtocolConfig
from msr_adapter.errors import plural
from msr_adapter.evaluate.candidates import HeldOut
from msr_adapter.evaluate.metrics_file import Interval, SliceEntry, SliceGroup
from msr_adapter.evaluate.model_metrics import summarise
from msr_adapter.evaluate.slice_groups import GROUPINGS, UserFacts
from msr_adapter.evaluate.slice_tables import table_slices
from msr_adapter.metrics import evaluate_groups, paired_values

SMALL = 30
"""Fewer users than this: the group is shown and marked, its interval is not to be trusted."""
_DEPTH = 5
"""The cut-off that slices show where the protocol has it."""


def slice_metrics(
    config: EvaluateConfig, held_out: HeldOut, scores: Mapping[str, Floats], facts: UserFacts
) -> list[SliceEntry]:
    """Return, per slice, its groups with users and every model's metrics in them: mean, low, high.

    A slice that puts all users into one group says nothing new and is left out. Intervals are over the group's users;
    AUC is pooled within the group. O(slices x models x candidates log candidates).
    """
    slices = [GROUPINGS[name](facts) for name in config.protocol.slices] + table_slices(config.tables, facts)
    found: list[SliceEntry] = []
    for one in (one for one in slices if len(one.values) > 1):
        groups: list[SliceGroup] = []
        for number, value in enumerate(one.values):
            users = np.flatnonzero(one.group == number)
            models = _judge(config.protocol, held_out, users, scores)
            groups.append({"value": value, "users": len(users), "small": len(users) < SMALL, "models": models})
        found.append({"name": one.name, "groups": groups})
    return found


def sliced_metrics(protocol: ProtocolConfig) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return the metrics and the depths that slices show: the protocol's, at 5 or its first k, and the primary's."""
    shown = {str(_DEPTH if _DEPTH in protocol.k else protocol.k[0]), protocol.primary_metric.partition("@")[2]}
    # Recall says little beside HR, so that a slice has room for the others; it is in the table of all users.
    kept = [name for name in protocol.ranking if name != "recall" or "hr" not in protocol.ranking]
    return tuple(kept), tuple(depth for depth in protocol.k if str(depth) in shown)


def _judge(
    protocol: ProtocolConfig, held_out: HeldOut, users: Integers, scores: Mapping[str, Floats]
) -> dict[str, dict[str, Interval]]:
    """Return model -> metric -> its interval over ``users`` (rows of the held-out users) alone."""
    metrics, depths = sliced_metrics(protocol)
    starts, sizes = held_out.offsets[users], np.diff(held_out.offsets)[users]
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    rows, labels = ranges(starts, sizes), held_out.labels
    found: dict[str, dict[str, Interval]] = {}
    for name, values in scores.items():
        result = evaluate_groups(values[rows], labels[rows], offsets, metrics, depths)
        found[name] = summarise(result, paired_values(result), protocol.confidence.level)
    return found


def say_slices(slices: Sequence[SliceEntry]) -> str:
    """Say how many slices there are and how many of their groups are small."""
    groups = [group for one in slices for group in one["groups"]]
    small = sum(group["small"] for group in groups)
    marked = f", {small} of them with fewer than {SMALL} users" if small else ""
    names = ", ".join(one["name"] for one in slices)
    return f"Slices: {names} ({plural(len(groups), 'group')}{marked}); see the report"
