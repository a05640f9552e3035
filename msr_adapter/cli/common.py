"""What all commands share: their options, and how they end.

A command ends with its result on standard output, its errors on standard error, and an exit code: 0 done, 1 a stage
failed, 2 the user's input is wrong, 130 interrupted, 143 and 129 ended by SIGTERM and SIGHUP. Other exceptions are bugs
and crash loudly.
"""

import contextlib
import io
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msr_adapter.cli.completion import STAGES, complete_pipeline, complete_run, complete_stage
from msr_adapter.cli.signals import ending_signals, exit_code_of
from msr_adapter.errors import MsrError, UserError
from msr_adapter.filesystem import guarded, printable
from msr_adapter.redaction import redact

if TYPE_CHECKING:
    from msr_adapter.evaluate.text_tables import TextTable

_PIPE_WIDTH = 200
"""Columns of a table that is piped: none of ours is wider, so that no row is folded in a file."""


def _named_folder(text: str | Path) -> Path:
    """Return a folder; an empty text is refused, as it would mean the working directory."""
    if not str(text).strip():
        raise typer.BadParameter("an empty text names no folder; give one, or leave --run-dir out")
    return Path(text)


PipelineArgument = Annotated[
    str, typer.Argument(metavar="PIPELINE", help="A YAML file, or a bundled name (see `msr ls`).", show_default=False,
                        autocompletion=complete_pipeline),
]  # fmt: skip
RUN_HELP = "A run folder, the name of a run in runs/, or a pipeline."
RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help=RUN_HELP, show_default=False, autocompletion=complete_run)
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change a setting, e.g. train.epochs=2. Repeatable; wins over files."
    ),
]
RunDir = Annotated[
    Path | None,
    typer.Option(
        "--run-dir", metavar="FOLDER", parser=_named_folder, help="Where the run is kept; default: runs/<name>."
    ),
]
Force = Annotated[
    list[str] | None,
    typer.Option(
        "--force",
        metavar="STAGE",
        autocompletion=complete_stage,
        help=f"Redo a stage even if it is up to date: {', '.join(STAGES)}. Repeatable.",
    ),
]
Retraining = Annotated[
    bool, typer.Option("--train", help="Retrain a model that is out of date; the older one is kept.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the file if it exists; never an input or a run.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Hide progress: show only the result and errors.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output; all else on standard error.")]
MarkdownFlag = Annotated[bool, typer.Option("--markdown", help="Tables in Markdown.")]
LatexFlag = Annotated[bool, typer.Option("--latex", help="Tables in LaTeX (package booktabs).")]


class InterruptError(MsrError):
    """Ctrl-C, SIGTERM or SIGHUP; the message says what is kept and how to go on."""

    def __init__(self, text: str, interrupt: KeyboardInterrupt) -> None:
        super().__init__(text)
        self.exit_code = exit_code_of(interrupt)


@contextlib.contextmanager
def exit_codes(as_json: bool) -> Iterator[None]:
    """Turn an `MsrError` into a message and its exit code, and a signal that ends us into an `InterruptError`."""
    try:
        with ending_signals(), guarded():
            yield
    except KeyboardInterrupt as interrupt:
        _fail(InterruptError("Interrupted before anything was changed.", interrupt), as_json)
    except MsrError as error:
        _fail(error, as_json)


@contextlib.contextmanager
def interruptible(run_dir: Path) -> Iterator[None]:
    """Turn Ctrl-C, SIGTERM or SIGHUP in a run into a sentence that says what is kept."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        kept = "Finished stages, and the summaries and scores of the unfinished one, are kept in"
        text = f"Interrupted. {kept} {run_dir}. The same command continues from there."
        raise InterruptError(text, interrupt) from None


def require_text(arguments: Sequence[str]) -> None:
    """Exit with code 2 where an argument or the working directory is no UTF-8: tables and YAML could not name it."""
    named = {"an argument": arguments, "the working directory": [os.getcwd()]}  # noqa: PTH109 - as the system says it
    for what, texts in named.items():
        for text in texts:
            if (shown := printable(text)) != text:
                typer.secho(f"{what} is not UTF-8: {shown}. Rename it", err=True, fg=typer.colors.RED)
                raise SystemExit(2)


def _fail(error: MsrError, as_json: bool) -> None:
    problems = error.problems if isinstance(error, UserError) else ()
    # A message may quote what a server or a file said: what looks like a key is taken out at this last place too.
    if as_json:
        told = [{key: redact(printable(value)) for key, value in asdict(one).items()} for one in problems]
        body = {"exit_code": error.exit_code, "message": redact(printable(error)), "problems": told}
        typer.echo(json.dumps({"error": body}, indent=2, ensure_ascii=False))
    heading = f"{len(problems)} problems:\n" if len(problems) > 1 else ""
    typer.secho(f"{heading}{redact(printable(error))}", err=True, fg=typer.colors.RED)
    raise typer.Exit(error.exit_code) from None


def emit(result: Mapping[str, object], text: str, as_json: bool) -> None:
    """Print a command's result: the JSON object, or the text for people."""
    # NaN is no JSON: a metric that is not a number must crash here, not in whatever reads it.
    typer.echo(printable(json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False) if as_json else text))


def render(tables: Sequence["TextTable"], markdown: bool = False, latex: bool = False) -> str:
    """Return tables as one text: for a terminal, as Markdown or as LaTeX."""
    from msr_adapter.evaluate.text_tables import to_latex, to_markdown, to_rich

    if markdown or latex:
        return "\n\n".join(to_markdown(table) if markdown else to_latex(table) for table in tables)
    from rich.console import Console

    target = io.StringIO()
    console = Console(file=target, highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)
    for table in tables:
        console.print(to_rich(table))
    return target.getvalue().rstrip()
