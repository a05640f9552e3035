"""The files that travel with msr: their names, their one-line descriptions, and how a name finds its file."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from msr_adapter.config.yaml_scalars import shown
from msr_adapter.errors import Problem, UserError, did_you_mean
from msr_adapter.files import BundledKind, bundled
from msr_adapter.filesystem import near_path, real

YamlKind = Literal["pipelines", "eval"]

_SUFFIX: dict[BundledKind, str] = {"pipelines": ".yaml", "eval": ".yaml", "templates": ".j2"}
_NOUN: dict[YamlKind, str] = {"pipelines": "pipeline", "eval": "protocol"}
_LONGEST_PATH, _LONGEST_NAME = 3072, 255
"""Bytes of a path, to which our own folders are added, and of a name in it: what file systems take."""


@dataclass(frozen=True)
class BundledFile:
    """A bundled file; its ``name`` is what a command or a YAML calls it."""

    kind: BundledKind
    name: str
    path: Path

    @property
    def description(self) -> str:
        """The first line of the comment that opens the file, without the file's own name or command."""
        with self.path.open(encoding="utf-8") as file:
            first = file.readline()
        text = re.sub(r"^(#+|\{#-?)\s*|\s*-?#\}\s*$", "", first)
        return text.removeprefix(f"{self.name}: ").removeprefix(f"msr run {self.name} ").strip()


def bundled_files(kind: BundledKind) -> list[BundledFile]:
    """List the bundled files of a kind by name; a template keeps its suffix and its sub-folder."""
    root, suffix = bundled(kind), _SUFFIX[kind]
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob(f"*{suffix}"))
    return [
        BundledFile(kind, name if kind == "templates" else name.removesuffix(suffix), root / name) for name in names
    ]


def all_bundled_files() -> list[BundledFile]:
    """List every bundled file: pipelines, protocols, templates."""
    return [file for kind in _SUFFIX for file in bundled_files(kind)]


def find_bundled(name: str) -> BundledFile:
    """Return the bundled file called ``name`` (``demo``, ``demo.yaml`` or ``pipelines/demo``).

    Raises `UserError` when there is none, or more than one.
    """
    files = all_bundled_files()
    matches = [file for file in files if name in _names(file)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        full = [f"{file.kind}/{file.name}" for file in matches]
        raise UserError(Problem("", "", f"`{name}` names {len(matches)} files", "", f"Write {' or '.join(full)}"))
    guess = did_you_mean(name, [each for file in files for each in _names(file)])
    raise UserError(Problem("", "", f"nothing bundled is called `{name}`", "", guess or "`msr ls` lists the names"))


def _names(file: BundledFile) -> set[str]:
    suffix = file.path.suffix
    stem = file.name.removesuffix(suffix)
    return {stem, f"{stem}{suffix}", f"{file.kind}/{stem}", f"{file.kind}/{stem}{suffix}"}


def template_folders() -> list[str]:
    """Names of the bundled template sub-folders with prompts, which `templates:` may name."""
    folders = (path for path in bundled("templates").iterdir() if path.is_dir())
    # A prompt has one suffix; parts of the report, which no pipeline asks for by folder, have two.
    return sorted(folder.name for folder in folders if any(path.stem.isidentifier() for path in folder.glob("*.j2")))


def find_yaml(name: str, kind: YamlKind, base: Path) -> Path | None:
    """Return the file ``name`` under ``base``, else the bundled file of that name, else None."""
    if not path_fault(name):
        path = base / Path(name).expanduser()
        if path.is_file():
            return real(path)
    return next((file.path for file in bundled_files(kind) if file.name == name), None)


def path_fault(text: str) -> str:
    """Say why a text can be no path on this machine, wherever it starts from; empty when it can."""
    if not text.strip():  # else it would mean the folder that it starts from
        return "an empty text"
    if "\0" in text:
        return "a NUL character"
    try:
        data = str(Path(text).expanduser()).encode()
    except UnicodeEncodeError:
        return "a character that no file name can have"
    except RuntimeError:
        return f"the home of a user who is not known here ({shown(text)})"
    if len(data) > _LONGEST_PATH or max(map(len, data.split(b"/"))) > _LONGEST_NAME:
        return f"a name of {len(data):,} bytes"
    return ""


def not_found(name: str, kind: YamlKind, base: Path, where: str = "", field: str = "") -> Problem:
    """Say that ``name`` is neither a file nor a bundled name, and what the bundled names are."""
    names = [file.name for file in bundled_files(kind)]
    noun = _NOUN[kind]
    said = shown(name)
    is_folder = not path_fault(name) and (base / Path(name).expanduser()).is_dir()
    found = f"`{said}` is a folder" if is_folder else f"`{said}` is neither a file nor a bundled {noun}"
    guess = "" if is_folder or path_fault(name) else _near_yaml(Path(name), base)
    return Problem(where, field, found, f"bundled: {', '.join(names)}", guess or did_you_mean(name, names))


def _near_yaml(name: Path, base: Path) -> str:
    """Return ``Did you mean `x.yaml`?`` for a YAML file that is a slip of the pen away, or that is called so but for
    its suffix; nothing where there is none."""
    if not name.suffix:
        name = name.with_name(f"{name.name}.yaml") if name.name else name
    path = base / name.expanduser()
    near = str(name) if path.is_file() else near_path(path, folder=False)
    if not near.endswith((".yaml", ".yml")):
        return ""
    return f"Did you mean `{near if '/' in near else name.with_name(near)}`?"
