"""How a command ends: its result on standard output, its errors on standard error, its exit code.

0 done, 1 a stage failed, 2 the user's input is wrong, 130 interrupted. Other exceptions are bugs and crash loudly.
"""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from msr_adapter.errors import MsrError, Problem, UserError
from msr_adapter.redaction import redact

if TYPE_CHECKING:
    from msr_adapter.evaluate.results import FinishedRun
import io
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from msr_adapter.evaluate.text_tables import TextTable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from msr_adapter.pipeline import RunResult


class InterruptError(MsrError):
    """Ctrl-C; the message says what is kept and how to go on."""

    exit_code = 130


@contextlib.contextmanager
def exit_codes(as_json: bool) -> Iterator[None]:
    """Turn an `MsrError` into a message and its exit code."""
    try:
        yield
    except KeyboardInterrupt:
        _fail(InterruptError("Interrupted before anything was changed."), as_json)
    except MsrError as error:
        _fail(error, as_json)


@contextlib.contextmanager
def interruptible(run_dir: Path) -> Iterator[None]:
    """Turn Ctrl-C in a run into a sentence about what is kept."""
    try:
        yield
    except KeyboardInterrupt:
        kept = "Finished stages, and the summaries and scores of the unfinished one, are kept in"
        raise InterruptError(f"Interrupted. {kept} {run_dir}. The same command goes on from there.") from None


def emit(result: dict[str, Any], text: str, as_json: bool) -> None:
    """Print a command's result: the JSON object, or the text for people."""
    typer.echo(json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False) if as_json else text)


def _fail(error: MsrError, as_json: bool) -> None:
    problems = error.problems if isinstance(error, UserError) else ()
    if as_json:
        told = [{key: redact(value) for key, value in asdict(one).items()} for one in problems]
        body = {"exit_code": error.exit_code, "message": redact(str(error)), "problems": told}
        typer.echo(json.dumps({"error": body}, indent=2, ensure_ascii=False))
    heading = f"{len(problems)} problems:\n" if len(problems) > 1 else ""
    typer.secho(f"{heading}{redact(str(error))}", err=True, fg=typer.colors.RED)
    raise typer.Exit(error.exit_code) from None


# The arguments and options that the commands share.

PipelineArgument = Annotated[
    str, typer.Argument(metavar="PIPELINE", help="A YAML file, or a bundled name (see `msr ls`).", show_default=False)
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change a setting, e.g. train.epochs=2. Repeatable; wins over files."
    ),
]


def _named_folder(text: str | Path) -> Path:
    """Return a folder that is really named: the empty text would be the working directory."""
    if not str(text).strip():
        raise typer.BadParameter("an empty text names no folder; give one, or leave --run-dir out")
    return Path(text)


RunDir = Annotated[
    Path | None,
    typer.Option(
        "--run-dir", metavar="FOLDER", parser=_named_folder, help="Where the run is kept; runs/<name> unless given."
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the file if it exists; never an input or a run.")]
Force = Annotated[
    list[str] | None,
    typer.Option("--force", metavar="STAGE", help="Redo a stage even if it is up to date. Repeatable."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress: only the result and errors.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output; all else on standard error.")]

# The argument RUN: a run folder, or the pipeline whose run folder is meant, and which of its models.

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
    from msr_adapter.evaluate.results import read_finished

    return read_finished(run_folder(argument))


# How tables are printed: for a terminal, as Markdown, as LaTeX.

_PIPE_WIDTH = 200

MarkdownFlag = Annotated[bool, typer.Option("--markdown", help="Tables in Markdown.")]
LatexFlag = Annotated[bool, typer.Option("--latex", help="Tables in LaTeX (package booktabs).")]


def render(tables: Sequence["TextTable"], markdown: bool = False, latex: bool = False) -> str:
    """Return the tables as one text."""
    from msr_adapter.evaluate.text_tables import to_latex, to_markdown, to_rich

    if markdown or latex:
        return "\n\n".join(to_markdown(table) if markdown else to_latex(table) for table in tables)
    from rich.console import Console

    target = io.StringIO()
    console = Console(file=target, highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)
    for table in tables:
        console.print(to_rich(table))
    return target.getvalue().rstrip()


# What a finished command shows: the file it was run for, and the metrics when it ends with them.

_METRICS_WIDTH = 160

_MADE = {
    "data": ("audit", "audit.json"),
    "lengths": ("estimate of the row lengths", "lengths.json"),
    "items": ("item summaries", "items.parquet"),
    "users": ("user summaries", "users.parquet"),
    "truncate": ("truncated user summaries", "shortened.parquet"),
    "dataset": ("LLaMA-Factory dataset", "dataset_info.json"),
    "train": ("trained model", "model"),
    "score": ("scores", "scores.parquet"),
    "score-base": ("scores", "scores.parquet"),
    "baselines": ("baseline scores", "manifest.json"),
    "evaluate": ("report", "report.html"),
}


def made(result: "RunResult") -> tuple[str, Path]:
    """Return what the last stage makes and where it is."""
    last = result.stages[-1].name
    what, file = _MADE[last]
    return what, result.run_dir / last / file


def as_dict(name: str, result: "RunResult") -> dict[str, Any]:
    """Return the JSON object of a finished command."""
    stages = [asdict(stage) for stage in result.stages]
    return {"pipeline": name, "run_dir": str(result.run_dir), "stages": stages, "result": str(made(result)[1])}


def print_metrics(result: "RunResult", quiet: bool) -> None:
    """Print the metrics table on standard output, unless the stage has just shown it or the run has none."""
    last = result.stages[-1]
    if last.name != "evaluate" or (last.state == "done" and not quiet):
        return
    from rich.console import Console

    from msr_adapter.evaluate.tables import console_table

    metrics = json.loads((result.run_dir / "evaluate" / "metrics.json").read_text(encoding="utf-8"))
    Console(highlight=False, width=None if sys.stdout.isatty() else _METRICS_WIDTH).print(console_table(metrics))
