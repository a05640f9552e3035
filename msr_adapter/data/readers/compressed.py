"""Compressed files: opened as what they hold, and refused before reading when they are decompression bombs.

Polars decompresses by a file's first bytes, whatever it is called, so they decide here too.
"""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from msr_adapter.config.models import Model
from msr_adapter.errors import Problem

ALWAYS_FINE = 64 * 2**20
"""Bytes that any file may hold, however small it is itself."""

_GZIP = b"\x1f\x8b"
_OTHERS = {b"\x28\xb5\x2f\xfd": "zstd", b"PK\x03\x04": "zip", b"BZh": "bzip2", b"\xfd7zXZ": "xz",
           b"\x78\x01": "zlib", b"\x78\x9c": "zlib", b"\x78\xda": "zlib"}  # fmt: skip
_CHUNK = 2**20


def plain_suffix(path: Path) -> str:
    """Return the suffix that says what a file holds, lower case and without `.gz`: `.jsonl` for `a.JSONL.gz`."""
    return Path(path.stem if path.suffix.lower() == ".gz" else path.name).suffix.lower()


def open_plain(path: Path) -> BinaryIO:
    """Open a file for reading bytes, through gzip when its first bytes say so."""
    with path.open("rb") as file:
        packed = file.read(2) == _GZIP
    return cast(BinaryIO, gzip.open(path)) if packed else path.open("rb")


def compression_problems(source: Model, max_expansion: int) -> list[Problem]:
    """Return what is wrong with the compressed files that a source names, or that lie in a folder it names.

    A gzip file is decompressed once, up to the limit and in constant memory: nothing in its header can be trusted.
    """
    paths = (value for _, value in source if isinstance(value, Path))
    return [problem for path in paths for file in _files(path) for problem in _problems(file, max_expansion)]


def _files(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from sorted(file for file in path.rglob("*.gz") if file.is_file())
    elif path.is_file():
        yield path


def _problems(path: Path, max_expansion: int) -> Iterator[Problem]:
    try:
        with path.open("rb") as file:
            start = file.read(6)
            size = path.stat().st_size
    except OSError:
        return  # the reader says it better
    if kind := next((name for magic, name in _OTHERS.items() if start.startswith(magic)), None):
        yield Problem(str(path), "", f"compressed with {kind}", "plain text, Parquet or gzip (.gz)", "Decompress it")
    elif start.startswith(_GZIP):
        limit = max(ALWAYS_FINE, size * max_expansion)
        try:
            if _holds_more(path, limit):
                yield _bomb(path, size, limit, max_expansion)
        except (zlib.error, EOFError) as error:
            yield Problem(str(path), "", f"a damaged gzip file ({error})", "", "Copy or download it again")


def _bomb(path: Path, size: int, limit: int, max_expansion: int) -> Problem:
    return Problem(
        str(path), "", f"its {size:,} bytes hold more than {limit:,}",
        f"data.max_expansion: {max_expansion} allows {max_expansion} times the size of a compressed file",
        "Raise data.max_expansion if you trust the file",
    )  # fmt: skip


def _holds_more(path: Path, limit: int) -> bool:
    """Say whether the members of a gzip file hold more than ``limit`` bytes. `zlib.error` or `EOFError` on damage."""
    held = 0
    with path.open("rb") as file:
        data = file.read(_CHUNK)
        while data.strip(b"\0"):  # gzip allows padding after a member
            member = zlib.decompressobj(wbits=31)
            while not member.eof:
                held += len(member.decompress(data, _CHUNK))
                if held > limit:
                    return True
                data = member.unconsumed_tail or (b"" if member.eof else file.read(_CHUNK))
                if not data and not member.eof:
                    raise EOFError("it ends too early")
            data = member.unused_data or file.read(_CHUNK)
    return False
