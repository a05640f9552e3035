"""Training rows in a format that LLaMA-Factory reads: ShareGPT messages in Parquet or JSONL, and `dataset_info.json`.

Rows are written by column (`TrainingRows`) and read one by one, as the files hold them.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path
from typing import Literal, NotRequired, TypedDict

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

Shape = Literal["answers", "pairs", "judged"]
"""What a row teaches. answers: the one right answer. pairs: the right one rather than the wrong one. judged: that one
answer is right, or that it is wrong."""

_MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string())])
_MESSAGES = pa.field("messages", pa.list_(_MESSAGE))
_IMAGES = pa.field("images", pa.list_(pa.string()))  # relative to media_dir; empty = a row without image
_MORE: dict[Shape, list[pa.Field]] = {
    "answers": [],
    "pairs": [pa.field("chosen", _MESSAGE), pa.field("rejected", _MESSAGE)],
    "judged": [pa.field("kto_tag", pa.bool_())],  # of another type, LLaMA-Factory drops the row
}
SCHEMAS: dict[Shape, pa.Schema] = {shape: pa.schema([_MESSAGES, *more, _IMAGES]) for shape, more in _MORE.items()}
"""Explicit, since LLaMA-Factory's reader infers types from the first rows, which may all lack images."""

_REPEATED = ["messages.list.element.role", "images.list.element"]
"""Columns that Parquet stores as a dictionary; that of the texts would fill up with prompts, all different."""
_USER, _ASSISTANT = '{{"role": "user", "content": "{}"}}', '{{"role": "assistant", "content": "{}"}}'
# Braces are doubled for `pl.format`, and once more where they stand in an f-string.
_LINES: dict[Shape, str] = {
    "answers": f'{{{{"messages": [{_USER}, {_ASSISTANT}], "images": [{{}}]}}}}\n',
    "pairs": f'{{{{"messages": [{_USER}], "chosen": {_ASSISTANT}, "rejected": {_ASSISTANT}, "images": [{{}}]}}}}\n',
    "judged": f'{{{{"messages": [{_USER}, {_ASSISTANT}], "kto_tag": {{}}, "images": [{{}}]}}}}\n',
}
_TAGS = {
    "role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant",
    "system_tag": "system",
}  # fmt: skip
"""All that are in use: LLaMA-Factory takes a tag or column that a partial list leaves out for absent."""


class Turn(TypedDict):
    """One message of a conversation."""

    role: str
    content: str


class WrittenRow(TypedDict):
    """One row as the files hold it."""

    messages: list[Turn]
    images: list[str]
    chosen: NotRequired[Turn]
    """Of a pair, the answer that is preferred to ``rejected``."""
    rejected: NotRequired[Turn]
    kto_tag: NotRequired[bool]
    """Of a judged answer: whether it is right."""


@dataclass(frozen=True)
class TrainingRows:
    """Many rows, by column; written in one piece."""

    prompts: pl.Series
    answers: pl.Series
    images: pl.Series
    """Lists of paths, which may be empty; or a path or null of each row."""
    rejected: pl.Series | None = None
    """Of pairs: the answers that ``answers`` are preferred to."""
    right: pl.Series | None = None
    """Of judged answers: whether each is right."""

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def shape(self) -> Shape:
        """What the rows teach."""
        return "pairs" if self.rejected is not None else "answers" if self.right is None else "judged"


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


def write_info(dataset_dir: Path, names: Iterable[str], shape: Shape = "answers") -> None:
    """Write `dataset_info.json` for the row folders ``names`` under ``dataset_dir``; ASCII, as its reader assumes."""
    entry: dict[str, object] = {
        "formatting": "sharegpt", "columns": {name: name for name in SCHEMAS[shape].names}, "tags": _TAGS,
        **({"ranking": True} if shape == "pairs" else {}),
    }  # fmt: skip
    info = {name: {"file_name": name, **entry} for name in names}
    write_text(dataset_dir / INFO_FILE, json.dumps(info, indent=2, ensure_ascii=True) + "\n")


def read_rows(folder: Path) -> Iterator[WrittenRow]:
    """Yield the rows under ``folder`` with all their columns, a row group at a time."""
    return chain.from_iterable(map(_read_file, _files(folder)))


def read_images(folder: Path) -> Iterator[str]:
    """Yield the image of every row that has one, without its texts where the format allows."""
    for path in _files(folder):
        if path.suffix == ".parquet":
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(columns=["images"]):
                    yield from batch["images"].flatten().to_pylist()
        else:
            yield from chain.from_iterable(row["images"] for row in _read_file(path))


def count_rows(folder: Path) -> int:
    """Return the number of rows under ``folder``: from the files' footers, or by counting lines."""
    total = 0
    for path in _files(folder):
        if path.suffix == ".parquet":
            total += pq.read_metadata(path).num_rows
        else:
            with path.open("rb") as lines:
                total += sum(1 for _ in lines)
    return total


