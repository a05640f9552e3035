"""`msr ls`: the bundled pipelines, protocols and templates."""

from msr_adapter.cli.common import Json, emit
from msr_adapter.config.bundled import all_bundled_files, bundled_files
from msr_adapter.files import BundledKind

_TITLES: dict[BundledKind, str] = {
    "pipelines": "Pipelines (what we run): msr run NAME",
    "eval": "Protocols (what we call good): evaluate: {protocol: NAME}",
    "templates": "Templates (what we say): templates: FOLDER",
}


def list_bundled(as_json: Json = False) -> None:
    """List the bundled pipelines, protocols and templates.

    Example: [bold]msr ls[/bold]
    """
    files = all_bundled_files()
    width = max(len(file.name) for file in files)
    text = "\n\n".join(
        "\n".join([title, *(f"  {file.name:<{width}}  {file.description}" for file in bundled_files(kind))])
        for kind, title in _TITLES.items()
    )
    listed = [{"kind": file.kind, "name": file.name, "description": file.description} for file in files]
    emit({"files": listed}, text, as_json)
