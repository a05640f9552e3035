"""The edge to the file system: a full disk, a pipe where a file is expected, a link to itself, a damaged file.

`guarded` turns what the disk answers into a message, whichever library met it; the rest opens, walks and removes what
anybody may have put there without waiting for ever and without recursion.
"""

import contextlib
import errno
import io
import itertools
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from msr_adapter.errors import MsrError, StageError, closest

_FULL = (errno.ENOSPC, errno.EDQUOT)
_ALSO_WITHOUT_NAME = (errno.EACCES, errno.EPERM, errno.EIO, errno.EROFS, errno.ESTALE, errno.EMFILE, errno.ENFILE)
_SAID = re.compile(
    r"no space left on device|disk quota exceeded|database or disk is full|\b(?:os error|errno) (?:28|122)\b",
    re.IGNORECASE,
)
"""What libraries say that keep the system's number to themselves: Polars, SQLite, safetensors."""
_UNSURE = re.compile(
    r"disk I/O error|file write failed|iostream error|PytorchStreamWriter failed|File too large|os error 27"
)
"""What they say of a full disk and of other faults alike: how much is left decides."""
_NOTHING = 2**20
FULL = "the disk is full"
"""The cause that a `StageError` names where only a process's log says so."""
_DEEPEST = 64
_LOOKED_AT = 10_000
"""Names in a folder, which may hold millions of images, that a guess is made among."""


class FileSystemError(StageError):
    """The disk, or what lies on it, is not as it should be."""


class DiskFullError(FileSystemError):
    """Nothing more can be written."""


class DamagedFileError(FileSystemError):
    """A file that msr wrote holds something else."""

    def __init__(self, path: Path, found: str) -> None:
        name = printable(path)
        step = f"run `msr run` again with --force {printable(path.parent.name)}, or remove the file"
        super().__init__(f"{name}: {found}", "it was damaged or changed since msr wrote it", step)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_again, (type(self), self.what, self.cause, self.next_step))


def _again(kind: type[StageError], what: str, cause: str, next_step: str) -> StageError:
    error = kind.__new__(kind)
    StageError.__init__(error, what, cause, next_step)
    return error


@contextlib.contextmanager
def guarded(place: Path | None = None) -> Iterator[None]:
    """Raise what the file system did as a `FileSystemError`; ``place`` is where most is written."""
    try:
        yield
    except FileSystemError:
        raise
    except Exception as error:
        told = explained(error, place)
        if told is None:
            raise
        raise told from error


def explained(error: BaseException, place: Path | None = None) -> FileSystemError | None:
    """Return what to tell the user of an exception; None if the file system is not its cause."""
    chain = list(_chain(error))
    written = next((one.filename2 or one.filename for one in chain if isinstance(one, OSError) and one.filename), None)
    near = [Path(os.fsdecode(written))] if isinstance(written, str | bytes | os.PathLike) else []
    near += [place] if place else []
    if any(_says_full(one) or (_may_say_full(one) and _least_free(near) < _NOTHING) for one in chain):
        return _disk_full(near, place)
    if not isinstance(error, OSError) or error.errno is None:
        return None
    if error.filename is None and error.errno not in _ALSO_WITHOUT_NAME:
        return None
    what = error.strerror or os.strerror(error.errno)
    where = f"{printable(near[0])}: " if near else ""
    return FileSystemError(f"{where}cannot be read or written ({what})", next_step=_step(error.errno, where))


def is_full(error: BaseException) -> bool:
    """Say whether an exception means that a disk is full, whatever raised it."""
    return any(isinstance(one, DiskFullError) or _says_full(one) for one in _chain(error))


def is_nearly_full(place: Path) -> bool:
    """Say whether so little is left where ``place`` lies that a failure there may well come of it: less than 1 MiB."""
    return _free(place) < _NOTHING


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)


def _says_full(error: BaseException) -> bool:
    if isinstance(error, MsrError):  # whose text may quote anything
        return isinstance(error, StageError) and error.cause == FULL
    return (isinstance(error, OSError) and error.errno in _FULL) or _SAID.search(str(error)) is not None


def _may_say_full(error: BaseException) -> bool:
    return not isinstance(error, MsrError) and _UNSURE.search(str(error)) is not None


def _disk_full(near: list[Path], place: Path | None) -> DiskFullError:
    places = dict.fromkeys([*near, Path(tempfile.gettempdir())])
    free = ", ".join(f"{_free(one) / 2**20:,.1f} MB at {printable(one)}" for one in places)
    kept = "; what is finished is kept, and the same command continues" if place else ""
    what = f"the disk is full: {printable(next(iter(places)))} cannot be written. Free are {free}"
    return DiskFullError(what, "no space is left, or this user's quota is used up", f"make room and run again{kept}")


def _least_free(places: Iterable[Path]) -> int:
    return min((_free(one) for one in places), default=_NOTHING)


def _free(place: Path) -> int:
    for folder in (place, *place.absolute().parents):
        with contextlib.suppress(OSError, ValueError):
            return shutil.disk_usage(folder).free
    return 0


def _step(number: int, where: str) -> str:
    if number in (errno.EACCES, errno.EPERM):
        return "give this user the right to it, or choose another place"
    if number == errno.ELOOP:
        return "remove the link that leads to itself"
    return "look at what lies there; move it away if msr is to write there" if where else ""


def printable(text: object) -> str:
    """Return a path or a text as it can be printed and stored anywhere: what is no UTF-8 becomes like ``\\udcff``."""
    return str(text).encode("utf-8", errors="backslashreplace").decode("utf-8")


