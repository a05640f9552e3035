"""Files: atomic writes, digests, and the one function that knows where the bundled folders are."""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from msr_adapter.filesystem import files_below, open_file, parse_json, read_bytes, remove_folder
from msr_adapter.system import try_lock

BundledKind = Literal["templates", "pipelines", "eval"]

_UMASK = os.umask(0)
os.umask(_UMASK)  # it can be read by setting it alone
_STAMP_LIMIT = 64 * 2**20
_TEMPORARY = re.compile(r"\.(?P<target>.+)\.[a-z0-9_]{8}\.tmp", re.DOTALL)
"""What `tempfile` calls the files that `atomic_path` asks it for."""


def bundled(kind: BundledKind) -> Path:
    """Return the folder of bundled ``kind``: inside the wheel, or beside the package in a checkout."""
    package = Path(__file__).parent
    inside = package / kind
    return inside if inside.is_dir() else package.parent / kind


def constraints_file(name: str) -> Path:
    """Return where a bundled file of exact versions is: inside the wheel, or beside the package in a checkout."""
    package = Path(__file__).parent
    inside = package / "constraints" / name
    return inside if inside.is_file() else package.parent / name


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary file beside ``path``; on success it is fsynced and renamed, on failure removed."""
    with _temporary(path, folder=False) as temporary:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        share(temporary)
        temporary.replace(path)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``, which is absent or empty; on success it takes its place."""
    with _temporary(path, folder=True) as temporary:
        yield temporary
        share(temporary)
        if path.exists():
            path.rmdir()  # fails, and loses nothing, if something has come into it meanwhile
        temporary.rename(path)


@contextlib.contextmanager
def working_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``path`` for work that ends with the block; of a killed process `sweep` finds it.

    Its files are nobody else's: they may be left in any state.
    """
    with _temporary(path, folder=True) as temporary:
        try:
            yield temporary
        finally:
            remove(temporary)


def share(path: Path) -> None:
    """Give a file, or a folder with all that is in it, the mode that the user's umask gives to what is new.

    `tempfile` and the writers of weights let their user alone read; a colleague could then not load an export.
    """
    below = [Path(entry.path) for entry, _ in files_below(path)] if path.is_dir() else []
    folders = {parent for file in below for parent in file.relative_to(path).parents}
    for each in (path, *(path / folder for folder in folders), *below):
        found = each.lstat().st_mode
        wanted = (0o777 if stat.S_ISDIR(found) else 0o666) & ~_UMASK
        if not stat.S_ISLNK(found) and stat.S_IMODE(found) != wanted:
            with contextlib.suppress(PermissionError):  # a link to another user's file
                each.chmod(wanted)


@contextlib.contextmanager
def _temporary(path: Path, *, folder: bool) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, handle = _held(path, folder=folder)
    try:
        yield temporary
    except BaseException:
        remove(temporary)
        raise
    finally:
        os.close(handle)


def _held(path: Path, *, folder: bool) -> tuple[Path, int]:
    """Make a temporary file or folder and hold its lock, by which `sweep` knows that somebody is at work on it."""
    while True:
        if folder:
            name = tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
            handle = os.open(name, os.O_RDONLY)
        else:
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        with contextlib.suppress(OSError):  # a file system without locks: `sweep` gets none either and leaves it alone
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.path.exists(name):  # noqa: PTH110 - else swept by another process in between
            return Path(name), handle
        os.close(handle)


def sweep(folder: Path, mine: Callable[[str], bool]) -> list[Path]:
    """Remove what killed writers left in ``folder`` of the targets that ``mine`` accepts by name; return it.

    Only temporary names of `atomic_path` and `atomic_folder` count, and only where no process holds their lock.
    """
    try:
        found = sorted(folder.iterdir())
    except OSError:
        return []
    named = [path for path in found if (match := _TEMPORARY.fullmatch(path.name)) and mine(match["target"])]
    swept = [path for path in named if _is_abandoned(path)]
    for path in swept:
        remove(path)
    return swept


def _is_abandoned(path: Path) -> bool:
    try:
        kind = path.lstat().st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):  # nothing that we made
            return False
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        return try_lock(handle)
    except OSError:  # a file system without locks: nobody can say that they are done with it
        return False
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    """Remove a folder with all that is in it, a file, or a link but not what it leads to; absent is well."""
    if path.is_dir() and not path.is_symlink():
        remove_folder(path)
    else:
        path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    """Write ``value`` as indented JSON, atomically; NaN is refused."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json_object(path: Path | None) -> dict[str, Any]:
    """Return the JSON object in a file; an empty one where there is no file, or anything else is in it."""
    if path is None:
        return {}
    try:
        found = parse_json(read_bytes(path))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def digest(value: object) -> str:
    """Return the SHA-256 of ``value``: bytes as they are, anything else as canonical JSON."""
    if isinstance(value, bytes):
        data = value
    else:  # names of files need not be UTF-8
        data = json.dumps(value, sort_keys=True, ensure_ascii=False).encode("utf-8", "surrogatepass")
    return hashlib.sha256(data).hexdigest()


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes. O(size) time, constant memory."""
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def link(path: Path, target: Path) -> None:
    """Make ``target`` the same file as ``path`` where the disk allows it, else a copy; neither is written to again."""
    try:
        target.hardlink_to(path)
    except OSError:  # another disk, or one without links
        shutil.copy2(path, target)


def path_stamp(path: Path, *, content_limit: int = _STAMP_LIMIT) -> str:
    """Identify a file or folder for a fingerprint.

    Files up to ``content_limit`` bytes count by content, larger ones (weights, huge logs) by size and modification
    time. A folder is the stamp of all its files by relative name; give ``content_limit=0`` for folders of many images.
    """
    if path.is_dir():
        files = sorted(Path(entry.path) for entry, _ in files_below(path))
        return digest(
            [[entry.relative_to(path).as_posix(), path_stamp(entry, content_limit=content_limit)] for entry in files]
        )
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # a pipe, which nobody may write to: whoever reads it says what it is
        return digest(["not a file", stat.S_IFMT(status.st_mode)])
    if status.st_size <= content_limit:
        return file_digest(path)
    return digest([status.st_size, status.st_mtime_ns])


def bundled_model(name: str) -> Path | None:
    """Return the folder of a model that travels inside the package (`tiny`), or None for any other name."""
    return Path(__file__).parent / "demo" / "tiny" if name == "tiny" else None
