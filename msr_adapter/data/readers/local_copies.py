"""Copies of what cannot be read where it lies or as it is written: other encodings, Python's dicts, buckets, databases.

A copy is made once for each version of its origin and kept for the next command, in `$MSR_SOURCES`, by default
`~/.cache/msr/sources`, which only the user may read. It can be removed at any time (`msr cache sources`); copies of
older versions are.
"""

import codecs
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from msr_adapter.errors import Problem, UserError
from msr_adapter.files import atomic_path, digest, remove, write_text
from msr_adapter.filesystem import files_below
from msr_adapter.redaction import redact
from msr_adapter.text_tables.opening import open_plain
from msr_adapter.text_tables.python_dicts import as_json

_CHUNK = 2**22
_KEPT = 24 * 3600.0
"""Seconds after which the copy of an older version is surely no longer read by another command."""
_ORIGIN = "origin.txt"
_origins: dict[str, str] = {}
"""Copy -> what it is a copy of, as messages call it."""


def copies_folder() -> Path:
    """Return the folder of all copies, which may be absent."""
    named = os.environ.get("MSR_SOURCES")
    if named:
        return Path(named).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "msr" / "sources"


@dataclass(frozen=True)
class SourceCopies:
    """The copies of one origin."""

    folder: Path
    origin: str
    """As messages call it; "" where it is not known."""
    bytes: int
    """On the disk; what several copies share is counted with the first."""
    used: float
    """When they were last asked for, in seconds since 1970."""


def source_copies() -> list[SourceCopies]:
    """Return all copies by origin, those first that were asked for last."""
    counted, found = set[int](), list[SourceCopies]()
    root = copies_folder()
    folders = [folder for folder in root.iterdir() if folder.is_dir()] if root.is_dir() else []
    for folder in sorted(folders, key=lambda folder: (-folder.stat().st_mtime, folder.name)):
        stamps = {stamp.st_ino: stamp.st_size for entry, _ in files_below(folder) for stamp in [entry.stat()]}
        new = {number: size for number, size in stamps.items() if number not in counted}
        counted |= new.keys()
        try:
            origin = (folder / _ORIGIN).read_text(encoding="utf-8").strip()
        except OSError:
            origin = ""
        found.append(SourceCopies(folder, origin, sum(new.values()), folder.stat().st_mtime))
    return found


def folder_of(origin: str, secret: str = "") -> Path:
    """Return the folder of the copies of ``origin``, made where it is absent.

    Messages and the folder itself say ``origin``; ``secret`` tells it from others of that name, and is written nowhere.
    """
    folder = copies_folder() / digest([origin, secret] if secret else origin)[:24]
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not (folder / _ORIGIN).is_file():
        write_text(folder / _ORIGIN, redact(origin) + "\n")
    os.utime(folder)
    return folder


def local_copy(origin: str, version: object, name: str, write: Callable[[Path], None], secret: str = "") -> Path:
    """Return a file called ``name`` that ``write`` made of this version of ``origin``, now or before.

    ``origin`` and ``secret`` are those of `folder_of`. Other versions that nobody has read for a day are removed.
    """
    path = version_folder(folder_of(origin, secret), version) / name
    if not path.is_file():
        with atomic_path(path) as temporary:
            write(temporary)
    called(path, origin)
    return path


def version_folder(folder: Path, version: object) -> Path:
    """Return the folder of one version within that of an origin; others that nobody has read for a day are removed."""
    kept = folder / digest(version)[:24]
    kept.mkdir(exist_ok=True, mode=0o700)
    os.utime(kept)
    for other in folder.iterdir():
        with suppress(OSError):
            if other != kept and other.is_dir() and time.time() - other.stat().st_mtime > _KEPT:
                remove(other)
    return kept


def called(copy: Path, origin: str) -> None:
    """Note what messages on a copy are about."""
    _origins[str(copy)] = origin


@contextmanager
def naming_origins() -> Iterator[None]:
    """Let problems with copies that are raised inside name what they are copies of."""
    try:
        yield
    except UserError as error:
        raise UserError([of_the_origin(problem) for problem in error.problems]) from error


def of_the_origin(problem: Problem) -> Problem:
    """Return a problem with a copy as one with its origin; the lines are the same."""
    copy = next((copy for copy in _origins if problem.where.startswith(copy)), None)
    return problem if copy is None else replace(problem, where=_origins[copy] + problem.where.removeprefix(copy))


def version_of(path: Path) -> list[int]:
    """Return what tells a changed file from the one that was copied."""
    stamp = path.stat()
    return [stamp.st_size, stamp.st_mtime_ns, stamp.st_ino]


def as_utf8(path: Path, encoding: str) -> Path:
    """Return a file of text in another encoding as UTF-8; `UserError` with the first line that is not in it."""

    def write(target: Path) -> None:
        decoder, line = codecs.getincrementaldecoder(encoding)(), 1
        with open_plain(path) as file, target.open("w", encoding="utf-8", newline="") as out:
            while True:
                data = file.read(_CHUNK)
                try:
                    text = decoder.decode(data, final=not data)
                except UnicodeDecodeError as error:
                    raise UserError(_wrong_bytes(path, encoding, line, error)) from error
                if encoding.startswith("utf") and line == 1:
                    text = text.removeprefix("\ufeff")
                out.write(text)
                line += text.count("\n")
                if not data:
                    return

    return local_copy(str(path), [encoding, *version_of(path)], path.name, write)


def _wrong_bytes(path: Path, encoding: str, line: int, error: UnicodeDecodeError) -> Problem:
    before = error.object[: error.start].decode(encoding, "replace")
    found = f"byte {error.object[error.start]:#04x} is not {encoding}"
    where = f"{path}:{line + before.count(chr(10))}"
    return Problem(where, "", found, f"text in {encoding}", "Set data.source.encoding to the one it was written in")


def from_python(path: Path) -> Path:
    """Return a file of Python's dicts as JSON lines, one for one."""

    def write(target: Path) -> None:
        with open_plain(path) as file, target.open("wb") as out:
            held = b""
            while data := file.read(_CHUNK):
                lines, cut, rest = data.rpartition(b"\n")
                if cut:
                    out.write(_converted(held + lines + cut))
                    held = rest
                else:
                    held += data
            out.write(_converted(held))

    return local_copy(str(path), ["python", *version_of(path)], path.name, write)


def _converted(data: bytes) -> bytes:
    # What is not UTF-8 comes out as it went in, and is told by the reader of JSON.
    return as_json(data.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
