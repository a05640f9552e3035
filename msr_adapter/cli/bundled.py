"""`msr ls` and `msr cp`: the bundled pipelines, protocols and templates."""

from pathlib import Path

from msr_adapter.config.bundled import BundledFile, bundled_files
from msr_adapter.errors import Problem, UserError, did_you_mean
from msr_adapter.files import BundledKind, atomic_path, bundled

_TITLES: dict[BundledKind, str] = {
    "pipelines": "Pipelines (what we run): msr run NAME",
    "eval": "Protocols (what we call good): evaluate: {protocol: NAME}",
    "templates": "Templates (what we say): templates: FOLDER",
}
_USE: dict[BundledKind, str] = {
    "pipelines": "Run it: msr run {target}",
    "eval": "Use it in a pipeline: evaluate: {{protocol: {target}}}",
    "templates": "Use it in a pipeline: templates: {folder}  (the file must be called {file})",
}


def all_files() -> list[BundledFile]:
    """List every bundled file."""
    return [file for kind in _TITLES for file in bundled_files(kind)]


def listing() -> str:
    """Return the bundled files by kind, one line each."""
    width = max(len(file.name) for file in all_files())
    return "\n\n".join(
        "\n".join([title, *(f"  {file.name:<{width}}  {file.description}" for file in bundled_files(kind))])
        for kind, title in _TITLES.items()
    )


def find(name: str) -> BundledFile:
    """Return the bundled file called ``name`` (``demo``, ``demo.yaml`` or ``pipelines/demo``).

    Raises `UserError` when there is none, or more than one.
    """
    files = all_files()
    matches = [file for file in files if name in _names(file)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        full = [f"{file.kind}/{file.name}" for file in matches]
        raise UserError(Problem("", "", f"`{name}` names {len(matches)} files", "", f"Say {' or '.join(full)}"))
    guess = did_you_mean(name, [each for file in files for each in _names(file)])
    raise UserError(Problem("", "", f"nothing bundled is called `{name}`", "", guess or "`msr ls` lists the names"))


def copy(name: str, target: Path, overwrite: bool = False) -> tuple[BundledFile, Path]:
    """Copy a bundled file to ``target``, a file or an existing folder; what exists stays unless ``overwrite``."""
    from msr_adapter.config.outputs import Output, require_outputs

    file = find(name)
    if target.is_dir():
        target = target / file.path.name
    folders: tuple[BundledKind, ...] = ("pipelines", "eval", "templates")
    require_outputs([Output(target, overwrite, field="FILE")], {f"msr's own {kind}": bundled(kind) for kind in folders})
    try:
        with atomic_path(target) as temporary:
            temporary.write_bytes(file.path.read_bytes())
    except OSError as error:
        raise UserError(Problem(str(target), "", f"cannot be written ({error.strerror})")) from error
    return file, target


def advice(file: BundledFile, target: Path) -> str:
    """Say what was copied and how the copy is used."""
    use = _USE[file.kind].format(target=target, folder=target.parent, file=file.path.name)
    return f"Copied {file.kind}/{file.name} to {target}\n{use}"


def _names(file: BundledFile) -> set[str]:
    suffix = file.path.suffix
    stem = file.name.removesuffix(suffix)
    return {stem, f"{stem}{suffix}", f"{file.kind}/{stem}", f"{file.kind}/{stem}{suffix}"}
