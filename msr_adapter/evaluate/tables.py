"""The stage's two files of rows: per user and model, and per candidate with every model's score."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from msr_adapter.arrays import Floats, Integers
from msr_adapter.evaluate.candidates import HeldOut
from msr_adapter.evaluate.model_metrics import Judged
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


def full_per_user_table(held_out: HeldOut, sizes: Integers, models: Mapping[str, Mapping[str, Floats]]) -> pa.Table:
    """Return every user's metrics over the whole catalogue, model by model; ``models``: metric -> values (users,).

    ``sizes`` (users,) are the items that a user's targets are ranked among, in the column `candidates`.
    """
    parts = [
        pa.table({
            "example_id": held_out.example_ids, "user_id": held_out.user_ids,
            "model": pa.repeat(name, len(sizes)), "candidates": sizes, **values,
        })
        for name, values in models.items()
    ]  # fmt: skip
    return pa.concat_tables(parts)


def candidate_scores_table(held_out: HeldOut, scores: Mapping[str, Floats], repeats: Sequence[Floats] = ()) -> pa.Table:
    """Return the candidates with what every model ranks them by: example_id, item_id, label, one column per model.

    ``repeats`` are the trained model's by its second training and so on, in the columns ``training:2``, ... Metrics,
    comparisons and exports can be made again from it alone.
    """
    columns = {name: held_out.table[name] for name in CANDIDATES.names}
    fields = [*CANDIDATES, *(pa.field(f"score:{name}", pa.float64(), nullable=False) for name in scores)]
    columns |= {f"score:{name}": values for name, values in scores.items()}
    for number, values in enumerate(repeats, start=2):
        columns[f"training:{number}"] = values
        fields.append(pa.field(f"training:{number}", pa.float64(), nullable=False))
    return pa.table(columns, schema=pa.schema(fields))
