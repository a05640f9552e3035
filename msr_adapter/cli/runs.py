"""Which run a command means, and how its stages are brought up to date."""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from msr_adapter.cli.common import emit, exit_codes, interruptible
from msr_adapter.errors import Problem, UserError, did_you_mean
from msr_adapter.filesystem import read_object

if TYPE_CHECKING:
    from msr_adapter.config.loader import LoadedPipeline
    from msr_adapter.evaluate.results import FinishedRun
    from msr_adapter.pipeline import RunResult
    from msr_adapter.pipeline.planning import Retrain
    from msr_adapter.progress import Reporter

TRAINED = "trained"
"""The model that RUN means where it names none."""
_METRICS_WIDTH = 160


@dataclass(frozen=True)
class StageOptions:
    """The argument and the options of every command that runs stages."""

    pipeline: str
    sets: Sequence[str] | None = None
    run_dir: Path | None = None
    force: Sequence[str] | None = None
    quiet: bool = False
    as_json: bool = False
    retrain: bool = True
    """Whether a training that exists may be made again."""

    def load(self) -> "LoadedPipeline":
        """Load the pipeline; raises `UserError` for it and for unknown stages in ``force``."""
        from msr_adapter.config.loader import load_pipeline
        from msr_adapter.pipeline import STAGE_NAMES

        expected = f"expected one of {', '.join(STAGE_NAMES)}"
        unknown = [
            Problem("--force", "", f"the text {name!r}", expected, did_you_mean(name, STAGE_NAMES))
            for name in self.force or ()
            if name not in STAGE_NAMES
        ]
        if unknown:
            raise UserError(unknown)
        return load_pipeline(self.pipeline, self.sets or (), self.run_dir)

    def reporter(self) -> "Reporter":
        """Return the reporter of a command: on standard error, silent with ``--quiet``."""
        from msr_adapter.progress import Reporter

        return Reporter(quiet=self.quiet)


def run_stages(targets: Sequence[str], options: StageOptions) -> None:
    """Bring stages and what they depend on up to date, and print where the last one's product is.

    On the further machines of a training with several, wait for the first one's model instead.
    """
    with exit_codes(options.as_json):
        from msr_adapter.pipeline import join, run

        loaded, reporter = options.load(), options.reporter()
        force = tuple(options.force or ())
        retrain: Retrain = "make" if options.retrain else "refuse"
        with interruptible(loaded.run_dir):
            # Several machines run the same command; only the first one makes the stages before and after the training.
            if join(loaded, targets, force=force, reporter=reporter, retrain=retrain):
                joined = {"pipeline": loaded.pipeline.name, "run_dir": str(loaded.run_dir), "joined": True}
                emit(joined, f"the first machine has trained the model: {loaded.run_dir}", options.as_json)
                return
            result = run(loaded, targets, force=force, reporter=reporter, retrain=retrain)
        if not options.as_json:
            _print_metrics(result, options.quiet)
        what, path = result.product
        stages = [asdict(stage) for stage in result.stages]
        as_dict = {
            "pipeline": loaded.pipeline.name, "run_dir": str(result.run_dir), "stages": stages, "result": str(path),
        }  # fmt: skip
        emit(as_dict, f"{what}: {path}", options.as_json)


def _print_metrics(result: "RunResult", quiet: bool) -> None:
    """Print the metrics table on standard output, unless the stage has just shown it or the run has none."""
    last = result.stages[-1]
    if last.name != "evaluate" or (last.state == "done" and not quiet):
        return
    from rich.console import Console

    from msr_adapter.evaluate.text_tables import console_tables

    metrics: Any = read_object(result.run_dir / "evaluate" / "metrics.json")
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _METRICS_WIDTH)
    for table in console_tables(metrics):
        console.print(table)


def split_model(argument: str) -> tuple[str, str]:
    """Split ``RUN:model``; without a model it is the trained one. An existing path is never split."""
    head, colon, model = argument.rpartition(":")
    return (argument, TRAINED) if not colon or Path(argument).exists() else (head, model or TRAINED)


def run_folder(argument: str) -> Path:
    """Return the run folder that RUN means; raises `UserError` when it is none."""
    from msr_adapter.config.named_runs import run_folder as find

    return find(argument)


def read_run(argument: str) -> "FinishedRun":
    """Read the finished run that RUN means, and say if it is older than its data; raises `UserError` if there is none.

    `UserError` too where a file of the evaluation was changed by hand.
    """
    from msr_adapter.evaluate.results import outdated, read_finished
    from msr_adapter.pipeline.planning import changed_inputs

    folder = run_folder(argument)
    finished = read_finished(folder)
    if changed := [*changed_inputs(folder), *(f"the stage {name}" for name in outdated(folder))]:
        told = (
            f"{folder}: these numbers are older than {' and '.join(changed)}, changed since. Run `msr evaluate` again"
        )
        typer.secho(told, err=True, fg=typer.colors.YELLOW)
    return finished
