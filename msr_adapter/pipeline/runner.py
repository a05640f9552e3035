"""Bring stages up to date, in order."""

import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from msr_adapter.config.loader import LoadedPipeline
from msr_adapter.config.schema import PipelineConfig
from msr_adapter.errors import StageError, UserError
from msr_adapter.files import digest, write_json
from msr_adapter.jobs import Job
from msr_adapter.pipeline.checks import require
from msr_adapter.pipeline.context import Context, prompts_of, stage_dirs
from msr_adapter.pipeline.resolve import resolve_models
from msr_adapter.pipeline.resources import watch_gpu, watch_memory
from msr_adapter.pipeline.run_folder import Manifest, RunFolder, output_digest
from msr_adapter.pipeline.stages import STAGE_NAMES, STAGES, WHOLE, Stage
from msr_adapter.progress import Reporter
from msr_adapter.prompts import Prompts

State = Literal["done", "up to date"]

RECOMMENDING = "recommend"
"""What `msr recommend` does in a run folder, called like a stage: its unfinished work has a name like theirs."""


@dataclass(frozen=True)
class StageOutcome:
    """What became of one stage."""

    name: str
    state: State
    seconds: float
    summary: dict[str, Any]


@dataclass(frozen=True)
class RunResult:
    """What a command did."""

    run_dir: Path
    stages: tuple[StageOutcome, ...]


def run(
    loaded: LoadedPipeline,
    targets: Iterable[str],
    *,
    force: Iterable[str] = (),
    reporter: Reporter,
    donors: Sequence[Path] = (),
    checked: bool = False,
) -> RunResult:
    """Bring ``targets`` and all they depend on up to date; ``force`` names stages to redo whatever their fingerprint.

    A stage that one of the run folders ``donors`` (or the run that training starts from) has under the very same
    fingerprint is taken over instead of run. A finished stage of which requests failed asks these again, and no others;
    if nobody answers, it stays as it is. With ``checked``, the caller has looked for problems already.
    Raises `UserError` for wrong input or a run folder in use, `StageError` when a stage fails. What is finished stays.
    """
    if not checked:
        require(loaded)
    loaded = resolve_models(loaded, download=True)
    folder = RunFolder(loaded.run_dir)
    start = loaded.pipeline.train.start
    others = [RunFolder(donor) for donor in (*donors, *([start] if start else []))]
    forced = set(force)
    with folder.locked():
        folder.sweep((*STAGE_NAMES, RECOMMENDING))
        folder.remember(loaded.files)
        reporter = reporter.with_log(folder.root / "run.log")
        write_json(folder.root / "pipeline.json", loaded.resolved)
        wanted = _wanted(loaded.pipeline, {*targets, *forced})
        outcomes = [
            _bring_up_to_date(stage, loaded, folder, stage.name in forced, reporter, others) for stage in wanted
        ]
    return RunResult(folder.root, tuple(outcomes))


def plan(loaded: LoadedPipeline, *, asking_again: bool = True) -> dict[str, str]:
    """Stage -> ``up to date`` or the reason why `msr run` would run it; reads only, takes no lock.

    Without ``asking_again``, requests that failed in a stage's last run are no reason.
    """
    folder = RunFolder(loaded.run_dir)
    with contextlib.suppress(UserError):  # which `check` tells
        loaded = resolve_models(loaded, download=False)
    prompts = prompts_of(loaded.pipeline)
    reasons: dict[str, str] = {}
    for stage in _wanted(loaded.pipeline, set(WHOLE)):
        waiting = [name for name in stage.inputs if reasons.get(name, "up to date") != "up to date"]
        current = _fingerprint(stage, loaded.pipeline, folder, prompts)
        reason = _reason(stage, folder, current) or (_asked_again(folder.failed(stage.name)) if asking_again else None)
        reasons[stage.name] = f"after {waiting[0]}" if waiting else reason or "up to date"
    return reasons


def write_training_yaml(loaded: LoadedPipeline, reporter: Reporter) -> Path:
    """Bring the dataset up to date and write the LLaMA-Factory YAML without training; return its path."""
    from msr_adapter.train import write_training_yaml as write

    run(loaded, ("dataset",), reporter=reporter)
    loaded = resolve_models(loaded, download=True)
    folder = RunFolder(loaded.run_dir)
    with folder.locked():
        out = folder.root / "train-dry-run"
        out.mkdir(exist_ok=True)
        job = Job(out, Reporter(quiet=True), loaded.pipeline.seed)
        return write(loaded.pipeline.train, stage_dirs(loaded.pipeline, folder), job)


def join(loaded: LoadedPipeline, targets: Iterable[str], *, force: Iterable[str] = (), reporter: Reporter) -> bool:
    """Where this is not the first of several machines: train beside the first, return True when that has ended.

    Nothing is waited for where ``targets`` need no training, or the model is up to date and nothing is forced.
    """
    launch, forced = loaded.pipeline.train.launch, set(force)
    wanted = [stage.name for stage in _wanted(loaded.pipeline, {*targets, *forced})]
    if launch.nodes == 1 or launch.engine == "ray" or "train" not in wanted:
        return False
    from msr_adapter.train import join_training, training_place

    require(loaded)
    loaded = resolve_models(loaded, download=True)
    # The first machine may ask failed requests again; mostly nothing comes of it, and nobody should wait for that.
    trained = plan(loaded, asking_again=False).get("train") == "up to date"
    if training_place(loaded.pipeline.train).rank > 0 and not forced and trained:
        reporter.note("train       up to date; the first machine does all else")
        return True
    return join_training(loaded.pipeline.train, loaded.run_dir, reporter)


