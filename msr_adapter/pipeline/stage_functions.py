"""The functions that run the stages: each hands its package the config, the folders, the client and the job.

The packages are imported when a stage runs, so that planning stays fast.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa

from msr_adapter.config.schema import ItemSummariesConfig, PipelineConfig, UserSummariesConfig
from msr_adapter.generation import Backend
from msr_adapter.llamafactory.model_weights import BASE, starting_weights, trained_weights
from msr_adapter.metrics import Judgement
from msr_adapter.pipeline.peak_memory import release
from msr_adapter.pipeline.repeated_trainings import training_folder, training_seed, training_seeds
from msr_adapter.pipeline.stage_context import Context, weighs_trained
from msr_adapter.progress import Reporter
from msr_adapter.prompts import HistoryItem
from msr_adapter.prompts.stage_tables import with_events
from msr_adapter.redaction import redact_values
from msr_adapter.report.report_context import Manifests, ReportContext
from msr_adapter.stage_arguments import Client, Job, StageDirs
from msr_adapter.version import __version__

if TYPE_CHECKING:
    from msr_adapter.evaluate.evaluation import Evaluation

_LIBRARIES = ("llamafactory", "torch", "transformers", "peft", "datasets", "polars", "numpy", "implicit", "RecTools")
"""Whose versions the report shows."""


def run_data(c: Context) -> dict[str, Any]:
    """Build the tables of the data stage."""
    from msr_adapter.data import BuildInputs, build

    p = c.pipeline
    mined = c.dir("mine") / "mined.parquet" if p.train.negatives.mines else None
    inputs = BuildInputs(p.data, p.split, p.evaluate.protocol, p.train.negatives, p.history_step, mined)
    return {**build(inputs, c.job, c.folder.root / "cache" / "images")}


def run_lengths(c: Context) -> dict[str, Any]:
    """Estimate how long rows will be."""
    from msr_adapter.train import estimate_lengths

    return estimate_lengths(c.pipeline.train, c.pipeline.summarize, c.dirs, c.prompts, c.job)


def run_items(c: Context) -> dict[str, Any]:
    """Summarise items."""
    from msr_adapter.summarize import summarize_items

    config = c.pipeline.summarize.items
    with summarizer(c, config) as client:
        return summarize_items(config, c.dirs, client, c.job)


def run_users(c: Context) -> dict[str, Any]:
    """Summarise users."""
    from msr_adapter.summarize import summarize_users

    config = c.pipeline.summarize.users
    with summarizer(c, config) as client:
        return summarize_users(config, c.dirs, client, c.job)


@contextmanager
def summarizer(c: Context, config: ItemSummariesConfig | UserSummariesConfig) -> Iterator[Client]:
    """Yield prompts, backend and cache of a summariser; without a backend where its mode asks no model."""
    with c.cache() as cache, nullcontext() if config.mode == "none" else c.backend(config.model) as backend:
        yield Client(c.prompts, backend, cache)


def run_truncate(c: Context) -> dict[str, Any]:
    """Truncate the user summaries of rows that would be too long."""
    from msr_adapter.summarize import read_histories, read_summaries
    from msr_adapter.train import UserTexts, truncate_summaries

    def histories(examples: pa.Table) -> Sequence[Sequence[HistoryItem]]:
        used = c.prompts.fields("history")
        return read_histories(with_events(examples, c.dirs.data, used), c.dirs.data, read_summaries(c.dirs.items), used)

    return truncate_summaries(c.pipeline.train, c.dirs, UserTexts(c.prompts, histories), c.job)


def run_dataset(c: Context) -> dict[str, Any]:
    """Write the training rows for LLaMA-Factory."""
    from msr_adapter.train import build_dataset

    return build_dataset(c.pipeline.train, c.dirs, c.prompts, c.job)


def run_train(c: Context) -> dict[str, Any]:
    """Train the recommender; with `keep: best`, checkpoints are judged on validation users."""
    from msr_adapter.train import train

    judge = checkpoint_judge(c) if c.pipeline.train.keep == "best" else None
    job = replace(c.job, seed=training_seed(c.pipeline))
    return {"seed": job.seed} | train(c.pipeline.train, c.dirs, job, c.folder.unfinished("train"), judge)


def checkpoint_judge(c: Context) -> Callable[[Path | None, Reporter], Judgement]:
    """Return a function that judges the weights in a folder (None = before training) on validation users.

    It asks as the score stage does, so that the checkpoint kept is the one whose scores are best, but always through
    transformers where the model is here: an engine would have to be started for each checkpoint. Answers are cached by
    the weights' content. Raises `UserError` without a validation split.
    """
    from msr_adapter.score import Validation

    p = c.pipeline
    model = p.train.model.reference
    start = starting_weights(p.train)
    validation = Validation(p.train, c.dirs, c.prompts, p.seed)

    def judge(folder: Path | None, reporter: Reporter) -> Judgement:
        with c.cache() as cache, c.backend(model, start.then(folder) if folder else start) as backend:
            found = validation.judge(backend, cache, reporter)
        # The next checkpoint's weights need the memory that the last reference to these still holds.
        del backend
        release()
        return found

    return judge


def run_score(c: Context) -> dict[str, Any]:
    """Score the test candidates with the trained model."""
    return _score(c, make_scorer(c))


def run_score_base(c: Context) -> dict[str, Any]:
    """Score the test candidates with the model before training."""
    return _score(c, c.backend(c.pipeline.train.scoring_model, starting_weights(c.pipeline.train)))


def run_score_validation(c: Context) -> dict[str, Any]:
    """Score candidates of validation users with the trained model, for a hybrid that weighs it."""
    from msr_adapter.score.alone_weights import weigh_alone
    from msr_adapter.score.weighing_users import write_weighing_candidates

    assert c.pipeline.evaluate.hybrid is not None, "no hybrid is asked for"
    users = write_weighing_candidates(c.dirs.data, c.out, c.pipeline.evaluate.hybrid.users, c.pipeline.seed)
    counts = {"users": users} | _score(c, make_scorer(c), replace(c.dirs, candidates=c.out), "validation")
    if not c.pipeline.train.asks_text:
        return counts
    primary = c.pipeline.evaluate.protocol.primary_metric
    return counts | weigh_alone(c.out, c.pipeline.train.text_answer, primary, c.job.reporter)


def run_retrieve(c: Context) -> dict[str, Any]:
    """Retrieve items of the whole catalogue for the test users."""
    from msr_adapter.evaluate.retrieval import RetrieveDirs, retrieve
    from msr_adapter.evaluate.table_retrieval import RetrievalSettings

    settings = RetrievalSettings(c.pipeline.embedding, c.pipeline.fusion, c.dir("embed"))
    return {**retrieve(c.pipeline.evaluate, RetrieveDirs(c.dirs.data, c.dir("baselines")), settings, c.job)}


def run_rerank(c: Context) -> dict[str, Any]:
    """Score what was retrieved with the trained model."""
    return _score(c, make_scorer(c), _retrieved(c))


def run_rerank_base(c: Context) -> dict[str, Any]:
    """Score what was retrieved with the model before training."""
    scorer = c.backend(c.pipeline.train.scoring_model, starting_weights(c.pipeline.train))
    return _score(c, scorer, _retrieved(c))


def _retrieved(c: Context) -> StageDirs:
    """Return the folders in which retrieved items are the candidates."""
    return replace(c.dirs, candidates=c.dir("retrieve"))


def _score(
    c: Context, scorer: AbstractContextManager[Backend], dirs: StageDirs | None = None, split: str = "test"
) -> dict[str, Any]:
    from msr_adapter.score import score

    with c.cache() as cache, scorer as backend:
        client = Client(c.prompts, backend, cache)
        return score(c.pipeline.train, dirs or c.dirs, client, c.job, bounded_share(c.pipeline), split)


def make_scorer(c: Context) -> AbstractContextManager[Backend]:
    """Return what scores candidates: the trained model, where `execution` says, or the server that serves it."""
    from msr_adapter.backends import make_server_scorer

    p, trained = c.pipeline, c.dirs.train
    if p.evaluate.scorer is None:
        return c.backend(p.train.scoring_model, trained_weights(trained))
    # Weights that were trained here are part of what the server is taken for.
    weights = trained_weights(trained) if trained.exists() else BASE
    return nullcontext(make_server_scorer(p.evaluate.scorer, p.train.model, weights))


def bounded_share(p: PipelineConfig) -> float:
    """Return the largest share of candidates that may have a bound for a score; a model in memory has none."""
    scorer = p.evaluate.scorer
    return scorer.server.bounded_share if scorer is not None and scorer.server is not None else 0.0


def run_baselines(c: Context) -> dict[str, Any]:
    """Fit the baselines and score the test candidates."""
    from msr_adapter.evaluate.baselines.fitting import fit_baselines

    return {**fit_baselines(c.pipeline.evaluate, c.dirs.data, c.job)}


def run_evaluate(c: Context) -> dict[str, Any]:
    """Judge the run that ``c`` belongs to and write its report."""
    from msr_adapter.evaluate.evaluation import EvaluateDirs, RunFacts, evaluate

    run = RunFacts(c.pipeline.name, _versions())
    manifests = {manifest.stage: asdict(manifest) for manifest in c.folder.manifests() if manifest.stage in c.labels}
    told = ReportContext(
        name=run.pipeline,
        config=redact_values(c.resolved),  # a report is given to others
        versions=run.versions,
        manifests=cast("Manifests", redact_values(manifests)),
        labels=c.labels,
        training_log=c.dirs.train / "model" / "trainer_log.jsonl",
        items_dir=c.dirs.items,
        users_dir=c.dirs.users,
        user_summaries_dir=c.dirs.user_summaries,
        templates=c.pipeline.templates,
    )
    settings = c.pipeline.evaluate
    folders = {"trained": c.dir("score")}
    if "base" in settings.baselines:
        folders["base"] = c.dir("score-base")
    full, again = settings.full, {}
    if full is not None:
        again = {"trained": c.dir("rerank")} | ({"base": c.dir("rerank-base")} if full.base else {})
    retrieved = c.dir("retrieve") if full else None
    validation = c.dir("score-validation") if weighs_trained(c.pipeline) else None
    seeds = training_seeds(c.pipeline)
    repeats = [(seed, training_folder(c.folder.root, number) / "score") for number, seed in enumerate(seeds, start=1)]
    dirs = EvaluateDirs(c.dirs.data, folders, c.dir("baselines"), retrieved, again, validation,
                        repeats if len(repeats) > 1 else ())  # fmt: skip
    return write_report(evaluate(settings, dirs, run, c.job), told, c.job)


def write_report(evaluation: "Evaluation", context: ReportContext, job: Job) -> dict[str, Any]:
    """Write `report.html` into ``job.out``, say what was found, and return the key numbers."""
    from msr_adapter.report.page import write_report as write
    from msr_adapter.report.sections import headline

    write(evaluation, job.out / "report.html", context)
    evaluation.say(job.reporter, headline(evaluation.metrics))
    return evaluation.key_numbers


def _versions() -> dict[str, str]:
    found = {"msr": __version__}
    for library in _LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            found[library] = "absent"
    return found
