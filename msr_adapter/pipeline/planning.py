"""Which stages a command needs, and which of them are up to date."""

import contextlib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final, Literal

from msr_adapter.config.loader import LoadedPipeline
from msr_adapter.config.schema import PipelineConfig
from msr_adapter.errors import Problem, UserError
from msr_adapter.files import digest
from msr_adapter.integrity import alterations, read_sealed
from msr_adapter.pipeline.kept import changes, find_kept, is_there, kept_stages, made_on, shortly
from msr_adapter.pipeline.repeated_trainings import training_folder
from msr_adapter.pipeline.resolve_templates import resolve_models
from msr_adapter.pipeline.run_folder import RunFolder, is_as_left
from msr_adapter.pipeline.stage_context import prompts_of
from msr_adapter.pipeline.stages import STAGES, WHOLE, Stage
from msr_adapter.prompts import TEMPLATE_NAMES, Prompts

UP_TO_DATE: Final = "up to date"
EDITED: Final = "its files were changed by hand"
FOUND_AGAIN: Final = "found again"
"""How the state of a stage begins that was made before, under the settings of now, and is kept."""
DATA: Final = "data"
TRAIN: Final = "train"
SCORE: Final = "score"
ITEMS: Final = "items"

Retrain = Literal["make", "refuse"]
"""What becomes of a trained model that is out of date: another is made, or the command ends and says how."""
_OWN_PARTS = ("version", "config", "sources", "templates")
"""Of a fingerprint: what no other stage can bring back to what it was."""


def plan(loaded: LoadedPipeline, *, asking_again: bool = True) -> dict[str, str]:
    """Return stage -> ``up to date`` or the reason why `msr run` would run it; reads only, takes no lock.

    Without ``asking_again``, requests that failed in a stage's last run are no reason.
    """
    folder = RunFolder(loaded.run_dir)
    with contextlib.suppress(UserError):  # which `check` tells
        loaded = resolve_models(loaded, download=False)
    prompts = prompts_of(loaded.pipeline)
    reasons: dict[str, str] = {}
    for stage in wanted_stages(loaded.pipeline, WHOLE):
        waiting = [name for name in stage.inputs if reasons.get(name, UP_TO_DATE) != UP_TO_DATE]
        current = fingerprint(stage, loaded.pipeline, folder, prompts)
        reason = stale(stage, folder, current)
        if reason and (kept := find_kept(stage, folder, current)) and kept.manifest:
            reason = f"{FOUND_AGAIN}, as made on {made_on(kept.manifest)}"
        elif not reason and asking_again:
            reason = asked_again(folder.failed(stage.name))
        reasons[stage.name] = f"after {waiting[0]}" if waiting else reason or UP_TO_DATE
    return reasons


def changed_inputs(root: Path) -> list[str]:
    """Return ``the data`` if the files that a finished run was made of are no longer what they were, else nothing."""
    stage = next(stage for stage in STAGES if stage.name == DATA)
    manifest = RunFolder(root).manifest(DATA)
    try:
        pipeline = PipelineConfig.model_validate(
            {key: value for key, value in read_sealed(root / "pipeline.json").items() if key != "run_dir"}
        )
        changed = manifest is not None and digest(stage.sources(pipeline)) != manifest.fingerprint["sources"]
    except (ValueError, OSError, KeyError, UserError):  # nobody can say: the files may have moved
        return []
    return ["the data"] if changed else []


def wanted_stages(pipeline: PipelineConfig, targets: Collection[str]) -> list[Stage]:
    """Return the needed stages among ``targets`` and everything upstream of them, in order."""
    wanted = set(targets)
    for stage in reversed(STAGES):
        if stage.name in wanted:
            wanted.update(set(stage.inputs) - set(stage.spared(pipeline)))
    return [stage for stage in STAGES if stage.name in wanted and stage.needed(pipeline)]


def fingerprint(stage: Stage, pipeline: PipelineConfig, folder: RunFolder, prompts: Prompts) -> dict[str, str]:
    """Return part -> digest of all that decides what the stage makes; equal parts, equal output."""
    needed = {other.name for other in STAGES if other.needed(pipeline)}
    upstream = {name: folder.manifest(name) for name in stage.inputs if name in needed}
    return {
        "version": str(stage.version),
        "config": digest(stage.config(pipeline)),
        "sources": digest(stage.sources(pipeline)),
        "templates": digest([prompts.digest(name) for name in stage.templates(pipeline)]),
        **{f"{name} stage": manifest.output if manifest else "absent" for name, manifest in upstream.items()},
        **{
            f"{name} stage, all of it": manifest.whole if (manifest := upstream.get(name)) else "absent"
            for name in stage.shows_all_of
        },
        **(_repeats(pipeline, folder) if stage.over_trainings else {}),
        **_said(stage, pipeline, folder, prompts),
        **_weighed(stage, folder),
    }


