"""Bring stages up to date, in order."""

import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from msr_adapter.config.loader import LoadedPipeline
from msr_adapter.errors import Problem, StageError, UserError, raise_if_any
from msr_adapter.filesystem import guarded, is_full
from msr_adapter.integrity import require_unaltered, write_sealed
from msr_adapter.pipeline.checks import require
from msr_adapter.pipeline.kept import KeptStage, changes, find_kept, is_there, made_on, shortly
from msr_adapter.pipeline.later_refusals import require_finished
from msr_adapter.pipeline.peak_memory import watch_gpu, watch_memory
from msr_adapter.pipeline.planning import (
    EDITED,
    FOUND_AGAIN,
    SCORE,
    TRAIN,
    UP_TO_DATE,
    Retrain,
    asked_again,
    find_donor,
    fingerprint,
    must_not_retrain,
    plan,
    refuse_surely_stale,
    stale,
    stale_training,
    wanted_stages,
)
from msr_adapter.pipeline.repeated_trainings import repeated, training_seed
from msr_adapter.pipeline.resolve_templates import resolve_models
from msr_adapter.pipeline.run_folder import Manifest, RunFolder, output_digest
from msr_adapter.pipeline.run_tracking import tracked
from msr_adapter.pipeline.stage_context import Context, cache_path, prompts_of, stage_dirs
from msr_adapter.pipeline.stages import COSTLY, LABELS, STAGE_NAMES, STAGES, Stage
from msr_adapter.pipeline.stored_images import require_unaltered_images
from msr_adapter.pipeline.time_estimate import reranking_cost
from msr_adapter.progress import Reporter
from msr_adapter.prompts import Prompts
from msr_adapter.run_folder_mark import FORMAT, older_stages
from msr_adapter.stage_arguments import Job

State = Literal["done", "up to date"]

_OF_HOURS = ("items", "users")
"""Stages before the training that may take hours."""

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

    @property
    def product(self) -> tuple[str, Path]:
        """What the last stage makes, in words, and where it is."""
        last = self.stages[-1].name
        what, file = next(stage.product for stage in STAGES if stage.name == last)
        return what, self.run_dir / last / file


def run(
    loaded: LoadedPipeline,
    targets: Iterable[str],
    *,
    force: Iterable[str] = (),
    reporter: Reporter,
    donors: Sequence[Path] = (),
    retrain: Retrain = "make",
) -> RunResult:
    """Bring ``targets`` and all they depend on up to date; ``force`` names stages to redo whatever their fingerprint.

    What a costly stage made before under the very same fingerprint is taken back instead of made, and what another
    takes the place of is kept. A stage that one of the run folders ``donors`` (or the run that training starts from)
    has is taken over. A finished stage of which requests failed asks these again, and no others; if nobody answers, it
    stays as it is. Where ``retrain`` refuses, a trained model is not made again unless forced.
    Raises `UserError` for wrong input, a run folder in use or a training that is refused, `StageError` when a stage
    fails. What is finished stays.
    """
    require(loaded)
    return run_checked(loaded, targets, force=force, reporter=reporter, donors=donors, retrain=retrain)


def run_checked(
    loaded: LoadedPipeline,
    targets: Iterable[str],
    *,
    force: Iterable[str] = (),
    reporter: Reporter,
    donors: Sequence[Path] = (),
    retrain: Retrain = "make",
) -> RunResult:
    """Do what `run` does for a caller that has looked for problems already."""
    loaded = resolve_models(loaded, download=True)
    folder = RunFolder(loaded.run_dir)
    start = loaded.pipeline.train.start
    others = [RunFolder(donor) for donor in (*donors, *([start] if start else []))]
    forced = set(force)
    wanted = wanted_stages(loaded.pipeline, {*targets, *forced})
    if TRAIN in forced:
        retrain = "make"
    with guarded(folder.root), folder.locked():
        folder.sweep((*STAGE_NAMES, RECOMMENDING), COSTLY)
        prompts = prompts_of(loaded.pipeline)
        if retrain == "refuse" and TRAIN in {stage.name for stage in wanted}:
            refuse_surely_stale(loaded, folder, prompts)
        folder.remember(loaded.files)
        reporter = reporter.with_log(folder.root / "run.log")
        write_sealed(folder.root / "pipeline.json", loaded.resolved)
        _tell_older(folder, reporter)
        trains = any(stage.name == TRAIN for stage in wanted)
        job = _Run(loaded, folder, prompts, others, reporter, retrain, trains)
        outcomes = []
        with tracked(loaded, [stage.name for stage in wanted], reporter) as tell:
            for stage in wanted:
                if stage.over_trainings:
                    _repeat(job, SCORE, forced)
                outcomes.append(_bring_up_to_date(stage, job, stage.name in forced))
                tell(stage.name, outcomes[-1].state == "done")
            if trains and TRAIN in set(targets) and not any(stage.over_trainings for stage in wanted):
                _repeat(job, TRAIN, forced)
    return RunResult(folder.root, tuple(outcomes))


