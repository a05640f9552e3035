"""Which stages a command needs, and which of them are up to date."""

import contextlib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

from msr_adapter.config.loader import LoadedPipeline
from msr_adapter.config.schema import PipelineConfig
from msr_adapter.errors import UserError
from msr_adapter.files import digest, read_json_object
from msr_adapter.integrity import alterations
from msr_adapter.pipeline.resolve_templates import resolve_models
from msr_adapter.pipeline.run_folder import RunFolder, output_digest
from msr_adapter.pipeline.stage_context import prompts_of
from msr_adapter.pipeline.stages import STAGES, WHOLE, Stage
from msr_adapter.prompts import Prompts

UP_TO_DATE: Final = "up to date"
EDITED: Final = "its files were changed by hand"


def plan(loaded: LoadedPipeline, *, asking_again: bool = True) -> dict[str, str]:
    """Stage -> ``up to date`` or the reason why `msr run` would run it; reads only, takes no lock.

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
        reason = stale(stage, folder, current) or (asked_again(folder.failed(stage.name)) if asking_again else None)
        reasons[stage.name] = f"after {waiting[0]}" if waiting else reason or UP_TO_DATE
    return reasons


def changed_inputs(root: Path) -> list[str]:
    """Return ``the data`` if the files that a finished run was made of are no longer what they were, else nothing."""
    stage, manifest = STAGES[0], RunFolder(root).manifest(STAGES[0].name)
    try:
        pipeline = PipelineConfig.model_validate(
            {key: value for key, value in read_json_object(root / "pipeline.json").items() if key != "run_dir"}
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
    }


def stale(stage: Stage, folder: RunFolder, current: dict[str, str]) -> str | None:
    """Why the stage must run, or None when it is up to date; requests that failed in it are no reason here."""
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
    if found.gone or (unknown and output_digest(made, stage.outputs) != manifest.output):
        return "its files changed"
    return EDITED if found.edited else None


def asked_again(failed: int) -> str | None:
    """Say that ``failed`` requests of a finished stage are asked again; None if there are none."""
    return f"{failed:,} failed request{'s are' if failed > 1 else ' is'} asked again" if failed else None


def find_donor(stage: Stage, donors: Sequence[RunFolder], current: dict[str, str]) -> RunFolder | None:
    """Return the run that has the very same stage; of several, the first of those with the fewest failed requests."""
    same = [one for one in donors if stale(stage, one, current) is None]
    return min(same, key=lambda one: one.failed(stage.name), default=None)
