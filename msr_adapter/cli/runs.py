"""The argument RUN: a run folder, or the pipeline whose run folder is meant, and which of its models."""

from pathlib import Path
from typing import TYPE_CHECKING

from msr_adapter.errors import Problem, UserError

if TYPE_CHECKING:
    from msr_adapter.evaluate.finished import FinishedRun

TRAINED = "trained"


def split_model(argument: str) -> tuple[str, str]:
    """Split ``RUN:model``; without a model it is the trained one. An existing path is never split."""
    head, colon, model = argument.rpartition(":")
    return (argument, TRAINED) if not colon or Path(argument).exists() else (head, model or TRAINED)


def run_folder(argument: str) -> Path:
    """Return the run folder that ``argument`` means: a folder is itself, a pipeline stands for its own run folder.

    Raises UserError when it is neither.
    """
    from msr_adapter.config.bundled import find_yaml, not_found
    from msr_adapter.config.loader import load_pipeline

    folder = Path(argument).expanduser()
    if folder.is_dir():
        inside = folder.name == "evaluate" and (folder / "metrics.json").exists()
        return folder.resolve().parent if inside else folder.resolve()
    if find_yaml(argument, "pipelines", Path.cwd()) is None:
        problem = not_found(argument, "pipelines", Path.cwd())
        found = f"`{argument}` is neither a run folder nor a pipeline"
        raise UserError(Problem("", "RUN", found, problem.allowed, problem.next_step))
    return load_pipeline(argument).run_dir


def read_run(argument: str) -> "FinishedRun":
    """Read the finished run that ``argument`` means."""
    from msr_adapter.evaluate.finished import read_finished

    return read_finished(run_folder(argument))
