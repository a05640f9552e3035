"""The evaluate stage: every model and baseline on the same candidate lists.

It writes `metrics.json` (`metrics_file.MetricsFile`), `per_user.parquet` (`tables.per_user_schema`) and
`candidate_scores.parquet` (`tables.candidate_scores_table`); the report is made of the `Evaluation` that it returns.

The models, in the order of the tables: trained, base (each with a folder of scores), the fitted baselines, the others
that were asked for, oracle (if the truth is known), hybrid (if asked for).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from msr_adapter.arrays import Floats
from msr_adapter.config.schema import EvaluateConfig
from msr_adapter.errors import StageError, plural
from msr_adapter.evaluate import model_metrics
from msr_adapter.evaluate.baselines.catalogue import BASELINES, chosen
from msr_adapter.evaluate.baselines.fitting import read_fitted, read_tuning, tuning_findings
from msr_adapter.evaluate.baselines.training_log import BaselineInputs
from msr_adapter.evaluate.beyond_accuracy import beyond_accuracy, calibration
from msr_adapter.evaluate.candidates import HeldOut, read_held_out, read_scores
from msr_adapter.evaluate.comparison import ComparisonPlan, as_difference, trained_minus_others
from msr_adapter.evaluate.full_ranking import FullDirs, rank_fully, unranked
from msr_adapter.evaluate.hybrid.fitting import HYBRID, FrozenHybrid, freeze_hybrid
from msr_adapter.evaluate.hybrid.judging import HybridJob, hybrid_findings, judge_hybrid
from msr_adapter.evaluate.metrics_file import (
    CandidateCounts,
    EvaluationFinding,
    JudgedModel,
    MetricsFile,
    Sampling,
)
from msr_adapter.evaluate.sampling import describe_sampling
from msr_adapter.evaluate.slice_groups import read_facts
from msr_adapter.evaluate.slice_tables import table_findings
from msr_adapter.evaluate.slices import say_slices, slice_metrics
from msr_adapter.evaluate.tables import candidate_scores_table, per_user_table
from msr_adapter.evaluate.text_tables import console_tables
from msr_adapter.evaluate.trainings import trainings_entry, trainings_finding
from msr_adapter.files import write_json
from msr_adapter.metrics import label
from msr_adapter.model_scores import ranking_scores
from msr_adapter.progress import Reporter
from msr_adapter.schema import write_table
from msr_adapter.stage_arguments import Job


@dataclass(frozen=True)
class EvaluateDirs:
    """The folders of earlier stages that are judged."""

    data: Path
    """Tables of the data stage."""
    scores: Mapping[str, Path]
    """Model -> its folder of SCORES: `trained`, and `base` where it is asked for."""
    baselines: Path | None = None
    """Scores of the fitted baselines; None without any."""
    retrieved: Path | None = None
    """What was retrieved from the whole catalogue; None where nothing was asked for."""
    reranked: Mapping[str, Path] = field(default_factory=dict)
    """Model -> its folder of SCORES of what was retrieved."""
    validation: Path | None = None
    """SCORES of validation users by the trained model, for a hybrid that weighs it."""
    trainings: Sequence[tuple[int, Path]] = ()
    """Seed and folder of SCORES of every training, the first one's first; empty where there is one alone."""


@dataclass(frozen=True)
class RunFacts:
    """What `metrics.json` says of the run beside its numbers."""

    pipeline: str
    """Name of the pipeline."""
    versions: Mapping[str, str]
    """Library -> version."""


@dataclass(frozen=True)
class Evaluation:
    """Everything that was found out about the models of a run; the report shows it."""

    metrics: MetricsFile
    """The content of `metrics.json`."""
    models: Mapping[str, model_metrics.Judged]
    """Model -> its metrics, user by user."""
    held_out: HeldOut
    """The test candidates."""
    trained: pa.Table
    """SCORES of the trained model, row by row of the candidates."""
    data_dir: Path
    """The data stage's folder."""

    @property
    def key_numbers(self) -> dict[str, object]:
        """The users, every model's means, the share of the oracle's lift and the findings: for the manifest."""
        means = {
            name: {metric: value["mean"] for metric, value in model["metrics"].items()}
            for name, model in self.metrics["models"].items()
        }
        return {
            "metrics": means,
            "candidates_digest": self.metrics["candidates"]["digest"],
            "users": self.metrics["users"],
            "primary": self.metrics["primary"],
            "oracle_lift_share": self.metrics["oracle_lift_share"],
            "findings": self.metrics["findings"],
        }

    def say(self, reporter: Reporter, headline: str) -> None:
        """Print the metric table, ``headline``, the slices and every finding."""
        for table in console_tables(self.metrics):
            reporter.console.print(table)
        reporter.note(headline)
        if self.metrics["slices"]:
            reporter.note(say_slices(self.metrics["slices"]))
        for finding in self.metrics["findings"]:
            reporter.note(f"{finding['severity']}: {finding['text']}")