def _wanted(pipeline: PipelineConfig, targets: set[str]) -> list[Stage]:
    """Return the needed stages among ``targets`` and everything upstream of them, in order."""
    wanted = set(targets)
    for stage in reversed(STAGES):
        if stage.name in wanted:
            wanted.update(set(stage.inputs) - set(stage.spared(pipeline)))
    return [stage for stage in STAGES if stage.name in wanted and stage.needed(pipeline)]


def _bring_up_to_date(
    stage: Stage,
    loaded: LoadedPipeline,
    folder: RunFolder,
    forced: bool,
    reporter: Reporter,
    donors: Sequence[RunFolder],
) -> StageOutcome:
    prompts = prompts_of(loaded.pipeline)
    current = _fingerprint(stage, loaded.pipeline, folder, prompts)
    stale = "forced" if forced else _reason(stage, folder, current)
    reason = stale or _asked_again(folder.failed(stage.name))
    donor = None if forced or reason is None else _donor(stage, donors, current)
    if reason is None:
        return _leave(stage, folder, reporter, "up to date")
    if donor:
        # The failed requests stay the donor's: the answers to all others are in its cache.
        folder.adopt(stage.name, donor)
        left = _asked_again(donor.failed(stage.name))
        return _leave(stage, folder, reporter, f"up to date, as in {donor.root}{f', where {left}' if left else ''}")
    reporter.note(f"{stage.name:<11} running ({reason})")
    out = folder.begin(stage.name)
    context = Context(loaded.pipeline, loaded.resolved, folder, prompts, out, reporter)
    started, peak, gpu = time.monotonic(), watch_memory(), watch_gpu()
    try:
        summary = stage.run(context)
    except UserError:  # after any other failure it stays, to be looked at; the next attempt begins anew anyway
        folder.discard(stage.name)
        raise
    except StageError as error:
        if stale:
            raise
        # Its policy made do without these answers, and still does when nobody is there to give them.
        folder.discard(stage.name)
        return _leave(stage, folder, reporter, f"stays as it is, without them: {error.what}")
    seconds = round(time.monotonic() - started, 2)
    finished = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    output = output_digest(out, stage.outputs)
    folder.publish(Manifest(stage.name, current, output, summary, seconds, finished, peak(), gpu()))
    reporter.note(f"{stage.name:<11} done in {seconds:.1f} s")
    return StageOutcome(stage.name, "done", seconds, summary)


def _leave(stage: Stage, folder: RunFolder, reporter: Reporter, said: str) -> StageOutcome:
    """Say why the finished stage is left alone, and return it."""
    reporter.note(f"{stage.name:<11} {said}")
    manifest = folder.manifest(stage.name)
    return StageOutcome(stage.name, "up to date", 0.0, dict(manifest.summary) if manifest else {})


def _donor(stage: Stage, donors: Sequence[RunFolder], current: dict[str, str]) -> RunFolder | None:
    """Return the run that has the very same stage; of several, the first of those with the fewest failed requests."""
    same = [one for one in donors if _reason(stage, one, current) is None]
    return min(same, key=lambda one: one.failed(stage.name), default=None)


def _asked_again(failed: int) -> str | None:
    """Say that ``failed`` requests of a finished stage are asked again; None if there are none."""
    return f"{failed:,} failed request{'s are' if failed > 1 else ' is'} asked again" if failed else None


def _fingerprint(stage: Stage, pipeline: PipelineConfig, folder: RunFolder, prompts: Prompts) -> dict[str, str]:
    upstream = {name: folder.manifest(name) for name in stage.inputs if _is_needed(name, pipeline)}
    return {
        "version": str(stage.version),
        "config": digest(stage.config(pipeline)),
        "sources": digest(stage.sources(pipeline)),
        "templates": digest([prompts.digest(name) for name in stage.templates_of(pipeline)]),
        **{f"{name} stage": manifest.output if manifest else "absent" for name, manifest in upstream.items()},
    }


def _is_needed(name: str, pipeline: PipelineConfig) -> bool:
    check: Callable[[PipelineConfig], bool] = next(stage.needed for stage in STAGES if stage.name == name)
    return check(pipeline)


def _reason(stage: Stage, folder: RunFolder, current: dict[str, str]) -> str | None:
    """Why the stage must run, or None when it is up to date; requests that failed in it are no reason here."""
    manifest = folder.manifest(stage.name)
    if manifest is None:
        return "new"
    changed = sorted(
        part for part in {*current, *manifest.fingerprint} if current.get(part) != manifest.fingerprint.get(part)
    )
    if changed:
        return f"{', '.join(changed)} changed"
    return None if output_digest(folder.stage(stage.name), stage.outputs) == manifest.output else "its files changed"
