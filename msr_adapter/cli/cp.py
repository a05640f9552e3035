"""`msr cp`: a copy of a bundled pipeline, protocol or template, to make it one's own."""

import os
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
    target: Annotated[
        str, typer.Argument(metavar="FILE", help="A new file, or a folder (a name that ends in / is one).",
                            show_default=False),
    ],
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Copy a bundled pipeline, protocol or template, to make it your own.

    Example: [bold]msr cp demo my.yaml[/bold]
    """
    with exit_codes(as_json):
        file, written = copy(name, target, overwrite)
        use = _USE[file.kind].format(target=written, folder=written.parent, file=file.path.name)
        result = {"kind": file.kind, "name": file.name, "file": str(written)}
        emit(result, f"Copied {file.kind}/{file.name} to {written}\n{use}", as_json)


def copy(name: str, to: str | Path, overwrite: bool = False) -> tuple[BundledFile, Path]:
    """Copy a bundled file to a file or a folder, which need not exist; what exists stays unless ``overwrite``.

    A folder is one that exists, a text that ends in a slash or, for a template, a name without a suffix: a template is
    found by the name of its file. The copy differs in the line that tells editors where the schema is. Returns the
    bundled file and the copy's path. Raises `UserError`.
    """
    from msr_adapter.config.json_schema import installed_schema, with_schema_at
    from msr_adapter.config.output_paths import Output, require_outputs

    file = find_bundled(name)
    if not str(to).strip():
        raise UserError(Problem("", "FILE", "an empty text", "a file or a folder", "Name it, or . for this folder"))
    target = Path(to)
    named_folder = str(to).endswith(("/", os.sep)) or target.name in ("", "..")
    if target.is_dir() or named_folder or (file.kind == "templates" and not target.suffix and not target.exists()):
        target = target / file.path.name
    require_outputs([Output(target, overwrite, field="FILE")], {f"msr's own {kind}": bundled(kind) for kind in _USE})
    try:
        with atomic_path(target) as temporary:
            text = file.path.read_text(encoding="utf-8")
            # The schema does not lie beside the copy, and an editor asks for it where the copy says.
            temporary.write_text(
                text if file.kind == "templates" else with_schema_at(text, installed_schema(file.kind)),
                encoding="utf-8",
            )
    except OSError as error:
        raise UserError(Problem(str(target), "", f"cannot be written ({error.strerror})")) from error
    return file, target
