"""How a command ends: its result on standard output, its errors on standard error, its exit code.

0 done, 1 a stage failed, 2 the user's input is wrong, 130 interrupted. Other exceptions are bugs and crash loudly.
"""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from msr_adapter.errors import MsrError, UserError
from msr_adapter.redaction import redact


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
