"""`msr constraints`: the exact versions of a set that was seen to install, import and train."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from msr_adapter.cli.common import Overwrite, exit_codes


class VersionSet(StrEnum):
    """Which set of versions `msr constraints` prints."""

    DEFAULT = "default"
    VLLM = "vllm"


def constraints(
    what: Annotated[VersionSet, typer.Argument(help="`vllm` is the set with vLLM beside the pinned torch.")] = (
        VersionSet.DEFAULT
    ),
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write them to a file.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Print the exact versions with which this release was tested, for `pip install --constraint`.

    They travel in the wheel; an extra that is added later should not move what is there already.

    Example: [bold]msr constraints --out versions.txt && pip install -c versions.txt 'msr-adapter\\[ray]'[/bold]
    """
    with exit_codes(as_json=False):
        from msr_adapter.config.output_paths import Output, require_outputs
        from msr_adapter.files import constraints_file, write_text
        from msr_adapter.filesystem import read_bytes

        source = constraints_file("constraints.txt" if what is VersionSet.DEFAULT else "constraints-vllm.txt")
        text = read_bytes(source).decode()
        if out is None:
            typer.echo(text, nl=False)
            return
        require_outputs([Output(out, overwrite)], {"msr's own constraints": source})
        write_text(out, text)
        typer.echo(f"{out}")
