"""What the ranking metrics do not see: whether the probabilities are true, and what of the catalogue is shown."""

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa

from msr_adapter.arrays import Floats
from msr_adapter.config.schema import ProtocolConfig
from msr_adapter.evaluate.candidates import HeldOut, flat, item_codes, read_items
from msr_adapter.evaluate.metrics_file import CalibrationBin, CalibrationEntry
from msr_adapter.metrics import METRICS, Calibration, ExposureMetric, ProbabilityMetric, calibrate, expose


def calibration(
    protocol: ProtocolConfig, held_out: HeldOut, tables: Mapping[str, pa.Table]
) -> dict[str, CalibrationEntry]:
    """Return model -> the protocol's calibration metrics and the reliability table, for models with SCORES.

    Log-likelihood ratios are no probabilities of a choice: there is nothing to calibrate.
    """
    wanted = [row for row in METRICS if isinstance(row, ProbabilityMetric) and row.name in protocol.metrics]
    found: dict[str, CalibrationEntry] = {}
    answered = {model: table for model, table in tables.items() if "score" in table.column_names}
    for model, table in answered.items() if wanted else ():
        result = calibrate(table["score"].to_numpy(), held_out.labels)
        values = {row.name: row.value(result) for row in wanted}
        found[model] = cast("CalibrationEntry", {**values, "bins": _bins(result)})
    return found


def _bins(result: Calibration) -> list[CalibrationBin]:
    columns = (result.edges, result.edges[1:], result.counts, result.mean_scores, result.rates)
    return [
        {"low": low, "high": high, "count": count, "mean_score": mean, "rate": rate}
        # Not strict: the first column, the lower edges, ends with the upper edge of the last bin.
        for low, high, count, mean, rate in zip(*(column.tolist() for column in columns), strict=False)
        if count  # an empty bin has no rate
    ]


def beyond_accuracy(
    protocol: ProtocolConfig, held_out: HeldOut, scores: Mapping[str, Floats], data_dir: Path
) -> dict[str, dict[str, float]]:
    """Return model -> ``coverage@k`` .. ``novelty@k`` of the protocol, over the whole catalogue of ``data_dir``."""
    wanted = [row for row in METRICS if isinstance(row, ExposureMetric) and row.name in protocol.metrics]
    if not wanted:
        return {}
    items = read_items(data_dir)
    places, popularity = item_codes(held_out.items, flat(items["item_id"])), items["popularity"].to_numpy()
    found: dict[str, dict[str, float]] = {}
    for model, values in scores.items():
        shown = {k: expose(values, held_out.offsets, places, popularity, k) for k in protocol.k}
        found[model] = {f"{row.name}@{k}": float(np.mean(row.value(shown[k]))) for row in wanted for k in protocol.k}
    return found
