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
