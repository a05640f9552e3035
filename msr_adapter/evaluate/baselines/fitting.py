"""The baselines stage: fit to the training log, score the frozen candidates, once.

`<baseline>.parquet` holds BASELINE_SCORES. Fitting is slow and depends on the data alone, so it is not done again when
a protocol asks for other metrics or a model is trained anew.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from msr_adapter.arrays import Floats
from msr_adapter.config.schema import SASRecConfig
from msr_adapter.errors import StageError
from msr_adapter.evaluate.baselines.training_log import Queries, TrainingLog, read_queries, read_training_log
from msr_adapter.evaluate.candidates import HeldOut, read_held_out
from msr_adapter.progress import Advance, Reporter
from msr_adapter.schema import BASELINE_SCORES, read_table, write_table

Fit = Callable[[TrainingLog, Queries, SASRecConfig, int, Advance], Floats]


def _item_knn(log: TrainingLog, queries: Queries, settings: SASRecConfig, seed: int, advance: Advance) -> Floats:
    from msr_adapter.evaluate.baselines.item_knn import item_knn_scores

    return item_knn_scores(log, queries)


def _factors(log: TrainingLog, queries: Queries, settings: SASRecConfig, seed: int, advance: Advance) -> Floats:
    from msr_adapter.evaluate.baselines.matrix_factorization import factor_scores

    return factor_scores(log, queries, seed)


def _sasrec(log: TrainingLog, queries: Queries, settings: SASRecConfig, seed: int, advance: Advance) -> Floats:
    from msr_adapter.evaluate.baselines.sasrec import sasrec_scores

    return sasrec_scores(log, queries, settings, seed, advance)


FITTED: dict[str, Fit] = {"item-knn": _item_knn, "mf": _factors, "sasrec": _sasrec}


def fit_baselines(
    names: Sequence[str], settings: SASRecConfig, seed: int, data_dir: Path, out: Path, reporter: Reporter
) -> dict[str, Any]:
    """Fit the baselines among ``names`` that need it and write their scores; return the seconds each took."""
    held_out = read_held_out(data_dir)
    log, queries = read_training_log(data_dir), read_queries(held_out, data_dir)
    seconds = {}
    for name in (name for name in FITTED if name in names):
        started = time.monotonic()
        with reporter.track(f"fitting {name}", settings.epochs if name == "sasrec" else 1) as advance:
            scores = FITTED[name](log, queries, settings, seed, advance)
        columns = {key: held_out.table[key] for key in ("example_id", "item_id")}
        write_table(pa.table({**columns, "score": scores}), BASELINE_SCORES, out / f"{name}.parquet")
        seconds[name] = round(time.monotonic() - started, 2)
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
