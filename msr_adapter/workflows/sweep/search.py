"""The trials of a sweep: Optuna proposes settings, each is trained, the best checkpoint's value is told.

A trial is a run folder named by its settings, so that a killed sweep goes on in the middle of the training at which it
was killed, and settings that are proposed twice are trained once. Only validation users are asked about: `keep: best`
judges checkpoints by them, and no stage after the training is brought up to date.
"""

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msr_adapter.config.loader import LoadedPipeline, load_pipeline
from msr_adapter.errors import Problem, StageError, UserError, plural, raise_if_any
from msr_adapter.files import digest, read_json_object
from msr_adapter.pipeline.repeated_trainings import first_training
from msr_adapter.pipeline.run_folder import RunFolder
from msr_adapter.pipeline.runner import run
from msr_adapter.progress import Reporter
from msr_adapter.workflows.ablate import share_cache
from msr_adapter.workflows.sweep.space import Settings, Space

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

_FOLDER_NAME = 16
"""Characters of a trial's digest in its folder's name."""
KEEP = "train.keep=best"


@dataclass(frozen=True)
class Sweep:
    """What is searched, where, and how long."""

    argument: str
    """The pipeline, as the user named it."""
    sets: Sequence[str]
    full: LoadedPipeline
    """The pipeline with `train.keep: best`."""
    space: Space
    trials: int
    """How many there are to be at the end, those of earlier calls included."""

    @property
    def folder(self) -> Path:
        """Where the sweep is kept."""
        return self.full.run_dir / "sweeps" / self.space.path.stem

    def loaded(self, settings: Settings) -> LoadedPipeline:
        """Return the pipeline of one trial. Raises `UserError` where the settings are none that it may have."""
        name = digest({key: json.dumps(value) for key, value in sorted(settings.items())})[:_FOLDER_NAME]
        return load_pipeline(self.argument, [*self.sets, KEEP, *as_sets(settings)], self.folder / "trials" / name)


@dataclass(frozen=True)
class TrialResult:
    """One trial that has ended."""

    number: int
    settings: Settings
    run_dir: Path
    value: float | None
    """The metric of its best checkpoint on validation users; None where the training failed."""
    low: float | None = None
    high: float | None = None
    """The interval over validation users."""
    step: int | None = None
    """The checkpoint."""
    failure: str = ""


def as_sets(settings: Settings) -> list[str]:
    """Write settings as `--set` takes them; JSON is YAML."""
    return [f"{key}={json.dumps(value)}" for key, value in settings.items()]


def plan_sweep(argument: str, sets: Sequence[str], run_dir: Path | None, space: Space, trials: int) -> Sweep:
    """Return the sweep after a look at every value of a list and every end of a range.

    Raises `UserError` with all problems: settings that no pipeline may have, a pipeline without validation users.
    """
    full = load_pipeline(argument, [*sets, KEEP], run_dir)
    sweep = Sweep(argument, sets, full, space, trials)
    problems: list[Problem] = []
    seen: set[tuple[str, str]] = set()
    for key, settings in space.corners():
        try:
            sweep.loaded(settings)
        except UserError as error:
            told = [(problem.field, problem.found) for problem in error.problems]
            problems += [
                Problem(
                    space.where.get(problem.field, space.where[key]),
                    problem.field or key,
                    problem.found,
                    problem.allowed,
                    problem.next_step,
                )
                for problem, each in zip(error.problems, told, strict=True)
                if each not in seen
            ]
            seen |= set(told)
    raise_if_any(problems)
    return sweep


def search(sweep: Sweep, reporter: Reporter) -> list[TrialResult]:
    """Bring the sweep to its number of trials and return them in the order in which they were proposed.

    A training that fails is a trial without a value; the next one begins. `UserError` for another process in the same
    sweep, `StageError` where every trial failed.
    """
    RunFolder(sweep.full.run_dir).claim()
    with RunFolder(sweep.folder).locked(), _study(sweep) as study:
        _go_on(sweep, study)
        donors = [sweep.full.run_dir, *(result.run_dir for result in _ended(sweep, study))]
        while len(_counted(study)) < sweep.trials:
            study.sampler = _sampler(sweep, len(_counted(study)))
            trial = study.ask()
            settings = {key: each.ask(trial, key) for key, each in sweep.space.dimensions.items()}
            number = len(_counted(study))
            reporter.note(f"trial {number} of {sweep.trials}: {' '.join(as_sets(settings))}")
            loaded = sweep.loaded(settings)
            _train(loaded, trial, study, donors, reporter)
            donors = list(dict.fromkeys([*donors, loaded.run_dir]))
            if sweep.space.size is not None and len(_distinct(study)) == sweep.space.size:
                reporter.note(f"all {plural(sweep.space.size, 'set')} of values were tried")
                break
        results = _ended(sweep, study)
    if all(result.value is None for result in results):
        raise StageError(f"every trial failed; the last one: {results[-1].failure}")
    return results


