"""What `--out` may name: one rule for every command that writes where the user says.

Refused are the inputs of the pipeline, its YAML files, run folders and, without `--overwrite`, whatever exists. An
input is known by its resolved path and by the file itself, whatever other name a link gives it.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from msr_adapter.config.loader import LoadedPipeline
from msr_adapter.errors import Problem, UserError
from msr_adapter.files import sweep
from msr_adapter.filesystem import files_below, real
from msr_adapter.run_folder_mark import enclosing_run, paths_in, remembered

Protected = Mapping[str, Path]
"""What a command reads -> where: settings by their dotted key, options by their name."""

RUN = "the run folder"


@dataclass(frozen=True)
class Output:
    """A file that a command is to write."""

    path: Path
    overwrite: bool = False
    suffixes: tuple[str, ...] = ()
    """The kinds of file that the command writes; none named: any."""
    field: str = "--out"
    """The option or argument that names it."""


def protected_by(loaded: LoadedPipeline, more: Protected | None = None) -> dict[str, Path]:
    """Return what a command on ``loaded`` must leave alone: its inputs, its YAML files, its run, and ``more``."""
    files = {f"the pipeline's file {path.name}": path for path in loaded.files or (loaded.origin,)}
    return {**paths_in(loaded.resolved), **files, RUN: loaded.run_dir, **(more or {})}


def protected_by_run(root: Path) -> dict[str, Path]:
    """Return what a command that reads a finished run must leave alone: the run and the inputs that it was made of."""
    return {**remembered(root), RUN: root}


def require_outputs(outputs: Iterable[Output], protected: Protected) -> None:
    """Raise one `UserError` with all problems of ``outputs``; else remove what a killed command left beside them."""
    outputs = list(outputs)
    if problems := [problem for output in outputs for problem in output_problems(output, protected)]:
        raise UserError(problems)
    for output in outputs:
        sweep_beside(output.path)


def output_problems(output: Output, protected: Protected) -> list[Problem]:
    """Return why a file may not be written."""
    path, field = output.path, output.field
    if output.suffixes and path.suffix.lower() not in output.suffixes:
        found, example = f"{path}: unknown kind of file {path.suffix!r}", path.with_suffix(output.suffixes[0])
        return [Problem("", field, found, f"one of {', '.join(output.suffixes)}", f"Name it {example.name}, for one")]
    if path.is_dir():
        suffix = output.suffixes[0] if output.suffixes else ""
        return [Problem("", field, f"{path} is a folder", "a file", f"Try {path / f'table{suffix}'}")]
    if problem := place_problem(path, protected, field):
        return [problem]
    if os.path.lexists(path) and not output.overwrite:
        return [Problem("", field, f"{path} exists already", "a new file", "Choose another name, or add --overwrite")]
    return []


def require_folder(out: Path, protected: Protected, field: str = "--out") -> None:
    """Raise `UserError` unless a folder may be written whole; else remove what a killed command left beside it."""
    if problems := _folder_problems(out, protected, field):
        raise UserError(problems)
    sweep_beside(out)


def _folder_problems(out: Path, protected: Protected, field: str = "--out") -> list[Problem]:
    """Return why a folder may not be written whole: it must be new or empty, and none of what is ``protected``."""
    if problem := place_problem(out, protected, field):
        return [problem]
    if os.path.lexists(out) and (not out.is_dir() or any(out.iterdir())):
        found = f"{out} exists already and is not an empty folder"
        return [Problem("", field, found, "a folder that is new or empty", "Choose another")]
    return []


def sweep_beside(out: Path) -> None:
    """Remove what a killed command left of ``out``."""
    sweep(out.absolute().parent, {out.name}.__contains__)


def place_problem(path: Path, protected: Protected, field: str) -> Problem | None:
    """Return why nothing may be written at ``path``, whatever is there: an input, a run, or no place to write to."""
    resolved = real(path)
    for what, there in protected.items():
        if (relation := _relation(resolved, real(there))) is not None:
            is_key = not what.startswith(("the ", "msr's "))
            found = f"{path} is {relation}{'the input ' if is_key else ''}{what}"
            found += ", where msr alone writes" if what == RUN else ", which would be lost"
            return Problem("", field, found, "a place of its own", "Choose another")
    if run := enclosing_run(resolved):
        found = f"{path} is in the run folder {run}, where msr alone writes"
        return Problem("", field, found, "a place outside of run folders", "Choose another")
    parent = next((one for one in path.absolute().parents if os.path.lexists(one)), None)
    if parent is None or not parent.is_dir():
        return Problem("", field, f"{path}: {parent} is not a folder", "a file in a folder", "Choose another place")
    if not os.access(parent, os.W_OK | os.X_OK):
        found = f"{path}: this user may not write to {parent}"
        return Problem("", field, found, "a folder that this user may write to", "Choose another place")
    return None


def _relation(out: Path, there: Path) -> str | None:
    """Say how ``out`` is part of what stands ``there``, both resolved: words before its name; None if it is not."""
    if out == there:
        return ""
    if out.exists() and there.exists() and out.samefile(there):
        return "another name of "
    if out.is_relative_to(there):
        return "in "
    if not there.is_dir():
        return None
    if any(parent.exists() and parent.samefile(there) for parent in out.parents):  # mounted twice
        return "in "
    return "another name of a file in " if _is_linked_into(out, there) else None


def _is_linked_into(out: Path, folder: Path) -> bool:
    """Say whether a file has a second name in ``folder``; walks it only where a second name exists."""
    try:
        status = out.stat()
    except OSError:
        return False
    if out.is_dir() or status.st_nlink < 2:
        return False
    return any(os.path.samestat(status, one) for one in _statuses(folder))


def _statuses(folder: Path) -> Iterator[os.stat_result]:
    for entry, _ in files_below(folder):
        try:
            yield entry.stat()
        except OSError:
            continue
