"""The ranked lists as a file: Parquet, CSV or JSON lines, whole or not at all."""

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from msr_adapter.errors import StageError
from msr_adapter.files import atomic_path
from msr_adapter.schema import RECOMMENDATIONS

SUFFIXES = (".parquet", ".csv", ".jsonl")

Write = Callable[[pa.Table], None]


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Write]:
    """Yield what writes tables of RECOMMENDATIONS one after the other; ``path`` appears when the block ends well.

    Its suffix says the format. Memory: one table. Raises `StageError` if it cannot be written.
    """
    stack = contextlib.ExitStack()
    with explaining_output(path):
        temporary = stack.enter_context(atomic_path(path))
        write = stack.enter_context(_WRITERS[path.suffix.lower()](temporary))

    def explained(table: pa.Table) -> None:
        with explaining_output(path):
            write(table.select(RECOMMENDATIONS.names).cast(RECOMMENDATIONS))

    with stack:
        yield explained
        with explaining_output(path):
            stack.close()  # writes too: the end of a Parquet file, and the file's name


@contextlib.contextmanager
def explaining_output(path: Path) -> Iterator[None]:
    """Raise what the file system did to the file at ``path`` as a `StageError`."""
    try:
        yield
    except OSError as error:
        raise StageError(
            f"{path} cannot be written ({error.strerror or error})",
            "the disk is full, or this user may not write to its folder",
            "free some space or choose another --out; the scores are kept, so only the lists are made again",
        ) from error


@contextlib.contextmanager
def _parquet(path: Path) -> Iterator[Write]:
    with pq.ParquetWriter(path, RECOMMENDATIONS, compression="zstd") as writer:
        yield writer.write_table


@contextlib.contextmanager
def _csv(path: Path) -> Iterator[Write]:
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(",".join(RECOMMENDATIONS.names) + "\n")
        yield lambda table: pl.DataFrame(table).write_csv(file, include_header=False)


@contextlib.contextmanager
def _jsonl(path: Path) -> Iterator[Write]:
    with path.open("w", encoding="utf-8") as file:
        yield lambda table: file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in table.to_pylist())


_WRITERS = {".parquet": _parquet, ".csv": _csv, ".jsonl": _jsonl}
