"""Files: atomic writes, digests, and the one function that knows where the bundled folders are."""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

BundledKind = Literal["templates", "pipelines", "eval"]

_STAMP_LIMIT = 64 * 2**20


def bundled(kind: BundledKind) -> Path:
    """Return the folder of bundled ``kind``: inside the wheel, or beside the package in a checkout."""
    package = Path(__file__).parent
    inside = package / kind
    return inside if inside.is_dir() else package.parent / kind


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary file beside ``path``; on success it is fsynced and renamed, on failure removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically; NaN is refused."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def digest(value: Any) -> str:
    """Return the SHA-256 of ``value``: bytes as they are, anything else as canonical JSON."""
    data = value if isinstance(value, bytes) else json.dumps(value, sort_keys=True, ensure_ascii=False).encode()
    return hashlib.sha256(data).hexdigest()


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes. O(size) time, constant memory."""
    with path.open("rb") as file:
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
        files = sorted(entry for entry in path.rglob("*") if entry.is_file())
        return digest(
            [[entry.relative_to(path).as_posix(), path_stamp(entry, content_limit=content_limit)] for entry in files]
        )
    status = path.stat()
    if status.st_size <= content_limit:
        return file_digest(path)
    return digest([status.st_size, status.st_mtime_ns])


def bundled_model(name: str) -> Path | None:
    """Return the folder of a model that travels inside the package (`tiny`), or None for any other name."""
    return Path(__file__).parent / "demo" / "tiny" if name == "tiny" else None
