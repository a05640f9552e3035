"""`msr schema`: the JSON schema of pipelines and protocols, for editors and other tools."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msr_adapter.cli.common import Overwrite, exit_codes

if TYPE_CHECKING:
    from msr_adapter.config.bundled import YamlKind


class Described(StrEnum):
    """What `msr schema` describes."""

    PIPELINE = "pipeline"
    PROTOCOL = "protocol"


def schema(
    what: Annotated[Described, typer.Argument(help="Which of the two is printed; --out writes both.")] = (
        Described.PIPELINE
    ),
    out: Annotated[Path | None, typer.Option("--out", metavar="FOLDER", help="Write both schemas to a folder.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Print the JSON schema of pipelines or protocols, with which editors complete and check a YAML.

    Bundled YAMLs, and copies that `msr cp` makes, name it in a line that the YAML plug-ins of editors read.

    Example: [bold]msr schema --out .[/bold]
    """
    with exit_codes(as_json=False):
        from msr_adapter.config.json_schema import SCHEMA_FILES, schema_text
        from msr_adapter.config.output_paths import Output, require_outputs
        from msr_adapter.files import bundled, write_text

        if out is None:
            kind: YamlKind = "pipelines" if what is Described.PIPELINE else "eval"
            typer.echo(schema_text(kind), nl=False)
            return
        paths = {kind: out / name for kind, name in SCHEMA_FILES.items()}
        require_outputs(
            [Output(path, overwrite) for path in paths.values()],
            {f"msr's own {kind}": bundled(kind) for kind in paths},
        )
        for kind, path in paths.items():
            write_text(path, schema_text(kind))
            typer.echo(f"{path}")
        first = SCHEMA_FILES["pipelines"]
        typer.echo(f"A pipeline beside it says: # yaml-language-server: $schema={first}")