def evaluate(config: EvaluateConfig, dirs: EvaluateDirs, run: RunFacts, job: Job) -> Evaluation:
    """Judge the models of ``dirs.scores`` and the baselines; write metrics.json and two tables into ``job.out``.

    Raises StageError, with counts, on scores that do not fit the candidates one to one.
    """
    protocol, seed = config.protocol, job.seed
    frozen = _freeze(config, dirs, job)  # before a score of the test is read
    held_out = read_held_out(dirs.data)
    tables = _read_tables(config.baselines, dirs.scores, held_out)
    inputs = BaselineInputs(held_out, dirs.data, config, seed)
    scores = _all_scores(config, dirs, inputs, tables)
    if frozen:
        scores[HYBRID] = frozen.scores(scores, held_out.offsets)
    repeats, models = _read_trainings(dirs, held_out) or [scores["trained"]], {}
    with job.reporter.track("judging", len(scores)) as advance:
        for name, values in scores.items():
            trainings = repeats if name == "trained" else [values]
            models[name] = model_metrics.judge_trainings(protocol, held_out, trainings)
            advance(1)
    facts = read_facts(held_out, dirs.data)
    sampling = describe_sampling(protocol, held_out, facts.items.num_rows)
    metrics = _metrics(config, _Found(held_out, models, tables, sampling), run, seed)
    metrics["slices"] = slice_metrics(config, held_out, scores, facts)
    metrics["findings"] = [*metrics["findings"], *_about_the_fits(config, dirs), *table_findings(config.tables, facts)]
    if frozen:
        metrics["hybrid"] = judge_hybrid(HybridJob(protocol, held_out, seed), frozen, scores, models)
        metrics["findings"] = [*metrics["findings"], *hybrid_findings(metrics["hybrid"], models, metrics["primary"])]
    if dirs.trainings:
        seeds, primary = [seed for seed, _ in dirs.trainings], metrics["primary"]
        metrics["trainings"] = trainings_entry(models, seeds, primary)
        metrics["findings"] = [*metrics["findings"], trainings_finding(metrics["trainings"], primary)]
    metrics["beyond"] = beyond_accuracy(protocol, held_out, scores, dirs.data)
    if full := rank_fully(config, FullDirs(dirs.baselines, dirs.retrieved, dirs.reranked), inputs, models):
        metrics["full"] = full.entry
        metrics["findings"] = [*metrics["findings"], *full.findings]
        write_table(full.per_user, full.per_user.schema, job.out / "full_per_user.parquet")
    else:
        metrics["findings"] = [*metrics["findings"], *unranked(config, facts.items.num_rows)]
    write_json(job.out / "metrics.json", {**metrics})
    per_user = per_user_table(held_out, models)
    write_table(per_user, per_user.schema, job.out / "per_user.parquet")
    ranked = candidate_scores_table(held_out, scores, repeats[1:])
    write_table(ranked, ranked.schema, job.out / "candidate_scores.parquet")
    return Evaluation(metrics, models, held_out, tables["trained"], dirs.data)


def _freeze(config: EvaluateConfig, dirs: EvaluateDirs, job: Job) -> FrozenHybrid | None:
    if config.hybrid is None:
        return None
    folders = {"trained": dirs.validation, "baselines": dirs.baselines}
    return freeze_hybrid(config, dirs.data, {name: folder for name, folder in folders.items() if folder}, job)


def _read_tables(baselines: tuple[str, ...], score_dirs: Mapping[str, Path], held_out: HeldOut) -> dict[str, pa.Table]:
    wanted = {"trained", *(row.name for row in BASELINES if row.separate and row.name in baselines)}
    if absent := sorted(wanted - set(score_dirs)):
        raise StageError(f"no scores of {', '.join(absent)}", next_step="run the score stages first")
    ours_first = sorted(score_dirs, key=lambda name: name != "trained")  # the others keep their order
    return {name: read_scores(held_out, name, score_dirs[name]) for name in ours_first}


def _read_trainings(dirs: EvaluateDirs, held_out: HeldOut) -> list[Floats]:
    """Return what ranks the candidates (n,) by each of several trainings; nothing where there is one."""
    named = [(f"training {number}", folder) for number, (_, folder) in enumerate(dirs.trainings, start=1)]
    return [ranking_scores(read_scores(held_out, name, folder)) for name, folder in named]


