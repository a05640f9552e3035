"""The arguments and options that the commands share."""

from pathlib import Path
from typing import Annotated

import typer

PipelineArgument = Annotated[
    str, typer.Argument(metavar="PIPELINE", help="A YAML file, or a bundled name (see `msr ls`).", show_default=False)
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change a setting, e.g. train.epochs=2. Repeatable; wins over files."
    ),
]
RunDir = Annotated[
    Path | None, typer.Option("--run-dir", metavar="FOLDER", help="Where the run is kept; runs/<name> unless given.")
]
Force = Annotated[
    list[str] | None,
    typer.Option("--force", metavar="STAGE", help="Redo a stage even if it is up to date. Repeatable."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress: only the result and errors.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output; all else on standard error.")]
