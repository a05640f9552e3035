"""`msr cp`: a copy of a bundled pipeline, protocol or template, to make it one's own."""

from pathlib import Path
from typing import Annotated

import typer

from msr_adapter.cli.common import Json, Overwrite, emit, exit_codes
from msr_adapter.config.bundled import BundledFile, find_bundled
from msr_adapter.errors import Problem, UserError
from msr_adapter.files import BundledKind, atomic_path, bundled

_USE: dict[BundledKind, str] = {
    "pipelines": "Run it: msr run {target}",
    "eval": "Use it in a pipeline: evaluate: {{protocol: {target}}}",
    "templates": "Use it in a pipeline: templates: {folder}  (the file must be called {file})",
}


def copy_bundled(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name from `msr ls`.", show_default=False)],
    target: Annotated[Path, typer.Argument(metavar="FILE", help="A new file, or a folder.", show_default=False)],
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Copy a bundled pipeline, protocol or template, to make it your own.

    Example: [bold]msr cp demo my.yaml[/bold]
    """
    with exit_codes(as_json):
        file, written = copy(name, target, overwrite)
        use = _USE[file.kind].format(target=written, folder=written.parent, file=file.path.name)
        result = {"kind": file.kind, "name": file.name, "file": str(written)}
        emit(result, f"Copied {file.kind}/{file.name} to {written}\n{use}", as_json)


def copy(name: str, target: Path, overwrite: bool = False) -> tuple[BundledFile, Path]:
    """Copy a bundled file to ``target``, a file or an existing folder; what exists stays unless ``overwrite``.

    Returns the bundled file and the copy's path. Raises `UserError`.
    """
    from msr_adapter.config.output_paths import Output, require_outputs

    file = find_bundled(name)
    if target.is_dir():
        target = target / file.path.name
    require_outputs([Output(target, overwrite, field="FILE")], {f"msr's own {kind}": bundled(kind) for kind in _USE})
    try:
        with atomic_path(target) as temporary:
            temporary.write_bytes(file.path.read_bytes())
    except OSError as error:
        raise UserError(Problem(str(target), "", f"cannot be written ({error.strerror})")) from error
    return file, target
