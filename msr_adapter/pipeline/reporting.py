"""What the evaluate stage is told about the run."""

from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import msr_adapter
from msr_adapter.pipeline.context import Context

_LIBRARIES = ("llamafactory", "torch", "transformers", "peft", "datasets", "polars", "numpy", "implicit", "RecTools")


def evaluate_run(c: Context) -> dict[str, Any]:
    """Judge the run that ``c`` belongs to and write its report."""
    from msr_adapter.evaluate import ReportContext, evaluate

    told = ReportContext(
        name=c.pipeline.name,
        config=c.resolved,
        versions=_versions(),
        manifests={manifest.stage: asdict(manifest) for manifest in c.folder.manifests()},
        history=c.dir("train") / "model" / "trainer_log.jsonl",
        items_dir=c.dir("items"),
        users_dir=c.dir("users"),
        preferences_dir=c.preferences,
        templates=c.pipeline.templates,
    )
    settings = c.pipeline.evaluate
    folders = {"trained": c.dir("score")}
    if "base" in settings.baselines:
        folders["base"] = c.dir("score-base")
    return evaluate(
        settings.protocol, settings.baselines, c.pipeline.seed, c.dir("data"), folders, c.out, c.reporter, told,
        c.dir("baselines"), settings.tables,
    )  # fmt: skip


def _versions() -> dict[str, str]:
    found = {"msr": msr_adapter.__version__}
    for library in _LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            found[library] = "absent"
    return found
