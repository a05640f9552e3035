"""A delimited file of any dialect as a lazy frame of texts."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, cast

import polars as pl
import pyarrow as pa
from polars.io.plugins import register_io_source
from pyarrow import csv as arrow_csv

from msr_adapter.text_tables.dialects import Dialect
from msr_adapter.text_tables.opening import open_plain, open_text

_LARGEST_BLOCK = 2**26
"""Bytes that Arrow reads at a time, and the longest record that it can read."""


@dataclass(frozen=True)
class DelimitedFile:
    """A file and how it is cut into fields."""

    path: Path
    separator: str
    dialect: Dialect
    names: tuple[str, ...] = ()
    """The columns of a file without a header."""
    lossy: bool = False
    """Whether bytes that are not UTF-8 become `�` instead of being an error."""

    @property
    def is_exact(self) -> bool:
        """Whether Arrow reads it, to which a blank line is no row and a row with too few fields is a fault."""
        return self.dialect.reading not in ("rfc4180", "none") or self.dialect.returns

    def scan(self) -> pl.LazyFrame:
        """Return the file as a lazy frame of texts, its rows in their order; an empty field may be null.

        RFC 4180 and unquoted files are read by Polars, all others by Arrow, in blocks, again for every pass.
        """
        if not self.is_exact:
            return pl.scan_csv(
                self.path,
                separator=self.separator,
                quote_char=None if self.dialect.reading == "none" else '"',
                has_header=not self.names,
                schema=dict.fromkeys(self.names, pl.String) if self.names else None,
                missing_columns="insert" if self.names else "raise",
                infer_schema=False,  # everything stays text, so that the id 007 is not the number 7
                glob=False,  # `[` and `*` in the name of a file are themselves
                encoding="utf8-lossy" if self.lossy else "utf8",
            )
        header = list(self.names) or _told_apart(self._first_record())
        return register_io_source(
            lambda columns, predicate, rows, size: self._batches(header, columns, predicate, rows),
            schema=dict.fromkeys(header, pl.String),
        )

    def records(self, *, strict: bool = False) -> Iterator[tuple[int, list[str]]]:
        """Yield the first line's number and the fields of every record, the header first; `csv.Error` if strict."""
        # The default, 128 KiB, is a crash for one long description. It is a setting of the process, so it is put back.
        limit = csv.field_size_limit(2**31 - 1)
        marks = self.dialect.reading != "none"
        quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if marks else csv.QUOTE_NONE
        escape = "\\" if self.dialect.reading == "backslash" else None
        strict = strict and self.dialect.reading != "loose"
        try:
            with self._text() as file:
                reader = csv.reader(file, delimiter=self.separator, strict=strict, quoting=quoting, escapechar=escape)
                line = 1
                for row in reader:
                    yield line, row
                    line = reader.line_num + 1
        finally:
            csv.field_size_limit(limit)

    def _text(self) -> io.TextIOWrapper:
        if not self.lossy:
            return open_text(self.path)
        return io.TextIOWrapper(open_plain(self.path), encoding="utf-8-sig", errors="replace", newline="")

    def _first_record(self) -> list[str]:
        return next((row for _, row in self.records() if row), [])

    def _batches(
        self, header: Sequence[str], columns: Sequence[str] | None, predicate: pl.Expr | None, rows: int | None
    ) -> Iterator[pl.DataFrame]:
        names = [str(place) for place in range(len(header))]
        asked = [names[header.index(name)] for name in columns] if columns is not None else names
        left = rows
        with open_plain(self.path) as file:
            source: io.RawIOBase | BinaryIO = _Lossless(file) if self.lossy else file
            if self.dialect.reading == "backslash":
                source = _WithoutNulls(cast(BinaryIO, source), self.separator)
            with closing(self._open(source, names, asked or names[:1])) as reader:
                for batch in reader:
                    frame = cast(pl.DataFrame, pl.from_arrow(pa.Table.from_batches([batch])))
                    frame = frame.rename({name: header[int(name)] for name in frame.columns})
                    frame = frame if left is None else frame.head(left)
                    left = None if left is None else left - frame.height
                    yield frame if predicate is None else frame.filter(predicate)
                    if left == 0:
                        return

    def _open(self, source: object, names: list[str], asked: list[str]) -> arrow_csv.CSVStreamingReader:
        reading = self.dialect.reading
        size = self.path.stat().st_size
        return arrow_csv.open_csv(
            source,
            # Not in threads: a reader that is given up early would end the process.
            read_options=arrow_csv.ReadOptions(
                use_threads=False, column_names=names, skip_rows_after_names=0 if self.names else 1,
                block_size=min(max(2 * size, 2**16), _LARGEST_BLOCK),
            ),
            parse_options=arrow_csv.ParseOptions(
                delimiter=self.separator, quote_char=False if reading == "none" else '"',
                escape_char="\\" if reading == "backslash" else False, newlines_in_values=reading != "none",
            ),
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.large_string()), include_columns=asked, strings_can_be_null=False
            ),
        )  # fmt: skip


class _WithoutNulls(io.RawIOBase):
    """Bytes of a file in which a field `\\N`, which databases write for nothing, is empty: Arrow would make it `N`."""

    def __init__(self, file: BinaryIO, separator: str) -> None:
        cut = re.escape(separator).encode()
        self._null = re.compile(rb"(?m)(?:^|(?<=" + cut + rb"))\\N(?=" + cut + rb"|\r?$)")
        self._file = file
        self._held = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(cast(bytearray, buffer)).cast("B")
        if not self._held:
            self._held = self._null.sub(b"", b"".join(self._file.readlines(2**20)))
        part, self._held = self._held[: len(view)], self._held[len(view) :]
        view[: len(part)] = part
        return len(part)


class _Lossless(io.RawIOBase):
    """Bytes of a file in which those that are not UTF-8 are `�`."""

    def __init__(self, file: BinaryIO) -> None:
        self._text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="replace", newline="")
        self._held = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(cast(bytearray, buffer)).cast("B")
        if not self._held:
            self._held = self._text.read(2**20).encode()
        part, self._held = self._held[: len(view)], self._held[len(view) :]
        view[: len(part)] = part
        return len(part)


def _told_apart(names: Sequence[str]) -> list[str]:
    """Return a header in which a repeated name is told apart as Polars does it."""
    seen: dict[str, int] = {}
    result = []
    for name in names:
        number = seen.get(name, 0)
        seen[name] = number + 1
        result.append(f"{name}_duplicated_{number - 1}" if number else name)
    return result
