"""Whether an earlier run can be mined for training negatives: it has a trained model, of this very log and split."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from msr_adapter.config.loader import LoadedPipeline
from msr_adapter.config.schema import ModelConfig, PipelineConfig
from msr_adapter.errors import Problem, UserError, plural
from msr_adapter.pipeline.earlier_run import EarlierRun, open_earlier
from msr_adapter.pipeline.embedding_stage import check_retriever
from msr_adapter.pipeline.planning import DATA, TRAIN, UP_TO_DATE, fingerprint, stale
from msr_adapter.pipeline.stages import STAGES

_RUN = "train.negatives.run"
_RETRIEVER = "train.negatives.retriever"
_BESIDE = {"images", "items", "users", "max_expansion"}
"""Keys of `data` that decide nothing of who interacted with what."""
_ABSENT = "nothing"


def check_mining(loaded: LoadedPipeline) -> list[Problem]:
    """Return why nothing can be mined from the run that `train.negatives.run` names; nothing where none is."""
    negatives = loaded.pipeline.train.negatives
    if not negatives.mines or negatives.run is None:
        return []
    root, where = negatives.run, loaded.where(_RUN)
    problems = check_retriever(loaded, negatives.retriever, (loaded.where(_RETRIEVER), _RETRIEVER))
    if root == loaded.run_dir:
        found = f"{root} is the run's own folder: its model would be trained on what it says itself"
        step = "Give this pipeline another name or --run-dir"
        return [*problems, Problem(where, _RUN, found, "an earlier run", step)]
    try:
        earlier = open_earlier(root)
    except UserError as error:
        step = f"Run `msr run {root.name}` first, or name another run"
        told = (replace(one, where=where, field=_RUN, found=_found(one), next_step=step) for one in error.problems)
        return [*problems, *told]
    unfit = [*_not_whole(earlier), *_differences(loaded, earlier)]
    return [*problems, *(replace(one, where=where, field=_RUN) for one in unfit)]


@dataclass(frozen=True)
class MiningWork:
    """What is asked of an earlier run's model."""

    model: ModelConfig
    users: int
    prompts: int
    """At most: a user may have few items left."""


def mining_work(p: PipelineConfig) -> MiningWork | None:
    """Return how often an earlier run's model is asked; None where nothing is mined, or the run is not whole."""
    negatives = p.train.negatives
    if not negatives.mines or negatives.run is None:
        return None
    try:
        earlier = open_earlier(negatives.run)
    except UserError:  # `check` tells
        return None
    manifest = earlier.folder.manifest(DATA)
    users = int(manifest.summary["splits"]["train"]["users"]) if manifest else 0
    return MiningWork(earlier.pipeline.train.model, users, users * negatives.among)


def mining_notes(loaded: LoadedPipeline, state: str | None) -> list[str]:
    """Return how often the earlier run's model will be asked, where it will be; ``state`` is `plan`'s of the stage."""
    negatives, work = loaded.pipeline.train.negatives, mining_work(loaded.pipeline)
    if state in (None, UP_TO_DATE) or negatives.run is None or work is None:
        return []
    return [f"train.negatives: the model of {negatives.run.name} is asked about {negatives.among:,} items for each of "
            f"{plural(work.users, 'training user')}: {work.prompts:,} prompts at most, once"]  # fmt: skip


def _found(problem: Problem) -> str:
    return f"{problem.where}: {problem.found}" if problem.where else problem.found


def _not_whole(earlier: EarlierRun) -> Iterator[Problem]:
    """Yield why the tables of the earlier run are not those that its model was trained on."""
    folder, root = earlier.folder, earlier.folder.root
    step = f"Run `msr run {root.name}` again, or name another run"
    whole = "the data and the summaries that its model was trained on"
    stage = next(stage for stage in STAGES if stage.name == DATA)
    data, trained = folder.manifest(DATA), folder.manifest(TRAIN)
    reason = stale(stage, folder, fingerprint(stage, earlier.pipeline, folder, earlier.prompts))
    if data is None or reason:
        yield Problem("", "", f"{root}: its data is not what its settings and its log make now ({reason})", whole, step)
    elif trained is None or trained.fingerprint.get(f"{DATA} stage") != data.output:
        yield Problem("", "", f"{root}: its model was trained on other data than is there now", whole, step)
    if folder.manifest(earlier.dirs.user_summaries.name) is None:
        yield Problem("", "", f"{root}: its user summaries are gone", whole, step)


def _differences(loaded: LoadedPipeline, earlier: EarlierRun) -> Iterator[Problem]:
    """Yield what makes the earlier run's log, catalogue or split another than this pipeline's.

    Equal ones are the same users, items and held-out targets: else that model might have been trained on what is held
    out here, and its scores would tell.
    """
    from msr_adapter.data import source_stamp

    root, allowed = earlier.folder.root, "the same log, items and split: else it may know what is held out here"
    ours, theirs = (dict(_leaves(_known(p))) for p in (loaded.pipeline, earlier.pipeline))
    for key in sorted({*ours, *theirs}):
        mine, other = ours.get(key, _ABSENT), theirs.get(key, _ABSENT)
        if mine != other:
            step = f"Set {key} as there, or name a run that was made with it"
            yield Problem("", "", f"{root} has {key}: {other}, and here it is {mine}", allowed, step)
    logs = [source_stamp(p.data) for p in (loaded.pipeline, earlier.pipeline)]
    roles = sorted({*logs[0], *logs[1]} - {"images", "users"})
    if differ := [role for role in roles if logs[0].get(role) != logs[1].get(role)]:
        found = f"{root} was made of other files ({', '.join(differ)})"
        yield Problem(
            "", "", found, allowed, f"Run `msr run {root.name}` on the files of this pipeline, or name another run"
        )


def _known(p: PipelineConfig) -> dict[str, Any]:
    """Return the settings that decide the log, the catalogue, the split and its targets."""
    protocol = p.evaluate.protocol.model_dump(include={"target", "catalogue", "cold"})
    window = {"summarize.users.block": p.history_step} if p.split.history_window == "blocks" else {}
    return {"data": p.data.model_dump(exclude=_BESIDE), "split": p.split.model_dump(), "seed": p.seed,
            "evaluate.protocol": protocol, **window}  # fmt: skip


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield what stands at each dotted key; paths are left out, as files are compared by their content."""
    if isinstance(value, dict):
        for name, child in value.items():
            yield from _leaves(child, f"{key}.{name}".removeprefix("."))
    elif not isinstance(value, Path):
        yield key, value
