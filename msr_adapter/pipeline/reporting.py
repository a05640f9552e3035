"""The evaluate stage of a run: the judgement, and the report of it."""

from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, cast

import msr_adapter
from msr_adapter.jobs import Job
from msr_adapter.pipeline.context import Context
from msr_adapter.report.context import Manifests, ReportContext

if TYPE_CHECKING:
    from msr_adapter.evaluate.evaluation import Evaluation

_LIBRARIES = ("llamafactory", "torch", "transformers", "peft", "datasets", "polars", "numpy", "implicit", "RecTools")

LABELS = {
    "data": "Build data",
    "lengths": "Length estimate",
    "items": "Item summaries",
    "users": "User summaries",
    "truncate": "Truncated user summaries",
    "dataset": "Training rows",
    "train": "Training",
    "score": "Scores, trained",
    "score-base": "Scores, base",
    "baselines": "Baselines",
}


def evaluate_run(c: Context) -> dict[str, Any]:
    """Judge the run that ``c`` belongs to and write its report."""
    from msr_adapter.evaluate.evaluation import EvaluateDirs, Run, evaluate

    run = Run(c.pipeline.name, _versions())
    told = ReportContext(
        name=run.pipeline,
        config=c.resolved,
        versions=run.versions,
        manifests=cast("Manifests", {manifest.stage: asdict(manifest) for manifest in c.folder.manifests()}),
        labels=LABELS,
        training_log=c.dir("train") / "model" / "trainer_log.jsonl",
        items_dir=c.dir("items"),
        users_dir=c.dir("users"),
        user_summaries_dir=c.user_summaries,
        templates=c.pipeline.templates,
    )
    settings = c.pipeline.evaluate
    folders = {"trained": c.dir("score")}
    if "base" in settings.baselines:
        folders["base"] = c.dir("score-base")
    dirs, job = EvaluateDirs(c.dir("data"), folders, c.dir("baselines")), Job(c.out, c.reporter, c.pipeline.seed)
    return report(evaluate(settings, dirs, run, job), told, job)


def report(evaluation: "Evaluation", context: ReportContext, job: Job) -> dict[str, Any]:
    """Write `report.html` into ``job.out``, say what was found, and return the key numbers."""
    from msr_adapter.report.page import write_report
    from msr_adapter.report.sections import headline

    write_report(evaluation, job.out / "report.html", context)
    evaluation.say(job.reporter, headline(evaluation.metrics))
    return evaluation.key_numbers


def _versions() -> dict[str, str]:
    found = {"msr": msr_adapter.__version__}
    for library in _LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            found[library] = "absent"
    return found
