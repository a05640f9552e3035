"""Whose a folder is: msr writes into folders, and replaces stages, that it made itself.

A run folder has `MARK`, written before anything else. Older ones have none and are known by what only a run leaves:
the resolved pipeline, a stage with its manifest, or nothing yet but the lock and the log of a run that was killed.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from msr_adapter.errors import Problem, UserError
from msr_adapter.files import read_json_object

MARK = ".msr-run"
MANIFEST = "manifest.json"
FORMAT = 2
"""Of what stages leave. It rises when a file, a key or a column that commands read of a run gets another name."""

_SECTIONS = {"name", "seed", "data", "split", "summarize", "train", "evaluate"}
"""What the resolved pipeline of every version has."""
_FIRST = re.compile(r"\.lock|run\.log|cache|\.pipeline\.json\.[a-z0-9_]{8}\.tmp")
"""What a run of a version without `MARK` made before it wrote the pipeline; `cache` was a link then."""
_SHOWN = 3


def is_run(root: Path) -> bool:
    """Say whether a folder is a run of msr's."""
    if os.path.isfile(root / MARK):  # noqa: PTH113 - False where this user may not look
        return True
    if read_json_object(root / "pipeline.json").keys() >= _SECTIONS:
        return True
    try:
        names = _names(root)
    except OSError:
        return False
    manifests = {name: read_json_object(root / name / MANIFEST) for name in names}
    if any(one.get("stage") == name and {"fingerprint", "output"} <= one.keys() for name, one in manifests.items()):
        return True
    return ".lock" in names and _is_lock(root / ".lock") and all(_is_first(root / name) for name in names)


def enclosing_run(path: Path) -> Path | None:
    """Return the innermost run folder that ``path`` is or lies in."""
    return next((folder for folder in (path, *path.parents) if is_run(folder)), None)


def folder_problems(root: Path, stages: Iterable[str] = ()) -> list[Problem]:
    """Return why nothing may be written into ``root``, or in the place of its ``stages``; an absent folder is well."""
    try:
        names = _names(root)
    except OSError as error:
        return [Problem(str(root), "run_dir", f"cannot be read ({error.strerror})", "a folder this user may read",
                        "Choose another with --run-dir")]  # fmt: skip
    if names and not is_run(root):
        listed = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else "")
        return [Problem(str(root), "run_dir", f"holds what is not of a run ({listed})",
                        "a folder that is new, empty or a run of msr's", "Choose another with --run-dir")]  # fmt: skip
    return [foreign_stage(root / name) for name in stages if not is_own_stage(root / name)]


def is_own_stage(stage: Path) -> bool:
    """Say whether a stage may be put here: what is there is msr's, a manifest says so, or nothing is."""
    if not stage.is_dir():
        return not os.path.lexists(stage)
    manifest = stage / MANIFEST
    if not os.path.lexists(manifest):
        return not _names(stage)
    found = read_json_object(manifest)
    return not found or found.get("stage") == stage.name  # what cannot be read was ours and is damaged


def foreign_stage(stage: Path) -> Problem:
    """Say that something lies where a stage is to be, which no stage left there."""
    return Problem(
        str(stage), "run_dir", "was not made by msr and lies where a stage is to be written",
        "a stage folder with its manifest.json, or nothing", "Move it away, or choose another folder with --run-dir",
    )  # fmt: skip


def older_stages(root: Path, stages: Iterable[str]) -> list[str]:
    """Return those finished ``stages`` of a run that a version with another `FORMAT` left."""
    found = {name: read_json_object(root / name / MANIFEST) for name in stages}
    return [name for name, manifest in found.items() if manifest and manifest.get("format", 1) != FORMAT]


def refuse_older(root: Path, stages: Iterable[str]) -> None:
    """Raise `UserError` if what is to be read of the run was left by an older version."""
    if older := older_stages(root, stages):
        found = f"a run of an older version of msr, whose {' and '.join(older)} this version cannot read"
        step = "Run its pipeline again with `msr run`: what is out of date is made again, everything else is kept"
        raise UserError(Problem(str(root), "", found, "", step))


def remembered(root: Path) -> dict[str, Path]:
    """Return the paths that the latest run in ``root`` was told of, by setting: its inputs and its YAML files."""
    named = read_json_object(root / MARK).get("files")
    files = [Path(name) for name in named if isinstance(name, str)] if isinstance(named, list) else []
    return {f"the pipeline's file {path.name}": path for path in files} | paths_in(
        read_json_object(root / "pipeline.json")
    )


def paths_in(settings: object, key: str = "") -> dict[str, Path]:
    """Return every absolute path of a resolved pipeline, by its dotted key, but for the run folder's."""
    if isinstance(settings, str):
        return {key: Path(settings)} if settings.startswith("/") and key != "run_dir" else {}
    found: dict[str, Path] = {}
    if not isinstance(settings, dict | list):
        return found
    for name, child in settings.items() if isinstance(settings, dict) else enumerate(settings):
        found |= paths_in(child, f"{key}.{name}" if key else str(name))
    return found


def _names(root: Path) -> list[str]:
    try:
        return sorted(path.name for path in root.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _is_lock(path: Path) -> bool:
    """A lock holds the number of the process that took it, or nothing yet."""
    try:
        return path.is_file() and re.fullmatch(rb"[0-9]*", path.read_bytes()[:32]) is not None
    except OSError:
        return False


def _is_first(path: Path) -> bool:
    if not _FIRST.fullmatch(path.name):
        return False
    return path.is_symlink() if path.name == "cache" else path.is_file() and not path.is_symlink()
