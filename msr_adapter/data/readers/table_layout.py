"""How a file is cut into rows and columns: told by its content and suffix, or by the format it belongs to."""

import codecs
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import polars as pl

from msr_adapter.config.schema import FileFormatConfig
from msr_adapter.data.readers.local_copies import as_utf8, from_python
from msr_adapter.text_tables.delimited import DelimitedFile
from msr_adapter.text_tables.dialects import Asked, dialect_of
from msr_adapter.text_tables.opening import BOM, open_plain, plain_suffix
from msr_adapter.text_tables.python_dicts import looks_like_python

_LOOKED_AT = 2**16
"""Bytes that tell what a file holds."""
_SEPARATORS = ("\t", ",", ";", "|")
_IN_QUOTES = re.compile(rb'"[^"]*"')


@dataclass(frozen=True)
class Layout:
    """How rows and columns are written."""

    kind: Literal["delimited", "jsonl", "parquet", "python", "lists"]
    separator: str = ","
    """Of a delimited file; may be several characters (`::`), which then stand for themselves everywhere."""
    quoted: bool | None = None
    """Whether a field in quotation marks may hold the separator or a line break; None = the file decides."""
    names: tuple[str, ...] = ()
    """The columns of a delimited file without a header."""
    lossy: bool = False
    """Whether bytes that are not UTF-8 become `�` instead of being an error."""
    escape: Literal["double", "backslash"] | None = None
    """How a mark is written within a quoted field; None = the file decides."""
    told: str = ""
    """What was found out against the suffix, for the audit."""

    @property
    def asked(self) -> Asked:
        """What is said of the quotation marks."""
        return Asked(None if self.quoted is None else "double" if self.quoted else "none", self.escape)


LAYOUTS = {
    ".csv": Layout("delimited"),
    ".tsv": Layout("delimited", "\t"),
    ".jsonl": Layout("jsonl"),
    ".parquet": Layout("parquet"),
}
"""The suffixes of a generic table; any text may also be packed (`.csv.gz`)."""
TOLD_BY_CONTENT = (".json", ".ndjson", ".txt", ".tab", ".dat", ".data", ".log")
"""Suffixes under which people keep tables of any of these kinds."""
_FORMATS = {
    "csv": LAYOUTS[".csv"], "tsv": LAYOUTS[".tsv"], "jsonl": LAYOUTS[".jsonl"], "parquet": LAYOUTS[".parquet"],
    "python": Layout("python"), "lists": Layout("lists"),
}  # fmt: skip
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True)
class Table:
    """Rows in a file (or a folder of Parquet files), or a frame that stands for them."""

    path: Path
    layout: Layout
    frame: pl.LazyFrame | None = None
    rows_of: "Table | None" = None
    """The table on disk whose rows, one for one, those of the frame are."""

    @property
    def is_delimited(self) -> bool:
        """Whether its rows are lines of fields."""
        return self.layout.kind == "delimited"


def table_at(path: Path, said: FileFormatConfig | None = None) -> Table:
    """Return the generic table at ``path`` as it is ``said`` to be, else as it is; of a folder, its Parquet files.

    What a file holds counts for more than its suffix; where the two disagree, the layout tells it.
    """
    said = said or FileFormatConfig()
    encoding, guessed = _encoding(path, said)
    if encoding:
        path = as_utf8(path, encoding)
    layout = _layout(path, said)
    if layout.kind == "python":
        path, layout = from_python(path), Layout("jsonl", told=layout.told)
    if layout.kind == "lists":
        return Table(path, layout, _of_lists(path))
    if guessed:
        layout = replace(layout, told=" ".join(text for text in (layout.told, guessed) if text))
    if said.delimiter is not None and layout.kind == "delimited":
        layout = replace(layout, separator=said.delimiter)
    if said.names is not None and layout.kind == "delimited":
        # No two columns may have one name, those that nobody reads neither.
        names = tuple(f"_{place}" if name == "_" else name for place, name in enumerate(said.names, 1))
        layout = replace(layout, names=names)
    layout = replace(layout, quoted=_QUOTED[said.quote], escape=said.escape)
    if not said.header and not layout.names and layout.kind == "delimited":
        layout = replace(layout, names=_numbers(path, layout))
    return Table(path, layout)


