"""`msr doctor`: is this machine able to train and score?"""

from collections.abc import Mapping
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msr_adapter.cli.common import Json, emit, exit_codes

if TYPE_CHECKING:
    from rich.table import Table

    from msr_adapter.doctor import Diagnosis, Finding

_SIGNS = {"ok": ("ok", "green"), "absent": ("-", "dim"), "warning": ("!", "yellow"), "error": ("X", "bold red")}
_PIPE_WIDTH = 160


def doctor(
    run_dir: Annotated[
        Path, typer.Option("--run-dir", metavar="FOLDER", help="Where runs will be kept.")
    ] = Path("runs"),
    as_json: Json = False,
) -> None:  # fmt: skip
    """Tell whether this machine can train and score: versions, devices, memory, disk, and what is disabled.

    Exit code 1 when training cannot work here. Example: [bold]msr doctor[/bold]
    """
    with exit_codes(as_json):
        from msr_adapter.doctor import diagnose

        diagnosis = diagnose(run_dir) if as_json else _show(run_dir)
        if as_json:
            found = [asdict(finding) for finding in diagnosis.findings]
            result = {"ok": not diagnosis.errors, "verdict": diagnosis.verdict, "devices": list(diagnosis.devices)}
            emit({**result, "findings": found}, "", as_json)
        if diagnosis.errors:
            raise typer.Exit(1)


def _show(run_dir: Path) -> "Diagnosis":
    """Print each section as soon as it is known, and return all that was found."""
    from rich.console import Console
    from rich.text import Text

    from msr_adapter.doctor import Diagnosis, examine
    from msr_adapter.progress import Reporter

    console, reporter = Console(highlight=False), Reporter()
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    all_found: list[Finding] = []
    gpus: list[Mapping[str, object]] = []
    parts, waiting = examine(run_dir), "looking at this machine"
    while True:
        with reporter.waiting(waiting):
            part = next(parts, None)
        if part is None:
            break
        waiting, findings, devices = part
        # The findings of a section stand together, as `groupby` needs them to.
        for section, found in groupby(findings, lambda finding: finding.section):
            console.print(Text(section, style="bold"))
            console.print(_table(list(found)))
            console.file.flush()
        all_found += findings
        gpus += devices
    diagnosis = Diagnosis(tuple(all_found), tuple(gpus))
    console.print(Text(diagnosis.verdict, style="bold red" if diagnosis.errors else "bold green"))
    return diagnosis


def _table(findings: "list[Finding]") -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 1))
    for width in (3, 20, None):
        table.add_column(min_width=width, no_wrap=width is not None)
    for finding in findings:
        sign, style = _SIGNS[finding.state]
        said = Text(finding.found)
        if finding.means:
            said.append(f": {finding.means}" if finding.found else finding.means)
        if finding.mend:
            said.append(f"\n{finding.mend}", style="cyan")
        table.add_row(Text(f" {sign}", style=style), Text(finding.name), said)
    return table