def _numbered(chunks: Iterable[TrainingRows]) -> Iterator[tuple[int, TrainingRows]]:
    total = 0
    for chunk in chunks:
        yield total // ROWS_PER_FILE, chunk
        total += len(chunk)


def _write_parquet(path: Path, chunks: Iterable[TrainingRows]) -> int:
    chunks = iter(chunks)
    first = next(chunks)
    total, schema = 0, SCHEMAS[first.shape]
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=_REPEATED, write_statistics=False) as file:
        for chunk in chain([first], chunks):
            file.write_table(_table(chunk), row_group_size=_ROWS_PER_GROUP)
            total += len(chunk)
    return total


def _write_jsonl(path: Path, chunks: Iterable[TrainingRows]) -> int:
    """Write the rows of ``chunks`` as lines of JSON; return their number. Texts are escaped already."""
    total = 0
    with path.open("wb") as file:
        for chunk in chunks:
            # Put together by column: a loop over rows would take far longer than the writing.
            image = _quoted(chunk.images)
            more = [column for column in (chunk.rejected, chunk.right) if column is not None]
            lines = pl.select(pl.format(_LINES[chunk.shape], chunk.prompts, chunk.answers, *more, image)).to_series()
            # Buffers of an Arrow string array: validity, offsets, and all characters one line after the other.
            text = lines.to_arrow().buffers()[2]
            file.write(memoryview(text)[: int(lines.str.len_bytes().sum())])
            total += len(chunk)
    return total


def _table(chunk: TrainingRows) -> pa.Table:
    """Return a chunk as a table of the schema of its shape."""
    turns = [("user", chunk.prompts)]
    turns += [] if chunk.shape == "pairs" else [("assistant", chunk.answers)]
    more: list[pa.Array] = []
    if chunk.rejected is not None:
        more = [_turns("assistant", chunk.answers), _turns("assistant", chunk.rejected)]
    elif chunk.right is not None:
        more = [chunk.right.to_arrow()]
    # The ends of lists are the running count of images.
    lists = _as_lists(chunk.images)
    shown = lists.explode().drop_nulls().to_arrow().cast(pa.string())
    ends = np.cumsum(np.concatenate([[0], lists.list.len().to_numpy()]))
    images = pa.ListArray.from_arrays(pa.array(ends, pa.int32()), shown, type=_IMAGES.type)
    return pa.table([_conversations(turns), *more, images], schema=SCHEMAS[chunk.shape])


def _as_lists(images: pl.Series) -> pl.Series:
    """Return the images of each row as a list."""
    if images.dtype == pl.List(pl.String):
        return images
    return pl.Series([[] if path is None else [path] for path in images], dtype=pl.List(pl.String))


def _quoted(images: pl.Series) -> pl.Series:
    """Return what stands between the brackets of a list in JSON; paths are escaped already."""
    if images.dtype == pl.List(pl.String):
        joined = images.list.join('", "')
        return pl.select(
            pl.when(images.list.len() > 0).then(pl.format('"{}"', joined)).otherwise(pl.lit(""))
        ).to_series()
    return pl.select(pl.concat_str(pl.lit('"'), images, pl.lit('"')).fill_null("")).to_series()


def _conversations(turns: list[tuple[str, pl.Series]]) -> pa.ListArray:
    """Return one conversation a row, of the same ``turns`` (role, texts)."""
    rows, count = len(turns[0][1]), len(turns)
    order = np.arange(count * rows).reshape(count, rows).T.ravel()  # prompt, answer, prompt, answer, ...
    texts = pl.concat([spoken for _, spoken in turns]).gather(order).to_arrow().cast(pa.string())
    roles = pa.array([role for role, _ in turns]).take(pa.array(np.arange(count * rows) % count))
    messages = pa.StructArray.from_arrays([roles, texts], fields=list(_MESSAGE))
    return pa.ListArray.from_arrays(pa.array(np.arange(0, count * rows + 1, count), pa.int32()), messages,
                                    type=_MESSAGES.type)  # fmt: skip


def _turns(role: str, texts: pl.Series) -> pa.StructArray:
    roles = pa.repeat(pa.scalar(role), len(texts))
    return pa.StructArray.from_arrays([roles, texts.to_arrow().cast(pa.string())], fields=list(_MESSAGE))


def _files(folder: Path) -> list[Path]:
    return sorted([*folder.glob("part-*.parquet"), *folder.glob("part-*.jsonl")])


def _read_file(path: Path) -> Iterator[WrittenRow]:
    if path.suffix == ".jsonl":
        with path.open("rb") as lines:
            yield from map(json.loads, lines)
        return
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_ROWS_PER_GROUP):
            yield from batch.to_pylist()
