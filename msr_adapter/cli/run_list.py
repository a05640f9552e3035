"""`msr runs`: what runs there are, what state they are in, and what they reached."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msr_adapter.cli.common import Json, emit, exit_codes, render
from msr_adapter.errors import Problem, UserError, plural

if TYPE_CHECKING:
    from msr_adapter.pipeline.run_list import ListedRun

_UNITS = (("day", 86_400), ("hour", 3600), ("minute", 60))
_THOUSAND = 1000


def runs(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Where the runs are; a run folder is shown alone.")
    ] = Path("runs"),
    as_json: Json = False,
) -> None:
    """List the runs in a folder, the latest first: state, age, size and the trained model's primary metric.

    A name in the list can stand wherever a command asks for a RUN.

    Example: [bold]msr runs[/bold]
    """
    with exit_codes(as_json):
        from msr_adapter.evaluate.text_tables import TextTable
        from msr_adapter.pipeline.run_list import runs_in

        try:
            found = runs_in(folder)
        except OSError as error:
            step = "`msr run PIPELINE` makes one in runs/"
            raise UserError(Problem(str(folder), "FOLDER", str(error.strerror), "a folder of runs", step)) from None
        table = TextTable(f"{plural(len(found), 'run')} in {folder}", _COLUMNS, [_row(one) for one in found])
        text = render([table]) if found else f"no run in {folder}"
        emit({"folder": str(folder), "runs": [asdict(one) for one in found]}, text, as_json)


_COLUMNS = ("run", "state", "changed", "size", "metric", "trained", "users", "trainings")


def _row(run: "ListedRun") -> list[str]:
    value = ""
    if run.mean is not None:
        value = f"{run.mean:.3f}"
        value += f" [{run.low:.3f}, {run.high:.3f}]" if run.low is not None and run.high is not None else ""
    users = f"{run.users:,}" if run.users is not None else ""
    return [run.name, run.state, _ago(time.time() - run.changed), _size(run.bytes), run.metric or "", value, users,
            str(run.trainings)]  # fmt: skip


def _ago(seconds: float) -> str:
    for noun, unit in _UNITS:
        if seconds >= unit:
            return f"{plural(int(seconds // unit), noun)} ago"
    return "just now"


def _size(number: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if number < _THOUSAND:
            return f"{number:,.0f} {unit}" if unit == "bytes" else f"{number:,.1f} {unit}"
        number /= _THOUSAND
    return f"{number:,.1f} GB"
