"""The baselines stage: tune and fit to the training log, score the candidate lists, once.

`<baseline>.parquet` holds BASELINE_SCORES, `<baseline>.full.parquet` FULL_RANKS, `retrieved.parquet` CANDIDATES that
the retriever of `evaluate.full` found, `tuning.json` how each came to its settings (`Tuning`). Fitting is slow and
depends on the data alone, so it is not done again when a protocol asks for other metrics or a model is trained anew.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict, cast

import numpy as np
import pyarrow as pa

from msr_adapter.arrays import Floats
from msr_adapter.config.schema import EvaluateConfig
from msr_adapter.errors import StageError, plural
from msr_adapter.evaluate.baselines.catalogue import Baseline, to_fit
from msr_adapter.evaluate.baselines.training_log import (
    BaselineInputs,
    BaselineLog,
    CatalogueScorer,
    Fit,
    candidate_scores,
)
from msr_adapter.evaluate.baselines.tuning import (
    METRIC,
    Choice,
    K,
    ValidationLists,
    as_configured,
    fits_of,
    fits_text,
    read_validation,
    tune,
)
from msr_adapter.evaluate.baselines.whole_catalogue import fitted_blocks
from msr_adapter.evaluate.candidates import HeldOut, read_held_out
from msr_adapter.evaluate.catalogue_ranking import (
    is_ranked_whole,
    rank_targets,
    read_choices,
    retrieved_candidates,
    write_ranks,
)
from msr_adapter.evaluate.metrics_file import EvaluationFinding
from msr_adapter.files import read_json_object, write_json
from msr_adapter.progress import Reporter
from msr_adapter.schema import BASELINE_SCORES, CANDIDATES, read_table, write_table
from msr_adapter.stage_arguments import Job

TUNING, FULL, RETRIEVED = "tuning.json", ".full.parquet", "retrieved.parquet"


class Tuning(TypedDict):
    """The content of `tuning.json`."""

    metric: str
    users: int
    """ValidationLists users that settings were compared on; 0 = nothing was compared."""
    baselines: Mapping[str, Choice]


class FitSummary(TypedDict):
    """What the stage says of itself in its manifest."""

    seconds: dict[str, float]
    """Baseline -> seconds its fits took."""
    interactions: int
    users: int
    tuning: Tuning


def fit_baselines(config: EvaluateConfig, data_dir: Path, job: Job) -> FitSummary:
    """Fit those of ``config.baselines`` that need it, and what retrieves; write their scores into ``job.out``."""
    inputs = BaselineInputs(read_held_out(data_dir), data_dir, config, job.seed)
    keys = {key: inputs.held_out.table[key] for key in ("example_id", "item_id")}
    log, queries = inputs.log, inputs.queries  # read now: it is not part of the time that the first fit takes
    validation = read_validation(data_dir, log.items, job.seed) if config.tune else None
    choices = read_choices(inputs.held_out, data_dir, config.protocol.negatives.exclude)
    seconds, settings = {}, {}
    for row in to_fit(config):
        started = time.monotonic()
        scorer, settings[row.name] = _fitted(row, config, log, validation, job)
        scores = candidate_scores(scorer, queries, log.items)
        write_table(pa.table({**keys, "score": scores}), BASELINE_SCORES, job.out / f"{row.name}.parquet")
        blocks, retrieves = (
            fitted_blocks(scorer, queries),
            config.full is not None and config.full.retriever == row.name,
        )
        if retrieves or is_ranked_whole(log.items):
            write_ranks(inputs.held_out, rank_targets(choices, blocks, row.name), job.out / f"{row.name}{FULL}")
        if retrieves and config.full:
            found = retrieved_candidates(inputs.held_out, choices, blocks, inputs.items, config.full.top)
            write_table(found, CANDIDATES, job.out / RETRIEVED)
        seconds[row.name] = round(time.monotonic() - started, 2)
    tuning = Tuning(metric=f"{METRIC}@{K}", users=validation.users if validation else 0, baselines=settings)
    write_json(job.out / TUNING, {**tuning})
    return {"seconds": seconds, "interactions": len(log.user), "users": log.users, "tuning": tuning}


def _fitted(
    row: Baseline, config: EvaluateConfig, log: BaselineLog, validation: ValidationLists | None, job: Job
) -> tuple[CatalogueScorer, Choice]:
    """Fit one baseline, tuned where there is somebody to tune it on; what that takes is said first."""
    fitting, reporter = row.fitting, job.reporter
    assert fitting is not None, f"{row.name} is not fitted"
    if validation is None:
        why = "the split has no validation users" if config.tune else "evaluate.tune is false"
        with reporter.track(f"fitting {row.name}", fitting.steps(fitting.settings(config))) as advance:
            found = as_configured(fitting, config, Fit(log, job.seed, advance), why)
        if config.tune:
            reporter.note(f"warning: {row.name} is not tuned: {why}")
        return found
    fits, users = fits_of(fitting, config, log), plural(validation.users, "validation user")
    reporter.note(f"  {row.name}: {fits_text(fitting, config, fits)}, compared on {users}")
    with reporter.track(f"tuning {row.name}", fits * fitting.steps(fitting.settings(config))) as advance:
        scorer, choice = tune(fitting, config, Fit(log, job.seed, advance), validation)
    _say(row.name, choice, reporter)
    return scorer, choice


def _say(name: str, choice: Choice, reporter: Reporter) -> None:
    values = [attempt["value"] for attempt in choice["tried"]]
    found = f"NDCG@{K} {max(values):.4f} on validation users, the worst of its fits {min(values):.4f}"
    reporter.note(f"  {name}: {_settings_text(choice)}, seed {choice['seed']}; {found}")


def _settings_text(choice: Choice) -> str:
    # Of SASRec's negatives: the only setting that may be null once it is settled.
    shown = {key: "the catalogue" if value is None else value for key, value in choice["settings"].items()}
    return ", ".join(f"{key} {value}" for key, value in shown.items())


def read_tuning(folder: Path) -> Tuning:
    """Read how the fitted baselines came to their settings."""
    return cast("Tuning", read_json_object(folder / TUNING))


def tuning_findings(rows: Sequence[Baseline], tuning: Tuning) -> list[EvaluationFinding]:
    """Say how each of ``rows`` came to its settings; those that were not tuned are a warning."""
    found: list[EvaluationFinding] = []
    for row in rows:
        choice = tuning["baselines"][row.name]
        name, settings = row.label[0].upper() + row.label[1:], _settings_text(choice)
        if choice["untuned"]:
            text = (f"{name} was not tuned ({choice['untuned']}): {settings}. A baseline at settings that nobody chose "
                    "is easily beaten.")  # fmt: skip
            found.append({"severity": "warning", "text": text})
            continue
        fits, users = plural(len(choice["tried"]), "fit"), plural(tuning["users"], "validation user")
        values = [attempt["value"] for attempt in choice["tried"] if attempt["settings"] == choice["settings"]]
        again = f"; from {len(values)} seeds {min(values):.3f} to {max(values):.3f}" if len(values) > 1 else ""
        text = f"{name} was tuned on {users}: {settings}. NDCG@{K} {max(values):.3f}, the best of {fits}{again}."
        found.append({"severity": "info", "text": text})
    return found


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
