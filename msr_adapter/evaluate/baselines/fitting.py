"""The baselines stage: tune and fit to the training log, score the candidate lists, once.

`<baseline>.parquet` holds BASELINE_SCORES, `<baseline>.validation.parquet` those of validation users' candidates,
`<baseline>.full.parquet` FULL_RANKS, `retrieved.parquet` CANDIDATES that the retriever of `evaluate.full` found,
`tuning.json` how each came to its settings (`Tuning`). Fitting is slow and depends on the data alone, so it is not done
again when a protocol asks for other metrics, another hybrid is weighed, or a model is trained anew.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from msr_adapter.arrays import Floats
from msr_adapter.config.schema import EvaluateConfig
from msr_adapter.errors import StageError, plural
from msr_adapter.evaluate.baselines.catalogue import Baseline, to_fit
from msr_adapter.evaluate.baselines.training_log import (
    BaselineInputs,
    BaselineLog,
    CatalogueScorer,
    Fit,
    Queries,
    candidate_scores,
    read_queries,
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
from msr_adapter.evaluate.candidates import MOST_WEIGHED, HeldOut, read_held_out, read_some
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
VALIDATION = ".validation.parquet"


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
    weighed = _read_weighed(data_dir, job.seed)
    choices = read_choices(inputs.held_out, data_dir, config.protocol.negatives.exclude)
    seconds, settings = {}, {}
    for row in to_fit(config):
        started = time.monotonic()
        scorer, settings[row.name] = _fitted(row, config, log, validation, job)
        scores = candidate_scores(scorer, queries, log.items)
        write_table(pa.table({**keys, "score": scores}), BASELINE_SCORES, job.out / f"{row.name}.parquet")
        if weighed:
            weighed.write(scorer, log.items, job.out / f"{row.name}{VALIDATION}")
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


@dataclass(frozen=True)
class _WeighedLists:
    """The lists of validation users on which a hybrid may weigh the baselines."""

    held_out: HeldOut
    queries: Queries

    def write(self, scorer: CatalogueScorer, items: int, path: Path) -> None:
        """Write BASELINE_SCORES of their candidates: of a fit that knows no target of validation."""
        keys = {key: self.held_out.table[key] for key in ("example_id", "item_id")}
        scores = candidate_scores(scorer, self.queries, items)
        write_table(pa.table({**keys, "score": scores}), BASELINE_SCORES, path)


def _read_weighed(data_dir: Path, seed: int) -> _WeighedLists | None:
    """Read the lists of all users whom a hybrid may be fitted on, so that a changed hybrid needs no other fits."""
    held_out = read_some(data_dir, MOST_WEIGHED, seed)
    return _WeighedLists(held_out, read_queries(held_out, data_dir)) if held_out is not None else None


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


def fit_again(
    row: Baseline, config: EvaluateConfig, dirs: tuple[Path, Path], log: BaselineLog, seed: int
) -> CatalogueScorer:
    """Fit a baseline as the stage did, under the settings and the seed that it chose; equal bits come of it.

    ``dirs``: the folders of the data stage and of this one. ``seed`` is the pipeline's, which drew the validation
    users. Raises StageError where the stage fitted no such baseline.
    """
    fitting, choice = row.fitting, read_tuning(dirs[1])["baselines"].get(row.name)
    if fitting is None or choice is None:
        raise StageError(f"{row.name} was not fitted in this run", next_step="run `msr evaluate` first")
    settings = type(fitting.settings(config)).model_validate_json(json.dumps(choice["settings"]))
    validation = None if choice["untuned"] else read_validation(dirs[0], log.items, seed)
    return fitting.fit(Fit(log, choice["seed"], judge=validation.judge if validation else None), settings)


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


def read_fitted(name: str, held_out: HeldOut, folder: Path, of: str = ".parquet") -> Floats:
    """Read what the stage wrote (n,). Raises StageError when it is absent or belongs to other candidates.

    ``of``: `VALIDATION` for what it wrote of validation users, of whom ``held_out`` may have some.
    """
    path = folder / f"{name}{of}"
    if not path.exists():
        raise StageError(f"no scores of {name}", next_step="run again with `--force baselines`")
    table = read_table(path, BASELINE_SCORES)
    if of == VALIDATION:
        table = table.filter(pc.is_in(table["example_id"], value_set=pa.array(held_out.example_ids)))
    fits = table.num_rows == held_out.table.num_rows
    if not (fits and all(table[key].equals(held_out.table[key]) for key in ("example_id", "item_id"))):
        cause = "they belong to other candidates, or a file was changed by hand"
        raise StageError(f"scores of {name!r} do not fit the candidates", cause, "use `--force baselines`")
    return np.asarray(table["score"].to_numpy())
