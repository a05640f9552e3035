"""The table of pairs with its scores, as a file: the columns and the order it had, whole or not at all."""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from msr_adapter.data.pairs_file import PairsFile, objects_of
from msr_adapter.files import atomic_path
from msr_adapter.workflows.recommend.output import explaining_output
from msr_adapter.workflows.score_pairs.pair_codes import PART

_SEPARATORS = {".csv": ",", ".tsv": "\t"}


def is_spliced(pairs: PairsFile, out: Path) -> bool:
    """Say whether rows are written as the very JSON that they are, with more keys."""
    return pairs.is_json and out.suffix.lower() == ".jsonl"


def write_scored(pairs: PairsFile, columns: Path, added: Iterator[pl.DataFrame], out: Path) -> None:
    """Write the table; ``added`` has what each `PART` rows get, ``columns`` the rows as `write_columns` left them.

    Memory: a part. Raises `StageError` if the file cannot be written.
    """
    with ExitStack() as stack:
        with explaining_output(out):
            temporary = stack.enter_context(atomic_path(out))
        with explaining_output(out):
            if is_spliced(pairs, out):
                _splice(objects_of(pairs), added, temporary)
            else:
                _write(_joined(columns, added), temporary, out.suffix.lower())
            stack.close()


def _joined(columns: Path, added: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    kept = pl.scan_parquet(columns, glob=False)
    for number, part in enumerate(added):
        yield kept.slice(number * PART, part.height).collect().hstack(part)


def _write(parts: Iterator[pl.DataFrame], path: Path, suffix: str) -> None:
    if suffix == ".parquet":
        writer = None
        for part in parts:
            table = part.to_arrow(compat_level=pl.CompatLevel.oldest())
            writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
            writer.write_table(table)
        if writer is not None:
            writer.close()
        return
    with path.open("wb") as file:
        for number, part in enumerate(parts):
            if suffix == ".jsonl":
                part.write_ndjson(file)
            else:
                part.write_csv(file, separator=_SEPARATORS[suffix], include_header=number == 0)


def _splice(objects: Iterator[str], added: Iterator[pl.DataFrame], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        for part in added:
            rows = islice(objects, part.height)
            file.writelines(_spliced(*one) for one in zip(rows, _values(part), strict=True))


def _values(part: pl.DataFrame) -> Sequence[str]:
    """Return what each row gets, without its brackets."""
    names = part.columns
    return [json.dumps(dict(zip(names, row, strict=True)))[1:-1] for row in part.iter_rows()]


def _spliced(row: str, more: str) -> str:
    return f"{row.removesuffix('}').rstrip()}, {more}}}\n"
