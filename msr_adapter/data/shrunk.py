"""What earlier builds of a run made of the same image files: taken over instead of decoded again.

folder/
  index.jsonl     one line per image: key, and what became of it; written as it happens
  images/..       the stored files, hard links where the file system has them

A key is the file's path, size and time, as in the stage's fingerprint, or the digest of bytes in a table; with the
limits and the version of Pillow. The folder may be deleted at any time.
"""

import contextlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import PIL

from msr_adapter.config.models import Images
from msr_adapter.data.pictures import Fault
from msr_adapter.files import digest, file_digest

_VERSION = 1
"""Rises when equal files give other pictures."""


@dataclass(frozen=True)
class Stored:
    """What became of one item's image."""

    path: str | None = None
    """Relative to the stage's folder, with forward slashes; None = no image."""
    digest: str | None = None
    change: Literal["copied", "encoded", "shrunk"] = "copied"
    fault: Fault | None = None
    animated: bool = False
    """Only the first frame was kept."""


Make = Callable[[Path | bytes], Stored]
"""Stores an image under the stage's folder."""


@contextlib.contextmanager
def remembering(make: Make, limits: Images, out: Path, folder: Path | None) -> Iterator[Make]:
    """Yield ``make`` with a memory in ``folder``, for any number of threads; without a folder, ``make`` itself.

    Failures are not remembered, and a remembered file counts only if its digest is still right.
    """
    if folder is None:
        yield make
        return
    folder.mkdir(parents=True, exist_ok=True)
    known, lock = _read(folder / "index.jsonl"), threading.Lock()
    salt = [_VERSION, PIL.__version__, limits.model_dump(mode="json", exclude={"folder", "missing"})]
    with (folder / "index.jsonl").open("a", encoding="utf-8") as log:
        log.write("\n")  # a killed process may have left half a line

        def remembered(cover: Path | bytes) -> Stored:
            key = _key(cover, salt)
            if key in known and _take(known[key], folder, out):
                return known[key]
            stored = make(cover)
            if key and stored.path:
                _link(out / stored.path, folder / stored.path)
                with lock:
                    log.write(json.dumps({"key": key, **asdict(stored)}) + "\n")
                    log.flush()
            return stored

        yield remembered


def _read(path: Path) -> dict[str, Stored]:
    known: dict[str, Stored] = {}
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return known
    for line in lines:
        with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
            values = json.loads(line)
            key = values.pop("key")
            known[key] = Stored(**values)
    return known


def _key(cover: Path | bytes, salt: list[object]) -> str:
    """Return what identifies an image; empty when its file cannot be looked at."""
    if isinstance(cover, bytes):
        return digest([digest(cover), salt])
    try:
        status = cover.lstat()
    except OSError:
        return ""
    return digest([str(cover), status.st_size, status.st_mtime_ns, salt])


def _take(stored: Stored, folder: Path, out: Path) -> bool:
    """Put a remembered file into the stage's folder; False when it is gone or damaged."""
    kept, target = folder / str(stored.path), out / str(stored.path)
    try:
        if file_digest(kept) != stored.digest:
            kept.unlink()
            return False
    except OSError:
        return False
    _link(kept, target)
    return True


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except FileExistsError:
        return
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)
