"""Compressed files: opened as what they hold, and refused before reading when they are decompression bombs.

Polars decompresses by a file's first bytes, whatever it is called, so they decide here too.
"""

import math
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from msr_adapter.errors import Problem
from msr_adapter.filesystem import files_below
from msr_adapter.text_tables.opening import GZIP

ALWAYS_FINE = 64 * 2**20
"""Bytes that any file may hold, however small it is itself."""

LONGEST_LINE = 128 * 2**20
"""Bytes that a line of a packed file may have: text is read by lines, so an endless one would fill the memory."""

_OTHERS = {b"\x28\xb5\x2f\xfd": "zstd", b"PK\x03\x04": "zip", b"BZh": "bzip2", b"\xfd7zXZ": "xz",
           b"\x78\x01": "zlib", b"\x78\x9c": "zlib", b"\x78\xda": "zlib"}  # fmt: skip
_CHUNK = 2**20


def compression_problems(paths: Iterable[Path], max_expansion: int, budget: float = math.inf) -> list[Problem]:
    """Return what is wrong with compressed files, given or lying in the given folders.

    A gzip file is decompressed once, in constant memory, up to its limit or to ``budget`` bytes: nothing in its header
    can be trusted. With a budget, what it holds is known to be safe as far as that.
    """
    files = [file for path in paths for file in (_below(path) if path.is_dir() else [path])]
    return [found for file in files if file.is_file() for found in _problems(file, max_expansion, budget)]


def _below(folder: Path) -> list[Path]:
    return sorted(Path(entry.path) for entry, _ in files_below(folder))


def _problems(path: Path, max_expansion: int, budget: float) -> Iterator[Problem]:
    try:
        with path.open("rb") as file:
            start = file.read(6)  # as many as the longest of `_OTHERS` has
            size = path.stat().st_size
    except OSError:
        return  # the reader says it better
    if kind := next((name for magic, name in _OTHERS.items() if start.startswith(magic)), None):
        yield Problem(str(path), "", f"compressed with {kind}", "plain text, Parquet or gzip (.gz)", "Decompress it")
    elif start.startswith(GZIP):
        limit = max(ALWAYS_FINE, size * max_expansion)
        try:
            held, longest_line = _measure(path, min(limit, budget))
        except (zlib.error, EOFError) as error:
            yield Problem(str(path), "", f"a damaged gzip file ({error})", "", "Copy or download it again")
            return
        if held > limit:
            yield _bomb(path, size, limit, max_expansion)
        elif longest_line > LONGEST_LINE:
            found = f"holds a line of more than {LONGEST_LINE:,} bytes"
            yield Problem(str(path), "", found, "a table with one row per line", "Decompress it if you trust the file")


def _bomb(path: Path, size: int, limit: int, max_expansion: int) -> Problem:
    return Problem(
        str(path), "", f"its {size:,} bytes hold more than {limit:,}",
        f"data.max_expansion: {max_expansion} allows {max_expansion} times the size of a compressed file",
        "Raise data.max_expansion if you trust the file",
    )  # fmt: skip


def _measure(path: Path, enough: float) -> tuple[int, int]:
    """Return how many bytes a gzip file holds and its longest line (less than a chunk may be missing).

    It ends as soon as there are more than ``enough``, or one line is too long. `zlib.error` or `EOFError` on damage.
    """
    held = line = longest = 0
    for part in _unpacked(path):
        held += len(part)
        # The line that a part ends in goes on in the next one, so it is carried over.
        last = part.rfind(b"\n")
        line = line + len(part) if last < 0 else len(part) - last - 1
        longest = max(longest, line)
        if held > enough or longest > LONGEST_LINE:
            break
    return held, longest


def _unpacked(path: Path) -> Iterator[bytes]:
    """Yield what the members of a gzip file hold, at most a chunk at a time."""
    with path.open("rb") as file:
        data = file.read(_CHUNK)
        while data.strip(b"\0"):  # gzip allows padding after a member
            member = zlib.decompressobj(wbits=31)  # 16 for gzip's header, 15 for the largest window
            while not member.eof:
                yield member.decompress(data, _CHUNK)  # bounded: one chunk of a bomb may stand for a gigabyte
                data = member.unconsumed_tail or (b"" if member.eof else file.read(_CHUNK))
                if not data and not member.eof:
                    raise EOFError("it ends too early")
            data = member.unused_data or file.read(_CHUNK)