def _encoding(path: Path, said: FileFormatConfig) -> tuple[str | None, str]:
    """Return the encoding of a file that is not UTF-8, and what is to be said of it where nobody named it."""
    if said.encoding is not None or path.is_dir():
        return (None if said.encoding in (None, "utf-8") or not path.is_file() else said.encoding), ""
    if _start(path)[:2] in _UTF16:
        return "utf-16", f"{path.name} is read as UTF-16: its first two bytes say so."
    return None, ""


def _numbers(path: Path, layout: Layout) -> tuple[str, ...]:
    """Return what the columns of a file without a header are called where nobody names them: their numbers."""
    dialect = dialect_of(path, layout.separator, layout.asked)
    _, first = next(DelimitedFile(path, layout.separator, dialect).records(), (1, []))
    return tuple(str(place) for place in range(1, len(first) + 1))


def _of_lists(path: Path) -> pl.LazyFrame:
    """Return the rows of lines that hold a user and all of the user's items."""
    words = pl.scan_lines(path, name="line", glob=False).select(pl.col("line").str.extract_all(r"[^\s\x{feff}]+"))
    rows = words.select(user_id=pl.col("line").list.first(), item_id=pl.col("line").list.slice(1))
    return rows.filter(pl.col("item_id").list.len() > 0).explode("item_id")


_QUOTED = {None: None, "double": True, "none": False}


def _layout(path: Path, said: FileFormatConfig) -> Layout:
    if said.format is not None:
        return _FORMATS[said.format]
    if path.is_dir():
        return LAYOUTS[".parquet"]
    suffix = plain_suffix(path)
    by_suffix = LAYOUTS.get(suffix, Layout("jsonl") if suffix in (".json", ".ndjson") else None)
    start = _start(path)
    if not start:  # it is not there or empty, as others say
        return by_suffix or LAYOUTS[".parquet"]
    found = _by_content(start, by_suffix)
    if said.delimiter is None and found == by_suffix and (separator := _separated_otherwise(start, found)):
        found = replace(found, separator=separator)
    if by_suffix is None or (found.kind, found.separator) != (by_suffix.kind, by_suffix.separator):
        # The usual names of the same thing are not worth a word.
        return replace(found, told=f"{path.name} is read as {_called(found)}: that is what it holds.")
    return found


def _by_content(start: bytes, by_suffix: Layout | None) -> Layout:
    if start.startswith(b"PAR1"):
        return LAYOUTS[".parquet"]
    text = start.removeprefix(BOM).lstrip()
    if re.match(rb'\{\s*["}]|\[\s*[\{\]]', text):
        return LAYOUTS[".jsonl"]
    if looks_like_python(text):
        return _FORMATS["python"]
    if by_suffix is not None and by_suffix.kind != "parquet":
        return by_suffix
    return by_suffix or Layout("delimited", separator_of(text) or "\t")


def separator_of(text: bytes) -> str | None:
    """Return the character that separates the fields of a text's first lines alike, None where none or several do."""
    lines = [line for line in text.splitlines()[:20] if line.strip()]
    lines = lines[:-1] if len(lines) > 1 and not text.endswith((b"\n", b"\r")) else lines
    alike = [one for one in _SEPARATORS if len({line.count(one.encode()) for line in lines}) == 1]
    found = [one for one in alike if one.encode() in lines[0]] if lines else []
    return found[0] if found and (len(found) == 1 or found[0] == "\t") else None


def _separated_otherwise(start: bytes, layout: Layout) -> str | None:
    """Return what separates the fields of a text in place of what its suffix says, None where that is as it says.

    Of the first two lines, without what is quoted: the first has not the one, both have one and the same other.
    """
    lines = [line for line in _IN_QUOTES.sub(b"", start.removeprefix(BOM)).splitlines() if line.strip()][:2]
    if layout.kind != "delimited" or len(lines) < 2 or layout.separator.encode() in lines[0]:
        return None
    others = [one for one in _SEPARATORS if one.encode() in lines[0]]
    return others[0] if len(others) == 1 and others[0].encode() in lines[1] else None


def _called(layout: Layout) -> str:
    names = {"\t": "tabs", ",": "commas"}
    if layout.kind == "delimited":
        return f"a table of fields between {names.get(layout.separator, repr(layout.separator))}"
    return {"jsonl": "JSON lines", "python": "dicts of Python"}.get(layout.kind, "Parquet")


def _start(path: Path) -> bytes:
    try:
        if not path.is_file():
            return b""
        with open_plain(path) as file:
            return file.read(_LOOKED_AT)
    except (OSError, EOFError, ValueError):  # damaged: whoever reads it says how
        return b""
