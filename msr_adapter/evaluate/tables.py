"""The files of the stage, and its table on the console."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from rich import box
from rich.table import Table

from msr_adapter.arrays import Floats
from msr_adapter.evaluate.candidates import HeldOut
from msr_adapter.evaluate.judging import Judged, label
from msr_adapter.schema import CANDIDATES


def per_user_schema(metrics: list[str]) -> pa.Schema:
    """Return the schema of `per_user.parquet`: one row per example and model, one column per per-user metric."""
    return pa.schema(
        [
            pa.field("example_id", pa.int64(), nullable=False),
            pa.field("user_id", pa.string(), nullable=False),
            pa.field("model", pa.string(), nullable=False),
            pa.field("candidates", pa.int32(), nullable=False),
            pa.field("rank", pa.float64(), nullable=False),  # of the (best) target, 1 = best; mean over tie orders
            pa.field("greater", pa.int32(), nullable=False),  # candidates above it
            pa.field("equal", pa.int32(), nullable=False),  # negatives tied with it
            *(pa.field(name, pa.float64(), nullable=False) for name in metrics),
        ]
    )


def per_user_table(held_out: HeldOut, models: Mapping[str, Judged]) -> pa.Table:
    """Return all models' per-user rows under `per_user_schema`, model by model."""
    schema = per_user_schema(list(next(iter(models.values())).result.per_user))
    return pa.concat_tables([_rows(held_out, name, judged, schema) for name, judged in models.items()])


def _rows(held_out: HeldOut, name: str, judged: Judged, schema: pa.Schema) -> pa.Table:
    result, users = judged.result, len(held_out.example_ids)
    columns = {
        "example_id": held_out.example_ids,
        "user_id": held_out.user_ids,
        "model": pa.repeat(name, users),
        "candidates": np.diff(held_out.offsets).astype(np.int32),
        "rank": result.ranks,
        "greater": result.greater.astype(np.int32),
        "equal": result.equal.astype(np.int32),
        **result.per_user,
    }
    return pa.table(columns, schema=schema)


def candidate_scores_table(held_out: HeldOut, scores: Mapping[str, Floats]) -> pa.Table:
    """Return the candidates with what every model ranks them by: example_id, item_id, label, one column per model.

    Metrics, comparisons and exports can be made again from it alone.
    """
    columns = {name: held_out.table[name] for name in CANDIDATES.names}
    fields = [*CANDIDATES, *(pa.field(f"score:{name}", pa.float64(), nullable=False) for name in scores)]
    return pa.table(columns | {f"score:{name}": values for name, values in scores.items()}, schema=pa.schema(fields))


def console_table(metrics: Mapping[str, Any]) -> Table:
    """Return metric x model with intervals from `metrics.json`'s content. Recall@k is left out where HR@k is shown."""
    level = metrics["protocol"]["confidence"]["level"]
    title = f"{metrics['users']:,} test users, {level:.0%} intervals over users"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("metric")
    for name in metrics["models"]:
        table.add_column(name, justify="right", style="bold" if name == "trained" else None)
    table.add_column("chance", justify="right", style="dim")
    for metric in shown_metrics(metrics):
        cells = [_cell(model["metrics"][metric]) for model in metrics["models"].values()]
        table.add_row(label(metric), *cells, f"{metrics['chance'][metric]:.3f}")
    return table


def shown_metrics(metrics: Mapping[str, Any]) -> list[str]:
    """Return the metrics worth a row: with one target per user Recall@k equals HR@k, and MAP@k equals MRR@k."""
    names = list(metrics["chance"])
    if metrics.get("candidates", {}).get("targets", metrics["users"]) > metrics["users"]:
        return names
    twins = {name: name.replace("recall@", "hr@").replace("map@", "mrr@") for name in names}
    return [name for name, twin in twins.items() if twin == name or twin not in names]


def _cell(value: Mapping[str, float]) -> str:
    return f"{value['mean']:.3f} {short(value['low'])}–{short(value['high'])}"


def short(value: float) -> str:
    """Format a bound of an interval without its leading zero: 0.9513 -> ``.951``."""
    return f"{value:.3f}".removeprefix("0") if 0 <= value < 1 else f"{value:.3f}"
