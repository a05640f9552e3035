"""What the ranking metrics do not see: whether the probabilities are true, and what of the catalogue is shown."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from msr_adapter.arrays import Floats
from msr_adapter.config.schema import ProtocolConfig
from msr_adapter.evaluate.candidates import HeldOut, flat, item_codes, read_items
from msr_adapter.metrics import calibrate, expose

_CALIBRATION = ("log_loss", "brier", "ece")
_EXPOSURE = ("coverage", "gini", "popularity", "novelty")


def calibration(protocol: ProtocolConfig, held_out: HeldOut, tables: Mapping[str, pa.Table]) -> dict[str, Any]:
    """Return model -> the protocol's calibration metrics and the reliability table, for models with SCORES."""
    wanted = [name for name in _CALIBRATION if name in protocol.metrics]
    if not wanted:
        return {}
    found = {}
    for model, table in tables.items():
        result = calibrate(table["score"].to_numpy(), held_out.labels)
        columns = (result.edges, result.edges[1:], result.counts, result.mean_scores, result.rates)
        bins = [
            {"low": low, "high": high, "count": count, "mean_score": mean, "rate": rate}
            for low, high, count, mean, rate in zip(*(column.tolist() for column in columns), strict=False)
            if count  # an empty bin has no rate
        ]
        found[model] = {name: getattr(result, name) for name in wanted} | {"bins": bins}
    return found


def beyond_accuracy(
    protocol: ProtocolConfig, held_out: HeldOut, scores: Mapping[str, Floats], data_dir: Path
) -> dict[str, dict[str, float]]:
    """Return model -> ``coverage@k`` .. ``novelty@k`` of the protocol, over the whole catalogue of ``data_dir``."""
    wanted = [name for name in _EXPOSURE if name in protocol.metrics]
    if not wanted:
        return {}
    items = read_items(data_dir)
    places, popularity = item_codes(held_out.items, flat(items["item_id"])), items["popularity"].to_numpy()
    found: dict[str, dict[str, float]] = {}
    for model, values in scores.items():
        shown = {k: expose(values, held_out.offsets, places, popularity, k) for k in protocol.k}
        found[model] = {f"{name}@{k}": float(np.mean(getattr(shown[k], name))) for name in wanted for k in protocol.k}
    return found