def open_file(path: Path) -> io.BufferedReader:
    """Open a file for reading; `OSError` at once for a pipe, which would be waited for, a device or a folder."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        require_file(path, os.fstat(handle))
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def require_file(path: Path, status: os.stat_result | None = None) -> None:
    """Raise `OSError` unless ``path`` is a file, or a link to one."""
    mode = (status or os.stat(path)).st_mode  # noqa: PTH116 - the word of the system, not of a path that may be missing
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "a pipe, a socket or a device, not a file", str(path))


def append_text(path: Path, text: str) -> None:
    """Add to the end of a file; `OSError` at once for a pipe that nobody reads, or a folder."""
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    with os.fdopen(handle, "a", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)


def read_bytes(path: Path) -> bytes:
    """Return a file's bytes; raises as `open_file`."""
    with open_file(path) as file:
        return file.read()


def parse_json(data: str | bytes) -> Any:
    """Return the JSON in ``data``. Raises `ValueError` for what is none, or is nested over 64 levels deep."""
    try:
        found = json.loads(data)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    # Level by level: what parsed within the recursion limit may still be too deep for whoever walks it next.
    level: list[Any] = [found]
    for _ in range(_DEEPEST):
        inner = [one for one in level if isinstance(one, dict | list)]
        level = [value for one in inner for value in (one.values() if isinstance(one, dict) else one)]
        if not level:
            return found
    raise ValueError("nested too deeply")


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file that msr wrote; `DamagedFileError` where anything else is in it."""
    try:
        found = parse_json(read_bytes(path))
    except (OSError, ValueError) as error:
        raise DamagedFileError(path, f"cannot be read ({getattr(error, 'strerror', None) or error})") from error
    if not isinstance(found, dict):
        raise DamagedFileError(path, f"holds a JSON {type(found).__name__}, not an object")
    return found


def home(path: str | Path) -> Path:
    """Return a path with a leading ``~`` replaced; that of a user who is not there stays as it is written."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - pathlib's raises


def real(path: Path) -> Path:
    """Return a path as it really is; a link that leads to itself stays as it is written."""
    return Path(os.path.realpath(home(path)))


def absent(path: Path, noun: str = "file") -> str:
    """Say what is wrong with a path where no ``noun`` (file or folder) is, and which path beside may be meant."""
    if os.path.exists(path):  # noqa: PTH110 - False where the path cannot be looked at
        return f"not a {noun}"
    near = near_path(path, folder=noun == "folder")
    return f"no such {noun}" + (f" (did you mean {printable(near)}?)" if near else "")


def near_path(path: Path, *, folder: bool) -> str:
    """Return the path, a slip of the pen away, of a file or folder that is there; "" if there is none.

    In the folder of ``path`` it is a name; where that folder is not there either, the path up to the part that differs.
    """
    there = next((parent for parent in path.parents if os.path.exists(parent)), None)  # noqa: PTH110
    if there is None or not there.is_dir():
        return ""
    name, *rest = path.relative_to(there).parts
    try:
        with os.scandir(there) as entries:
            kinds = {one.name: one.is_dir() for one in itertools.islice(entries, _LOOKED_AT) if one.name[0] != "."}
    except OSError:
        return ""
    wanted = folder or bool(rest)
    near = _near_name(name, [one for one, is_folder in kinds.items() if is_folder == wanted])
    if not near or not rest:
        return near
    whole = there / near / Path(*rest)
    return str(whole if whole.exists() else there / near)


def _near_name(name: str, names: Iterable[str]) -> str:
    """Return the name that differs in its suffix alone, or in its stem by a slip of the pen."""
    stem, suffix = _split(name)
    split = {one: _split(one) for one in names}
    same = next((one for one, parts in split.items() if parts[0] == stem), "")
    near = closest(stem, [parts[0] for parts in split.values() if parts[1] == suffix])
    return same or next((one for one, parts in split.items() if near and parts == (near[0], suffix)), "")


def _split(name: str) -> tuple[str, str]:
    bare = name.removesuffix(".gz")
    return Path(bare).stem, Path(bare).suffix


def holds_pattern(path: object) -> bool:
    """Return whether libraries that take patterns, variables and chained addresses would not open what is called so."""
    return any(one in str(path) for one in ("[", "*", "?", "$", "::"))


def files_below(folder: Path, *, without: Collection[str] = ()) -> Iterator[tuple[os.DirEntry[str], int]]:
    """Yield the files of a folder and those below it, each with its depth; a link is one if it leads to a file.

    Linked folders are not entered; folders that cannot be listed, or lie deeper than a path can say, have no files.
    What in the folder itself has one of the names ``without`` is passed over.
    """
    waiting = [(str(folder), 0)]
    while waiting:
        place, depth = waiting.pop()
        try:
            with os.scandir(place) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError:
            if depth == 0:
                raise
            continue
        below = []
        for entry in found:
            if depth == 0 and entry.name in without:
                continue
            with contextlib.suppress(OSError):  # a link to itself
                if entry.is_dir(follow_symlinks=False):
                    below.append((entry.path, depth + 1))
                elif entry.is_file():
                    yield entry, depth
        waiting += reversed(below)


def remove_folder(folder: Path) -> None:
    """Remove a folder with all that is in it, however deep; what cannot be removed stays."""
    try:
        shutil.rmtree(folder, ignore_errors=True)
    except RecursionError:
        # Deeper than rmtree goes: lift what is inside a folder up to the top until nothing is deep any more.
        _flatten(folder)
        shutil.rmtree(folder, ignore_errors=True)


def _flatten(folder: Path) -> None:
    number = 0
    waiting = [one for one in folder.iterdir() if one.is_dir() and not one.is_symlink()]
    while waiting:
        here = waiting.pop()
        for below in [one for one in here.iterdir() if one.is_dir() and not one.is_symlink()]:
            number += 1
            lifted = folder / f".{number}.lifted"
            below.rename(lifted)
            waiting.append(lifted)
