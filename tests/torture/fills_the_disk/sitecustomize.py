"""Imported by every Python process that has this folder in PYTHONPATH: fills a small disk at a chosen write.

`MSR_FILL_AT` is a regular expression: the first file or folder made, or database opened, whose path it finds fills the
disk, but for `MSR_FILL_LEAVE` bytes, before the write goes on. `MSR_FILLER` is the file that does so.
"""

import contextlib
import os
import re
import sys

_AT, _FILLER = os.environ.get("MSR_FILL_AT"), os.environ.get("MSR_FILLER", "")
_LEAVE = int(os.environ.get("MSR_FILL_LEAVE", "0"))
_MAKING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def _look(event: str, arguments: tuple[object, ...]) -> None:
    if event not in ("open", "os.mkdir", "sqlite3.connect"):
        return
    path = arguments[0]
    if not isinstance(path, str | bytes | os.PathLike) or (event == "open" and not int(str(arguments[2])) & _MAKING):
        return
    if _AT and re.search(_AT, os.fsdecode(path)):
        with contextlib.suppress(OSError):  # by another process already
            fill(_FILLER, _LEAVE)


def fill(filler: str, leave: int) -> None:
    """Take all but ``leave`` bytes of the disk on which the new file ``filler`` lies."""
    handle, size = os.open(filler, os.O_WRONLY | os.O_CREAT | os.O_EXCL), 0
    try:
        for part in (2**26, 2**20, 2**12):  # others write meanwhile: nobody knows beforehand how much there is
            with contextlib.suppress(OSError):
                while True:
                    os.posix_fallocate(handle, size, part)
                    size += part
        os.ftruncate(handle, max(0, size - leave))
    finally:
        os.close(handle)


if _AT:
    sys.addaudithook(_look)
