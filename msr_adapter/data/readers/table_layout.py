"""How a file is cut into rows and columns: told by its suffix, or by the format that it belongs to."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl

from msr_adapter.data.readers.compressed import open_plain, plain_suffix


@dataclass(frozen=True)
class Layout:
    """How rows and columns are written."""

    kind: Literal["delimited", "jsonl", "parquet"]
    separator: str = ","
    """Of a delimited file; may be several characters (`::`), which then stand for themselves everywhere."""
    quoted: bool = True
    """Whether a field in quotation marks may hold the separator or a line break."""
    names: tuple[str, ...] = ()
    """The columns of a delimited file without a header."""
    lossy: bool = False
    """Whether bytes that are not UTF-8 become `�` instead of being an error."""


LAYOUTS = {
    ".csv": Layout("delimited"),
    ".tsv": Layout("delimited", "\t"),
    ".jsonl": Layout("jsonl"),
    ".parquet": Layout("parquet"),
}
"""The suffixes of a generic table; any text may also be packed (`.csv.gz`)."""


@dataclass(frozen=True)
class Table:
    """Rows in a file (or a folder of Parquet files), or a frame that stands for them."""

    path: Path
    layout: Layout
    frame: pl.LazyFrame | None = None

    @property
    def is_delimited(self) -> bool:
        """Whether its rows are lines of fields."""
        return self.layout.kind == "delimited"


def table_at(path: Path) -> Table:
    """Return the generic table at ``path``, whose suffix is one of `LAYOUTS`, or a folder of Parquet files."""
    return Table(path, LAYOUTS.get(plain_suffix(path), LAYOUTS[".parquet"]))


def open_text(path: Path) -> io.TextIOWrapper:
    """Open a UTF-8 file for reading, unpacked if packed; a byte order mark is skipped, line ends stay as they are."""
    return io.TextIOWrapper(open_plain(path), encoding="utf-8-sig", newline="")
