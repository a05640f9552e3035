"""Stored completions as a table for other tools."""

import json
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from msr_adapter.files import atomic_path
from msr_adapter.generation.store import Entry

SUFFIXES = (".parquet", ".jsonl")
SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("model", pa.string(), nullable=False),  # as configured
        pa.field("model_id", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("choice_logprobs", pa.list_(pa.float64()), nullable=False),
        pa.field("finish_reason", pa.string(), nullable=False),
        pa.field("tokens_in", pa.int64(), nullable=False),
        pa.field("tokens_out", pa.int64(), nullable=False),
        pa.field("created", pa.timestamp("s", "UTC"), nullable=False),
    ]
)
_CHUNK = 10_000


def write_entries(entries: Iterable[Entry], path: Path) -> int:
    """Write ``entries`` to a .parquet or .jsonl file, whole or not at all; return their number. O(chunk) memory."""
    rows = map(_row, entries)
    with atomic_path(path) as temporary:
        if path.suffix == ".jsonl":
            with temporary.open("w", encoding="utf-8") as file:
                return sum(bool(file.write(json.dumps(row, ensure_ascii=False) + "\n")) for row in rows)
        count = 0
        with pq.ParquetWriter(temporary, SCHEMA, compression="zstd") as writer:
            while chunk := list(islice(rows, _CHUNK)):
                writer.write_table(pa.Table.from_pylist(chunk, SCHEMA))
                count += len(chunk)
    return count


def _row(entry: Entry) -> dict[str, Any]:
    answer = entry.completion
    return {
        "key": answer.key, "model": entry.label, "model_id": entry.identity, "text": answer.text,
        "choice_logprobs": list(answer.choice_logprobs), "finish_reason": answer.finish_reason,
        "tokens_in": answer.tokens_in, "tokens_out": answer.tokens_out, "created": entry.created,
    }  # fmt: skip
