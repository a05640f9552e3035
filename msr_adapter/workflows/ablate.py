"""`msr ablate`: the same experiment with one part removed, on the same users and candidate lists.

run_dir/                       the experiment itself ("full"), as `msr run` leaves it
run_dir/ablations/<variant>/   one run folder per variant; stages that come out equal are shared with the others
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from msr_adapter.config.loader import LoadedPipeline, load_pipeline
from msr_adapter.errors import Problem, UserError, did_you_mean
from msr_adapter.pipeline.planning import Retrain
from msr_adapter.pipeline.run_folder import RunFolder
from msr_adapter.pipeline.runner import run
from msr_adapter.pipeline.stages import STAGE_NAMES
from msr_adapter.progress import Reporter

FULL = "full"


@dataclass(frozen=True)
class Variant:
    """One row of the table."""

    what: str
    sets: tuple[str, ...] = ()
    """What differs from the full experiment."""
    model: str = "trained"
    """The model of the run that the row shows."""


VARIANTS: Mapping[str, Variant] = {
    FULL: Variant("the pipeline as it is"),
    "direct": Variant("the whole history in one prompt, not block by block", ("summarize.users.mode=direct",)),
    "no-image-summary": Variant(
        "titles instead of item summaries; no image is described", ("summarize.items.mode=none",)
    ),
    "no-image": Variant("no candidate image in the recommender's prompt", ("train.images=false",)),
    "no-sft": Variant("the recommender before fine-tuning", (), "base"),
    "text-only": Variant("no image anywhere", ("summarize.items.mode=none", "train.images=false")),
    "no-summary": Variant("the listed history instead of a user summary", ("summarize.users.mode=none",)),
}


@dataclass(frozen=True)
class Ablation:
    """One finished variant."""

    name: str
    run_dir: Path
    model: str
    what: str


def ablate(
    argument: str,
    sets: Sequence[str],
    run_dir: Path | None,
    only: Sequence[str],
    reporter: Reporter,
    retrain: Retrain = "refuse",
) -> list[Ablation]:
    """Bring the runs of the variants ``only`` (all, if empty) up to date, the full one always; in the table's order.

    The full run's trained model, if it is out of date, is made again only where ``retrain`` says so, else `UserError`.
    Summaries and scores are kept in one cache, and a stage that comes out equal in two variants is done once.
    `UserError` for wrong input, for a variant that would be the full experiment again, and for a served model.
    """
    names = _chosen(only)
    full = load_pipeline(argument, [*sets, *_with_base(argument, sets, names)], run_dir)
    if full.pipeline.evaluate.scorer is not None:
        found, step = "one served model cannot stand in for every variant", "Add --set evaluate.scorer=null"
        raise UserError(Problem(full.where("evaluate.scorer"), "evaluate.scorer", found, "null", step))
    # Variants are compared with the full run: they need no baselines of their own but popularity, and no hybrid.
    common, root = [*sets, "evaluate.baselines=[popularity]", "evaluate.hybrid=null"], full.run_dir / "ablations"
    differing = [name for name in names if VARIANTS[name].sets]
    loaded = {name: load_pipeline(argument, [*common, *VARIANTS[name].sets], root / name) for name in differing}
    _require_different(full, loaded)
    reporter.note(f"ablation: {FULL}")
    run(full, STAGE_NAMES, reporter=reporter, retrain=retrain)
    done = [full.run_dir]
    for name, variant in loaded.items():
        reporter.note(f"ablation: {name} ({VARIANTS[name].what})")
        share_cache(full.run_dir, variant.run_dir)
        run(variant, STAGE_NAMES, reporter=reporter, donors=done)
        done.append(variant.run_dir)
    runs = {name: loaded[name].run_dir if name in loaded else full.run_dir for name in names}
    return [Ablation(name, folder, VARIANTS[name].model, VARIANTS[name].what) for name, folder in runs.items()]


def _chosen(only: Sequence[str]) -> list[str]:
    unknown = [
        Problem("--only", "", f"no variant `{name}`", f"one of {', '.join(VARIANTS)}", did_you_mean(name, VARIANTS))
        for name in only
        if name not in VARIANTS
    ]
    if unknown:
        raise UserError(unknown)
    return [name for name in VARIANTS if not only or name in only or name == FULL]


def _with_base(argument: str, sets: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return the setting that has the full run score the model before fine-tuning, where a variant shows it."""
    baselines = load_pipeline(argument, sets).pipeline.evaluate.baselines
    wanted = any(VARIANTS[name].model == "base" for name in names) and "base" not in baselines
    return [f"evaluate.baselines=[{', '.join([*baselines, 'base'])}]"] if wanted else []


def _require_different(full: LoadedPipeline, variants: Mapping[str, LoadedPipeline]) -> None:
    """Raise `UserError` naming every variant that would be the full experiment again."""
    same = [
        Problem(full.where(VARIANTS[name].sets[0].partition("=")[0]), name,
                "this pipeline has it that way already", f"a variant differs by {' '.join(VARIANTS[name].sets)}",
                f"Leave {name} out with --only, or change the pipeline")
        for name, variant in variants.items()
        if (variant.pipeline.summarize, variant.pipeline.train) == (full.pipeline.summarize, full.pipeline.train)
    ]  # fmt: skip
    if same:
        raise UserError(same)


def share_cache(full: Path, variant: Path) -> None:
    """Link the variant's cache folder to the full run's: a prompt that both need is answered once.

    The link is relative, so that the run folder can be moved.
    """
    (full / "cache").mkdir(exist_ok=True)
    RunFolder(variant).claim()
    link = variant / "cache"
    if not link.exists():
        link.symlink_to(os.path.relpath(full / "cache", variant), target_is_directory=True)
