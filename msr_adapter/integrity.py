"""What a stage left is what it wrote: digests in its manifest, compared when its files are read.

The manifest of a finished stage has the SHA-256 of every file of the stage (but for stored images, whose digests are
in `items.parquet` and are compared when an image is read) and a seal over itself. When what is compared:

- planning, and every command that reads a finished run: all files of up to `LARGE` bytes, once per process
- whoever loads weights, and a stage before it begins with what other stages made: the large ones too, a second for
  each gigabyte, once per process

So a run reads each byte that it believes once more than it uses it.
"""

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msr_adapter.errors import LISTED, Problem, UserError, listed
from msr_adapter.files import digest, file_digest, read_json_object, write_json
from msr_adapter.filesystem import files_below
from msr_adapter.run_folder_mark import MANIFEST

LARGE = 64 * 2**20
"""Bytes of a file that is compared only where it is read."""
_ELSEWHERE = ("images", MANIFEST)
"""What of a stage has no digest in its manifest: content-addressed files, and the manifest itself."""
_SETTLED_NS = 10**9
"""Age of a file from which its times tell every later change."""

_Identity = tuple[int, int, int, int, int]
"""Device, inode, size and times of a file: they outlive the renaming of its folder."""
_known: dict[_Identity, str] = {}
"""Digests that this process has computed."""
_sealed: set[tuple[_Identity, object]] = set()
"""Manifests whose seals this process has found right, with the seal."""


@dataclass(frozen=True)
class Alterations:
    """Files of a finished stage that are not as it left them, relative to its folder."""

    edited: tuple[str, ...] = ()
    """Changed, or put among what the stage wrote."""
    gone: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.edited or self.gone)


def digests_of(stage: Path) -> dict[str, str]:
    """Return the SHA-256 of every file of a stage, by its path relative to it."""
    return {name: _digest(stage / name) for name in _files(stage)}


def content_of(path: Path) -> str:
    """Identify a file or folder that msr wrote by its content alone, however large: as `path_stamp` does small ones."""
    if path.is_dir():
        files = sorted(Path(entry.path) for entry, _ in files_below(path))
        return digest([[entry.relative_to(path).as_posix(), _digest(entry)] for entry in files])
    return _digest(path)


def seal_of(manifest: Mapping[str, Any]) -> str:
    """Return the digest of all that a manifest says, but for the seal itself."""
    return digest({key: value for key, value in manifest.items() if key != "seal"})


def read_sealed(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file without its seal; nothing where it was changed since the seal was set on it.

    One without a seal, of an older version, is taken as it is.
    """
    found = read_json_object(path)
    if "seal" in found and found["seal"] != seal_of(found):
        return {}
    return {key: value for key, value in found.items() if key != "seal"}


def write_sealed(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object with its digest, for `read_sealed`."""
    write_json(path, {**value, "seal": seal_of(value)})


def read_manifest(stage: Path, name: str = "") -> dict[str, Any]:
    """Return what the manifest of a finished stage says; nothing where it is absent, damaged or another stage's.

    The stage has the folder's name, or the ``name`` given.
    """
    path = stage / MANIFEST
    try:
        status = path.stat()
    except OSError:
        return {}
    found = read_json_object(path)
    right = found.get("stage") == (name or stage.name) and ("seal" not in found or _is_sealed(found, status))
    return found if right else {}


def _is_sealed(manifest: Mapping[str, Any], status: os.stat_result) -> bool:
    """Say whether a manifest's seal is right, computed once for each: they are read again and again."""
    key = (_identity(status), str(manifest["seal"]))
    if key in _sealed:
        return True
    right = bool(manifest["seal"] == seal_of(manifest))
    if right and time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > _SETTLED_NS:
        _sealed.add(key)
    return right


def alterations(stage: Path, *, whole: bool, name: str = "") -> Alterations:
    """Return how the files of a finished stage differ from what it left; `whole` compares large ones too.

    A stage of a version that wrote no digests, or without a manifest, is taken as it is.
    """
    recorded = read_manifest(stage, name).get("files")
    if not recorded:
        return Alterations()
    edited, gone = [], []
    for name, expected in recorded.items():
        path = stage / name
        if not path.is_file():
            gone.append(name)
        elif (whole or path.stat().st_size <= LARGE) and _digest(path) != expected:
            edited.append(name)
    # What is put beside the files of a folder is read with them: rows of a dataset, a tokenizer's additions.
    added = [name for name in _files(stage) if "/" in name and name not in recorded and "/." not in name]
    return Alterations((*edited, *added), tuple(gone))


def require_unaltered(stages: Iterable[Path], *, whole: bool = False) -> None:
    """Raise `UserError` with every file of finished ``stages`` that is not as its stage left it."""
    if problems := [problem for stage in stages for problem in altered(stage, whole=whole)]:
        raise UserError(problems)


def altered(stage: Path, *, whole: bool = False) -> list[Problem]:
    """Return a problem for every file of a finished stage that is not as the stage left it."""
    found = alterations(stage, whole=whole)
    since = read_manifest(stage).get("finished", "")
    step = f"Put it back, or make the stage again with `--force {stage.name}`"
    told = {
        **dict.fromkeys(found.edited, f"changed by hand since the stage {stage.name} made it ({since})"),
        **dict.fromkeys(found.gone, f"gone since the stage {stage.name} made it ({since})"),
    }
    problems = [Problem(str(stage / name), "", text, "", step) for name, text in told.items()]
    return listed(problems[:LISTED], len(problems), str(stage))


def _files(stage: Path) -> list[str]:
    found = (Path(entry.path) for entry, _ in files_below(stage, without=_ELSEWHERE))
    return sorted(path.relative_to(stage).as_posix() for path in found)


def _digest(path: Path) -> str:
    try:
        status = path.stat()
        key = _identity(status)
        if key not in _known:
            _known[key] = file_digest(path)
    except OSError as error:
        raise UserError(Problem(str(path), "", f"cannot be read ({error.strerror})")) from error
    return _known[key]


def _identity(status: os.stat_result) -> _Identity:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