def _all_scores(
    config: EvaluateConfig, dirs: EvaluateDirs, inputs: BaselineInputs, tables: Mapping[str, pa.Table]
) -> dict[str, Floats]:
    """Return model -> what ranks the candidates (n,); of models the log-odds, because probabilities saturate, or the
    log-likelihood ratios."""
    scores: dict[str, Floats] = {name: ranking_scores(table) for name, table in tables.items()}
    if dirs.baselines is not None:
        for row in chosen(config, fitted=True):
            scores[row.name] = read_fitted(row.name, inputs.held_out, dirs.baselines)
    for row in chosen(config, fitted=False):
        values = row.score and row.score(inputs)
        if values is not None:
            scores[row.name] = values
    return scores


@dataclass(frozen=True)
class _Found:
    held_out: HeldOut
    models: Mapping[str, model_metrics.Judged]
    tables: Mapping[str, pa.Table]
    sampling: Sampling


def _metrics(config: EvaluateConfig, found: _Found, run: RunFacts, seed: int) -> MetricsFile:
    """Return `metrics.json`; its `slices` and `beyond` are still empty."""
    protocol, held_out, models, tables = config.protocol, found.held_out, found.models, found.tables
    primary, sizes = protocol.primary_metric, np.diff(held_out.offsets)
    chances = model_metrics.chance(protocol, held_out)
    # The hybrid has the trained model in it, and is tested by itself.
    others = {name: judged for name, judged in models.items() if name != HYBRID}
    compared = trained_minus_others(others, ComparisonPlan.of(protocol, [primary], seed)).differences
    gaps = {row.reference: as_difference(row) for row in compared}
    mass = {
        name: float(table["answer_mass"].to_numpy().mean())
        for name, table in tables.items()
        if "answer_mass" in table.column_names
    }
    candidates: CandidateCounts = {
        "rows": held_out.table.num_rows,
        "targets": int(held_out.labels.sum()),
        "smallest": int(sizes.min()),
        "largest": int(sizes.max()),
        "digest": held_out.digest,
    }
    judged_models: dict[str, JudgedModel] = {
        name: {"metrics": judged.summary, "tied_users": model_metrics.tied_share(judged.result)}
        for name, judged in models.items()
    }
    for name, share in mass.items():  # of models that answer Yes or No
        judged_models[name]["answer_mass"] = share
    settings = protocol.model_dump(mode="json") | {"primary": primary}
    return {
        "pipeline": run.pipeline,
        "users": len(held_out.example_ids),
        "seed": seed,
        "primary": primary,
        "protocol": settings,
        "protocol_digest": model_metrics.protocol_digest(settings),
        "candidates": candidates,
        "sampling": found.sampling,
        "full": None,
        "models": judged_models,
        "chance": chances,
        "differences": gaps,
        "smallest_difference": {row.reference: row.smallest for row in compared if row.smallest is not None},
        "calibration": calibration(protocol, held_out, tables),
        "slices": [],
        "beyond": {},
        "oracle_lift_share": model_metrics.oracle_lift_share(models, chances, primary),
        "findings": model_metrics.find(models, gaps, mass, primary) + _about_the_protocol(config, models),
        "versions": dict(run.versions),
    }


def _about_the_fits(config: EvaluateConfig, dirs: EvaluateDirs) -> list[EvaluationFinding]:
    rows = chosen(config, fitted=True)
    return tuning_findings(rows, read_tuning(dirs.baselines)) if rows and dirs.baselines is not None else []


def _about_the_protocol(config: EvaluateConfig, models: Mapping[str, model_metrics.Judged]) -> list[EvaluationFinding]:
    found: list[EvaluationFinding] = []
    if config.protocol.target == "most-popular-last":
        text = (
            "The target is the latest of the user's 6 most popular items, as in the published code, not the last item "
            "that the user interacted with: popularity alone nearly finds it. Compare these numbers with that "
            "code's, never with others."
        )
        found.append({"severity": "warning", "text": text})
    if (sweep := config.sweep) is not None:
        text = (
            f"These settings are the best of {plural(sweep.trials, 'trial')} by {label(sweep.metric)} on "
            f"{plural(sweep.users, 'validation user')}; the test users had no part in the choice."
        )
        found.append({"severity": "info", "text": text})
    absent = [row for row in chosen(config, fitted=False) if row.on_request and row.name not in models]
    for row in absent:
        text = f"{row.name.capitalize()} is not judged: {row.without}."
        found.append({"severity": "info", "text": text})
    return found