def _weighed(stage: Stage, folder: RunFolder) -> dict[str, str]:
    """Return what events count, for the stage that learns from it; nothing where all count the same."""
    data = folder.manifest(DATA) if stage.name == "baselines" else None
    weights = data.summary.get("events", {}).get("weights") if data else None
    return {"weights of events": weights} if weights else {}


def _repeats(pipeline: PipelineConfig, folder: RunFolder) -> dict[str, str]:
    """Return what came of the further trainings."""
    numbers = range(2, pipeline.train.repeats + 1)
    made = {number: RunFolder(training_folder(folder.root, number)).manifest(SCORE) for number in numbers}
    return {f"scores of training {number}": one.output if one else "absent" for number, one in made.items()}


def _said(stage: Stage, pipeline: PipelineConfig, folder: RunFolder, prompts: Prompts) -> dict[str, str]:
    """Return what the stage's templates say of items and users beside what its inputs hold: columns, by content.

    Nothing for templates that say none of it, whose stages do not depend on it.
    """
    said: list[object] = []
    templates = [name for name in stage.templates(pipeline) if name in TEMPLATE_NAMES]  # the report's says no attribute
    if not templates:
        return {}
    data, used = folder.manifest(DATA), prompts.fields(*templates)
    for owner, known in (data.summary.get("attributes", {}) if data else {}).items():
        said += [[owner, name, known[name]["digest"]] for name in used.among(known)]
    if (events := data.summary.get("events") if data else None) and used.has("event"):
        said.append(["event", events["said"]])
    items = folder.manifest(ITEMS)
    if prompts.says_candidates_summaries and "recommend" in templates and ITEMS not in stage.inputs:
        said.append([ITEMS, items.output if items else "absent"])
    if stage.name == ITEMS and prompts.says_candidates_summaries:
        said.append("all items")
    return {"attributes": digest(said)} if said else {}


def stale(stage: Stage, folder: RunFolder, current: dict[str, str]) -> str | None:
    """Return why the stage must run, or None when it is up to date; requests that failed in it are no reason here."""
    manifest = folder.manifest(stage.name)
    if manifest is None:
        return "new"
    changed = sorted(
        part for part in {*current, *manifest.fingerprint} if current.get(part) != manifest.fingerprint.get(part)
    )
    if changed:
        return f"{', '.join(changed)} changed"
    made = folder.stage(stage.name)
    found = alterations(made, whole=False)
    unknown = manifest.files is None  # an older version wrote no digests
    if found.gone or (unknown and not is_as_left(made, stage.outputs, manifest)):
        return "its files changed"
    return EDITED if found.edited else None


def refuse_surely_stale(loaded: LoadedPipeline, folder: RunFolder, prompts: Prompts) -> None:
    """Raise `UserError` if no trained model there is can be what is asked for, whatever comes of the stages before.

    Without any trained model, there is nothing to refuse.
    """
    stage = next(stage for stage in STAGES if stage.name == TRAIN)
    current = fingerprint(stage, loaded.pipeline, folder, prompts)
    there = [folder.manifest(TRAIN), *(one.manifest for one in kept_stages(folder, TRAIN))]
    makings = [manifest for manifest in there if manifest]
    if makings and all(
        any(manifest.fingerprint.get(part) != current[part] for part in _OWN_PARTS) for manifest in makings
    ):
        reason = stale(stage, folder, current) or UP_TO_DATE
        raise UserError(stale_training(loaded, folder, reason))


def must_not_retrain(stage: Stage, folder: RunFolder, retrain: Retrain) -> bool:
    """Say whether ``stage`` is a training that exists, under other settings, and may not be made again."""
    return retrain == "refuse" and stage.name == TRAIN and is_there(folder, TRAIN)


def stale_training(loaded: LoadedPipeline, folder: RunFolder, reason: str) -> Problem:
    """Say that the trained model is another than the one asked for, why, and what makes it anew."""
    manifest = folder.manifest(TRAIN)
    found = "the trained model is out of date"
    if manifest is None:
        found = f"no trained model is in its place; of those in {folder.kept(TRAIN)} none fits"
    else:
        told = changes(manifest.settings, loaded.resolved, TRAIN) if manifest.settings else []
        found += f" ({shortly(told) or reason}; trained on {made_on(manifest)})"
    step = (f"`msr train {loaded.origin}` with the same --set and --run-dir brings it up to date and keeps the one "
            "there is; --train does so here")  # fmt: skip
    return Problem(str(folder.stage(TRAIN)), "", found, "only `msr run` and `msr train` make one again", step)


def asked_again(failed: int) -> str | None:
    """Return the note that ``failed`` requests of a finished stage are asked again; None if there are none."""
    return f"{failed:,} failed request{'s are' if failed > 1 else ' is'} asked again" if failed else None


def find_donor(stage: Stage, donors: Sequence[RunFolder], current: dict[str, str]) -> RunFolder | None:
    """Return the run that has the very same stage; of several, the first of those with the fewest failed requests."""
    same = [one for one in donors if stale(stage, one, current) is None]
    return min(same, key=lambda one: one.failed(stage.name), default=None)
