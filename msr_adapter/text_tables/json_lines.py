"""JSON lines, or one JSON array of objects, as a lazy frame of texts; nested values come as their JSON."""

import glob
import io
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import polars as pl
from polars.io.plugins import register_io_source

from msr_adapter.text_tables.json_array import array_elements
from msr_adapter.text_tables.json_blocks import JsonBlock, blocks
from msr_adapter.text_tables.json_scan import JsonScan

_CHUNK = 2**23
_NULL, _UNKNOWN = b"null", b"\\ufffd"


def scan_json_lines(path: Path, scan: JsonScan, wanted: Collection[str]) -> pl.LazyFrame:
    """Return the ``wanted`` keys of every object as texts, null where an object lacks one or it is null.

    A file that is plain JSON lines is read by Polars; any other in blocks, again for every pass: without byte order
    mark, `NaN` and `Infinity` as null, halves of characters as `�`. An array is in memory as a whole.
    """
    schema = pl.Schema(dict.fromkeys(wanted, pl.String))
    if scan.is_plain:
        # With a schema, since Polars would guess it from the first rows and fail on the others.
        return pl.scan_ndjson(glob.escape(str(path)), schema=schema)  # `[` in the name of a file is itself
    return register_io_source(
        lambda columns, predicate, rows, size: _batches(path, scan, schema, (columns, predicate, rows)), schema=schema
    )


def _batches(
    path: Path, scan: JsonScan, schema: pl.Schema, asked: tuple[Sequence[str] | None, pl.Expr | None, int | None]
) -> Iterator[pl.DataFrame]:
    columns, predicate, left = asked
    for block in _of_array(path) if scan.is_array else blocks(path, _CHUNK):
        if not block.data.strip():
            continue
        frame = pl.read_ndjson(io.BytesIO(cleaned(block)), schema=schema)
        frame = frame if columns is None else frame.select(columns)
        frame = frame if left is None else frame.head(left)
        left = None if left is None else left - frame.height
        yield frame if predicate is None else frame.filter(predicate)
        if left == 0:
            return


def _of_array(path: Path) -> Iterator[JsonBlock]:
    held: list[str] = []
    size = 0
    for _, text in array_elements(path):
        held.append(text.replace("\n", " ").replace("\r", " "))  # no string of JSON holds a line end as such
        size += len(text)
        if size > _CHUNK:
            yield JsonBlock("\n".join(held).encode(), 1)
            held, size = [], 0
    if held:
        yield JsonBlock("\n".join(held).encode(), 1)


def cleaned(block: JsonBlock) -> bytes:
    """Return a block as JSON: constants that it has not are null, halves of characters are `�`."""
    changes = [(begin, end, _NULL) for begin, end in block.constants()]
    changes += [(begin, begin + 6, _UNKNOWN) for begin in block.surrogates()]
    if not changes:
        return block.data
    parts, done = [], 0
    for begin, end, text in sorted(changes):
        parts += [block.data[done:begin], text]
        done = end
    return b"".join([*parts, block.data[done:]])