def _repeat(job: "_Run", target: str, forced: Collection[str]) -> None:
    """Bring the further trainings up to date as far as ``target``, each in its folder, all else shared with the first.

    A killed one goes on where it was, and finished ones are left alone.
    """
    loaded, repeats = job.loaded, job.loaded.pipeline.train.repeats
    for number in range(2, repeats + 1):
        one = repeated(loaded, number, cache_path(loaded.pipeline, job.folder).absolute())
        job.reporter.note(f"training {number} of {repeats}, seed {one.pipeline.train.seed}: {one.run_dir}")
        again = {name for name in (TRAIN, SCORE) if name in forced and (name == TRAIN or target == SCORE)}
        run_checked(one, (target,), force=again, reporter=job.reporter, donors=(job.folder.root,), retrain=job.retrain)


def use_trained(loaded: LoadedPipeline, folder: RunFolder, reporter: Reporter) -> None:
    """Have the trained model in its place: the one of the settings of now if it is kept, else the one there is.

    The latter is said in one line. The caller holds the lock. Raises `UserError` if there is none in place, or if it
    was trained from another base model, which its weights would not fit.
    """
    states = plan(loaded, asking_again=False)
    reason = states[TRAIN]
    if reason == UP_TO_DATE:
        return
    stage = next(stage for stage in STAGES if stage.name == TRAIN)
    prompts = prompts_of(loaded.pipeline)
    if reason.startswith(FOUND_AGAIN):
        job = _Run(loaded, folder, prompts, (), reporter, "refuse")
        reporter.note(
            f"{TRAIN:<11} {_take_back(stage, job, fingerprint(stage, loaded.pipeline, folder, prompts), reason)}"
        )
        return
    manifest = folder.manifest(TRAIN)
    if manifest is None:
        raise UserError(stale_training(loaded, folder, reason))
    require_unaltered([folder.stage(TRAIN)])
    _require_base_model(loaded, manifest)
    first = next(name for name, state in states.items() if state != UP_TO_DATE and not state.startswith("after"))
    why = shortly(changes(manifest.settings, loaded.resolved, TRAIN) if manifest.settings else [])
    reporter.note(
        f"{TRAIN:<11} used as it is, trained on {made_on(manifest)}: {why or f'{first}: {states[first]}'}; "
        f"`msr train {loaded.origin}` brings it up to date"
    )


def _require_base_model(loaded: LoadedPipeline, manifest: Manifest) -> None:
    then = manifest.settings.get("train", {}).get("model", {})
    now = loaded.resolved["train"]["model"]
    differ = [key for key in ("path", "revision", "adapter") if key in then and then[key] != now[key]]
    if differ:
        key = f"train.model.{differ[0]}"
        found = f"{now[differ[0]]}, but the model was trained from {then[differ[0]]}"
        step = f"Set it back, or train it: `msr train {loaded.origin}`, or add --train"
        raise UserError(Problem(loaded.where(key), key, found, next_step=step))


def write_training_yaml(loaded: LoadedPipeline, reporter: Reporter) -> Path:
    """Bring the dataset up to date and write the LLaMA-Factory YAML without training; return its path."""
    from msr_adapter.llamafactory.training_yaml import by_hand_problems
    from msr_adapter.train import write_training_yaml as write

    raise_if_any(by_hand_problems(loaded.run_dir))  # before anything is summarised for commands that could not work
    run(loaded, ("dataset",), reporter=reporter)
    loaded = resolve_models(loaded, download=True)
    folder = RunFolder(loaded.run_dir)
    with folder.locked():
        out = folder.root / "train-dry-run"
        out.mkdir(exist_ok=True)
        job = Job(out, Reporter(quiet=True), training_seed(loaded.pipeline))
        return write(loaded.pipeline.train, stage_dirs(loaded.pipeline, folder), job)


def join(
    loaded: LoadedPipeline,
    targets: Iterable[str],
    *,
    force: Iterable[str] = (),
    reporter: Reporter,
    retrain: Retrain = "make",
) -> bool:
    """Where this is not the first of several machines: train beside the first, return True when that has ended.

    Nothing is waited for where ``targets`` need no training, or the model is there, may not be made again or is up to
    date, and nothing is forced.
    """
    launch, forced = loaded.pipeline.train.launch, set(force)
    wanted = [stage.name for stage in wanted_stages(loaded.pipeline, {*targets, *forced})]
    if launch.nodes == 1 or launch.engine == "ray" or "train" not in wanted:
        return False
    from msr_adapter.train import join_training, training_place

    require(loaded)
    loaded = resolve_models(loaded, download=True)
    # The first machine may ask failed requests again; mostly nothing comes of it, and nobody should wait for that.
    state = plan(loaded, asking_again=False).get(TRAIN, "")
    trained = state == UP_TO_DATE or state.startswith(FOUND_AGAIN)
    trained = trained or (retrain == "refuse" and is_there(RunFolder(loaded.run_dir), TRAIN))
    if training_place(loaded.pipeline.train).rank > 0 and not forced and trained:
        reporter.note("train       already there; the first machine does the rest")
        return True
    return join_training(loaded.pipeline.train, loaded.run_dir, reporter)


