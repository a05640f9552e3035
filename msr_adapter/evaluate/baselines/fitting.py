"""The baselines stage: fit to the training log, score the candidate lists, once.

`<baseline>.parquet` holds BASELINE_SCORES. Fitting is slow and depends on the data alone, so it is not done again when
a protocol asks for other metrics or a model is trained anew.
"""

import time
from pathlib import Path
from typing import TypedDict

import numpy as np
import pyarrow as pa

from msr_adapter.arrays import Floats
from msr_adapter.config.schema import EvaluateConfig
from msr_adapter.errors import StageError
from msr_adapter.evaluate.baselines.catalogue import chosen
from msr_adapter.evaluate.baselines.training_log import BaselineInputs
from msr_adapter.evaluate.candidates import HeldOut, read_held_out
from msr_adapter.schema import BASELINE_SCORES, read_table, write_table
from msr_adapter.stage_arguments import Job


class FitSummary(TypedDict):
    """What the stage says of itself in its manifest."""

    seconds: dict[str, float]
    """Baseline -> seconds its fit took."""
    interactions: int
    users: int


def fit_baselines(config: EvaluateConfig, data_dir: Path, job: Job) -> FitSummary:
    """Fit those of ``config.baselines`` that need it and write their scores into ``job.out``."""
    inputs = BaselineInputs(read_held_out(data_dir), data_dir, config, job.seed)
    keys = {key: inputs.held_out.table[key] for key in ("example_id", "item_id")}
    log, _ = inputs.log, inputs.queries  # read now: it is not part of the time that the first fit takes
    seconds = {}
    for row in chosen(config, fitted=True):
        started = time.monotonic()
        # The bar's `advance` goes straight into the inputs, where the fit calls it.
        with job.reporter.track(f"fitting {row.name}", row.steps(config)) as inputs.advance:
            scores = row.score and row.score(inputs)
        write_table(pa.table({**keys, "score": scores}), BASELINE_SCORES, job.out / f"{row.name}.parquet")
        seconds[row.name] = round(time.monotonic() - started, 2)
    return {"seconds": seconds, "interactions": len(log.user), "users": log.users}


def read_fitted(name: str, held_out: HeldOut, folder: Path) -> Floats:
    """Read what the stage wrote (n,). Raises StageError when it is absent or belongs to other candidates."""
    path = folder / f"{name}.parquet"
    if not path.exists():
        raise StageError(f"no scores of {name}", next_step="run again with `--force baselines`")
    table = read_table(path, BASELINE_SCORES)
    fits = table.num_rows == held_out.table.num_rows
    if not (fits and all(table[key].equals(held_out.table[key]) for key in ("example_id", "item_id"))):
        cause = "they belong to other candidates, or a file was changed by hand"
        raise StageError(f"scores of {name!r} do not fit the test candidates", cause, "use `--force baselines`")
    return np.asarray(table["score"].to_numpy())
