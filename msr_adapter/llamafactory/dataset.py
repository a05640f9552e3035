"""Training rows in the format LLaMA-Factory reads: ShareGPT messages in Parquet, and `dataset_info.json`."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from msr_adapter.files import write_text

TRAIN = "msr_train"
VALIDATION = "msr_validation"
INFO_FILE = "dataset_info.json"

ROWS_PER_FILE = 50_000
_ROWS_PER_GROUP = 1_000

SCHEMA = pa.schema(
    [
        pa.field("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        pa.field("images", pa.list_(pa.string())),  # relative to media_dir; empty = a row without image
    ]
)
"""Explicit, since LLaMA-Factory's reader infers types from the first rows, which may all lack images."""

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


def write_rows(folder: Path, rows: Iterable[TrainingRow]) -> int:
    """Write ``rows`` in their order as numbered Parquet files, alone in ``folder``; return how many.

    LLaMA-Factory takes every file of the folder and, with ``max_samples``, the first rows: shuffle before.
    """
    folder.mkdir(parents=True)
    source, total = iter(rows), 0
    while group := list(islice(source, ROWS_PER_FILE)):
        path = folder / f"part-{total // ROWS_PER_FILE:05d}.parquet"
        with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
            for start in range(0, len(group), _ROWS_PER_GROUP):
                writer.write_table(_table(group[start : start + _ROWS_PER_GROUP]))
        total += len(group)
    return total


def read_rows(folder: Path) -> Iterator[TrainingRow]:
    """Yield the rows written by `write_rows`, in order, a row group at a time."""
    for path in sorted(folder.glob("part-*.parquet")):
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_ROWS_PER_GROUP):
                for row in batch.to_pylist():
                    user, assistant = row["messages"]
                    yield TrainingRow(user["content"], assistant["content"], tuple(row["images"]))


def count_rows(folder: Path) -> int:
    """Return the number of rows under ``folder``, from the files' footers."""
    return sum(pq.read_metadata(path).num_rows for path in folder.glob("part-*.parquet"))


def write_info(dataset_dir: Path, names: Iterable[str]) -> None:
    """Write `dataset_info.json` for the row folders ``names`` under ``dataset_dir``; ASCII, as its reader assumes."""
    info: dict[str, Any] = {name: {"file_name": name, **_ENTRY} for name in names}
    write_text(dataset_dir / INFO_FILE, json.dumps(info, indent=2, ensure_ascii=True) + "\n")


def _table(rows: list[TrainingRow]) -> pa.Table:
    messages = [[{"role": "user", "content": row.prompt}, {"role": "assistant", "content": row.answer}] for row in rows]
    return pa.table({"messages": messages, "images": [list(row.images) for row in rows]}, schema=SCHEMA)