def _tell_older(folder: RunFolder, reporter: Reporter) -> None:
    """Say that the run is an older version's, and that what this one makes differently is made again."""
    if older := older_stages(folder.root, STAGE_NAMES):
        reporter.note(
            f"{folder.root} is a run of an older version of msr ({', '.join(older)}): what this version makes "
            "differently is made again; everything else is kept"
        )


@dataclass(frozen=True)
class _Run:
    """What stays the same from stage to stage of one run."""

    loaded: LoadedPipeline
    folder: RunFolder
    prompts: Prompts
    donors: Sequence[RunFolder]
    reporter: Reporter
    retrain: Retrain
    trains: bool = False
    """Whether a training follows, for which what its preflight would refuse is told before the summaries."""


def _bring_up_to_date(stage: Stage, job: _Run, forced: bool) -> StageOutcome:
    """Run a stage, take it over from a donor, or leave it as it is; return what became of it."""
    folder, reporter = job.folder, job.reporter
    current = fingerprint(stage, job.loaded.pipeline, folder, job.prompts)
    reason = "forced" if forced else stale(stage, folder, current)
    if reason == EDITED:  # somebody's work, or somebody's mistake: neither is believed, nor thrown away unasked
        require_unaltered([folder.stage(stage.name)])
    found = None if forced else _take_back(stage, job, current, reason)
    reason = None if found else reason
    again = asked_again(folder.failed(stage.name))
    if reason is None and again is None:
        folder.renew(stage.name)
        return _leave(stage, job, found or UP_TO_DATE)
    if not forced and (donor := find_donor(stage, job.donors, current)):
        # The failed requests stay the donor's: the answers to all others are in its cache.
        folder.adopt(stage.name, donor, keep=stage.costly and reason is not None)
        folder.renew(stage.name)
        left = asked_again(donor.failed(stage.name))
        return _leave(stage, job, f"up to date, as in {donor.root}{f', where {left}' if left else ''}")
    if reason and not forced and must_not_retrain(stage, folder, job.retrain):
        raise UserError(stale_training(job.loaded, folder, reason))
    # Weights are compared by who loads them, maybe in another process, or by nobody.
    require_unaltered([folder.stage(name) for name in stage.inputs if name != "train"], whole=True)
    require_unaltered([folder.stage(name) for name in stage.inputs if name == "train"])
    if "data" in stage.inputs:
        require_unaltered_images(folder.stage("data"))
    if stage.name in _OF_HOURS and (job.trains or job.loaded.pipeline.data.items.attributes):
        require_finished(job.loaded, folder)
    reporter.note(f"{stage.name:<11} {f'{found}; ' if found else ''}running ({reason or again})")
    if stage.prompts_retrieved:
        reporter.note(f"  {reranking_cost(job.loaded.pipeline, folder, stage.name)}")
    out = folder.begin(stage.name)
    context = Context(job.loaded.pipeline, job.loaded.resolved, folder, job.prompts, out, reporter, LABELS)
    started, peak, gpu = time.monotonic(), watch_memory(), watch_gpu()
    try:
        summary = stage.run(context)
    except UserError:  # after any other failure it stays, to be looked at; the next attempt begins anew anyway
        folder.discard(stage.name)
        raise
    except StageError as error:
        if reason or is_full(error):
            raise
        # Its policy made do without these answers, and still does when nobody is there to give them.
        folder.discard(stage.name)
        return _leave(stage, job, f"stays as it is, without them: {error.what}")
    seconds = round(time.monotonic() - started, 2)
    finished = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    output, whole = output_digest(out, stage.outputs), ""
    if stage.part:
        output, whole = output_digest(out, stage.outputs, stage.part), output
    settings = job.loaded.resolved if stage.costly else {}
    manifest = Manifest(stage.name, current, output, summary, seconds, finished, peak(), gpu(), whole, FORMAT, settings)
    kept = folder.publish(manifest, keep=stage.costly and reason is not None)
    told = f"; the one before is kept in {kept.relative_to(folder.root)}" if kept else ""
    reporter.note(f"{stage.name:<11} done in {seconds:.1f} s{told}")
    return StageOutcome(stage.name, "done", seconds, summary)


def _take_back(stage: Stage, job: _Run, current: dict[str, str], reason: str | None) -> str | None:
    """Take back what the stage made under the settings of now, where that is better than what is there; say so."""
    folder = job.folder
    kept: KeptStage | None = None
    if reason or folder.failed(stage.name):
        kept = find_kept(stage, folder, current)
    if kept is None or kept.manifest is None:
        return None
    if not reason and kept.manifest.summary.get("failed", 0) >= folder.failed(stage.name):
        return None
    said = f"{FOUND_AGAIN}, as made on {made_on(kept.manifest)}"
    folder.take_back(stage.name, kept.folder, keep=reason is not None)
    return said


def _leave(stage: Stage, job: _Run, said: str) -> StageOutcome:
    """Note ``said``, why the finished stage is left alone, and return its outcome."""
    job.reporter.note(f"{stage.name:<11} {said}")
    manifest = job.folder.manifest(stage.name)
    return StageOutcome(stage.name, UP_TO_DATE, 0.0, dict(manifest.summary) if manifest else {})
