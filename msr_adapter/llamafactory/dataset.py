"""Training rows in a format LLaMA-Factory reads: ShareGPT messages in Parquet or JSONL, and `dataset_info.json`."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from msr_adapter.files import write_text

TRAIN = "msr_train"
VALIDATION = "msr_validation"
INFO_FILE = "dataset_info.json"

Kind = Literal["parquet", "jsonl"]

ROWS_PER_FILE = 50_000
_ROWS_PER_GROUP = 1_000

SCHEMA = pa.schema(
    [
        pa.field("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        pa.field("images", pa.list_(pa.string())),  # relative to media_dir; empty = a row without image
    ]
)
"""Explicit, since LLaMA-Factory's reader infers types from the first rows, which may all lack images."""

_REPEATED = ["messages.list.element.role", "images.list.element"]
"""Columns worth a dictionary; that of the texts would fill up with prompts that are all different."""
_LINE = (
    '{{"messages": [{{"role": "user", "content": "{}"}}, {{"role": "assistant", "content": "{}"}}], "images": [{}]}}\n'
)

_ENTRY = {
    "formatting": "sharegpt",
    "columns": {"messages": "messages", "images": "images"},
    "tags": {
        "role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant",
        "system_tag": "system",
    },
}  # fmt: skip
# Every column and tag in use is listed: LLaMA-Factory nulls those that a partial list leaves out.


@dataclass(frozen=True)
class TrainingRow:
    """One supervised row: a user turn, the answer to learn, at most one image (path relative to ``media_dir``)."""

    prompt: str
    answer: str
    images: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrainingRows:
    """Many rows, by column; written in one piece."""

    prompts: pl.Series
    answers: pl.Series
    images: pl.Series
    """Path or null."""

    def __len__(self) -> int:
        return len(self.prompts)


def write_rows(folder: Path, chunks: Iterable[TrainingRows], kind: Kind = "parquet") -> int:
    """Write rows in their order as numbered files, alone in ``folder``; return how many.

    LLaMA-Factory takes every file of the folder and, with ``max_samples``, the first rows: shuffle before. `jsonl`
    wants prompts and paths escaped already, as by `json_text`, and an image in the first row if any row has one.
    """
    folder.mkdir(parents=True)
    write, total = {"parquet": _write_parquet, "jsonl": _write_jsonl}[kind], 0
    for number, group in groupby(_numbered(chunks), itemgetter(0)):
        total += write(folder / f"part-{number:05d}.{kind}", (chunk for _, chunk in group))
    return total


def json_text(text: str) -> str:
    """Escape text for the inside of a JSON string."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _numbered(chunks: Iterable[TrainingRows]) -> Iterator[tuple[int, TrainingRows]]:
    total = 0
    for chunk in chunks:
        yield total // ROWS_PER_FILE, chunk
        total += len(chunk)


def _write_parquet(path: Path, chunks: Iterable[TrainingRows]) -> int:
    total = 0
    with pq.ParquetWriter(path, SCHEMA, compression="zstd", use_dictionary=_REPEATED, write_statistics=False) as file:
        for chunk in chunks:
            file.write_table(_table(chunk), row_group_size=_ROWS_PER_GROUP)
            total += len(chunk)
    return total


def _write_jsonl(path: Path, chunks: Iterable[TrainingRows]) -> int:
    total = 0
    with path.open("wb") as file:
        for chunk in chunks:
            image = pl.concat_str(pl.lit('"'), chunk.images, pl.lit('"')).fill_null("")
            lines = pl.select(pl.format(_LINE, chunk.prompts, chunk.answers, image)).to_series()
            text = lines.to_arrow().buffers()[2]  # the lines lie one after the other
            file.write(memoryview(text)[: int(lines.str.len_bytes().sum())])
            total += len(chunk)
    return total


def read_rows(folder: Path) -> Iterator[TrainingRow]:
    """Yield the rows written by `write_rows`, in order, a row group at a time."""
    for row in chain.from_iterable(map(_read_file, _files(folder))):
        user, assistant = row["messages"]
        yield TrainingRow(user["content"], assistant["content"], tuple(row["images"]))


def count_rows(folder: Path) -> int:
    """Return the number of rows under ``folder``: from the files' footers, or by counting lines."""
    return sum(pq.read_metadata(path).num_rows if path.suffix == ".parquet" else _count_lines(path)
               for path in _files(folder))  # fmt: skip


def _files(folder: Path) -> list[Path]:
    return sorted([*folder.glob("part-*.parquet"), *folder.glob("part-*.jsonl")])


def _read_file(path: Path) -> Iterator[dict[str, Any]]:
    if path.suffix == ".jsonl":
        with path.open("rb") as lines:
            yield from map(json.loads, lines)
        return
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_ROWS_PER_GROUP):
            yield from batch.to_pylist()


def _count_lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for _ in file)


def write_info(dataset_dir: Path, names: Iterable[str]) -> None:
    """Write `dataset_info.json` for the row folders ``names`` under ``dataset_dir``; ASCII, as its reader assumes."""
    info: dict[str, Any] = {name: {"file_name": name, **_ENTRY} for name in names}
    write_text(dataset_dir / INFO_FILE, json.dumps(info, indent=2, ensure_ascii=True) + "\n")


def _table(chunk: TrainingRows) -> pa.Table:
    rows = len(chunk)
    turns = np.arange(2 * rows).reshape(2, rows).T.ravel()  # prompt, answer, prompt, answer, ...
    said = pl.concat([chunk.prompts, chunk.answers]).gather(turns).to_arrow().cast(pa.string())
    messages, files = SCHEMA.field("messages").type, SCHEMA.field("images").type
    roles = pa.array(("user", "assistant")).take(pa.array(np.arange(2 * rows) % 2))
    turn = pa.StructArray.from_arrays([roles, said], fields=list(messages.value_type))
    shown = chunk.images.drop_nulls().to_arrow().cast(pa.string())
    ends = np.cumsum(np.concatenate([[0], chunk.images.is_not_null().to_numpy()]))
    columns = [
        pa.ListArray.from_arrays(pa.array(np.arange(0, 2 * rows + 1, 2), pa.int32()), turn, type=messages),
        pa.ListArray.from_arrays(pa.array(ends, pa.int32()), shown, type=files),
    ]
    return pa.table(columns, schema=SCHEMA)