def _train(loaded: LoadedPipeline, trial: "Trial", study: "Study", donors: Sequence[Path], reporter: Reporter) -> None:
    """Train one trial as far as its best checkpoint and tell its value."""
    from optuna.trial import TrialState

    share_cache(donors[0], loaded.run_dir)
    try:
        run(first_training(loaded), ["train"], reporter=reporter, donors=donors)
    except StageError as error:
        reporter.note(f"  this trial has no value: {error}")
        trial.set_user_attr("failure", str(error))
        study.tell(trial, state=TrialState.FAIL)
        return
    point = best_point(loaded.run_dir)
    for key, value in point.items():
        trial.set_user_attr(key, value)
    study.tell(trial, float(point["value"]))


def best_point(run_dir: Path) -> dict[str, Any]:
    """Return the point of the checkpoint that a trial kept: step, value, low, high; and how many users judged it."""
    selection = read_json_object(run_dir / "train" / "selection.json")
    kept = next(point for point in selection["points"] if point["step"] == selection["chosen"])
    return {key: kept[key] for key in ("step", "value", "low", "high")} | {"users": selection["users"]}


@contextmanager
def _study(sweep: Sweep) -> "Iterator[Study]":
    """Open the sweep's record. Raises `UserError` where Optuna is not installed, or the space is another one."""
    try:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
    except ImportError as error:
        step = "pip install 'msr-adapter[sweep]'"
        raise UserError(Problem("", "msr sweep", "Optuna is not installed", "the extra `sweep`", step)) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of features that Optuna calls experimental
        storage = JournalStorage(JournalFileBackend(str(sweep.folder / "journal.log")))
        study = optuna.create_study(storage=storage, study_name="sweep", direction="maximize", load_if_exists=True)
        space = {key: repr(each) for key, each in sweep.space.dimensions.items()}
        basis = {"space": space, "metric": sweep.full.pipeline.train.selection.metric}
        if (before := study.user_attrs.get("basis")) not in (None, basis):
            changed = sorted(
                key for key in space.keys() | before["space"] if space.get(key) != before["space"].get(key)
            )
            found = f"the trials in {sweep.folder} searched another space ({', '.join(changed) or 'another metric'})"
            step = "Give the changed space a file of another name: a sweep is kept under it"
            raise UserError(Problem(str(sweep.space.path), "", found, "the space that they searched", step))
        study.set_user_attr("basis", basis)
        yield study


def _go_on(sweep: Sweep, study: "Study") -> None:
    """Have what a killed sweep was at proposed again: its folder has what was done of it; and all of a small space."""
    from optuna.trial import TrialState

    for trial in study.get_trials(states=[TrialState.RUNNING]):
        study.tell(trial.number, state=TrialState.FAIL)
        study.enqueue_trial(trial.params)
    if sweep.space.size is not None and sweep.space.size <= sweep.trials:
        proposed = _distinct(study) | {_text(trial.params) for trial in study.get_trials(states=[TrialState.WAITING])}
        proposed |= {_text(trial.system_attrs.get("fixed_params", {})) for trial in study.trials}
        for settings in sweep.space.all():
            parameters = {key: json.dumps(value) for key, value in settings.items()}
            if _text(parameters) not in proposed:
                study.enqueue_trial(parameters)


def _sampler(sweep: Sweep, number: int) -> "BaseSampler":
    """Return the sampler of one trial: a sweep that was killed proposes what it would have proposed."""
    from optuna.samplers import TPESampler

    # A sampler draws from its beginning in each process; the trial's number keeps it from proposing the same again.
    return TPESampler(seed=(sweep.full.pipeline.seed * 100_003 + number) % 2**32, multivariate=True)


def _counted(study: "Study") -> "list[FrozenTrial]":
    """Return the trials that count: ended or under way, not those that a kill ended and that were proposed again."""
    from optuna.trial import TrialState

    return [
        trial
        for trial in study.trials
        if trial.state in (TrialState.COMPLETE, TrialState.RUNNING) or "failure" in trial.user_attrs
    ]


def _distinct(study: "Study") -> set[str]:
    return {_text(trial.params) for trial in _counted(study)}


def _text(parameters: Mapping[str, Any]) -> str:
    return json.dumps(parameters, sort_keys=True)


def _ended(sweep: Sweep, study: "Study") -> list[TrialResult]:
    results = []
    for number, trial in enumerate(_counted(study), start=1):
        settings = {key: each.told(trial.params[key]) for key, each in sweep.space.dimensions.items()}
        told, folder = trial.user_attrs, sweep.loaded(settings).run_dir
        kept = {key: told.get(key) for key in ("low", "high", "step")}
        results.append(TrialResult(number, settings, folder, trial.value, **kept, failure=told.get("failure", "")))
    return results
