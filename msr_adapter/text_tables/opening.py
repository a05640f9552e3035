"""Files opened as what they hold, whatever they are called."""

import gzip
import io
from pathlib import Path
from typing import BinaryIO, cast

GZIP = b"\x1f\x8b"
BOM = b"\xef\xbb\xbf"


def plain_suffix(path: Path) -> str:
    """Return the suffix that says what a file holds, lower case and without `.gz`: `.jsonl` for `a.JSONL.gz`."""
    return Path(path.stem if path.suffix.lower() == ".gz" else path.name).suffix.lower()


def open_plain(path: Path) -> BinaryIO:
    """Open a file for reading bytes, through gzip when its first bytes say so."""
    with path.open("rb") as file:
        packed = file.read(2) == GZIP
    return cast(BinaryIO, gzip.open(path)) if packed else path.open("rb")


def open_text(path: Path) -> io.TextIOWrapper:
    """Open a UTF-8 file for reading, unpacked if packed; a byte order mark is skipped, line ends stay as they are."""
    return io.TextIOWrapper(open_plain(path), encoding="utf-8-sig", newline="")
