"""The tables that stages exchange: one Arrow schema each, written to Parquet, checked on reading.

Ids are strings everywhere (leading zeros survive); integer codes are a stage's private matter.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from msr_adapter.files import atomic_path
from msr_adapter.filesystem import DamagedFileError, require_file

_id = pa.string()
_MORE_IMAGES = pa.list_(pa.struct([pa.field("path", pa.string()), pa.field("digest", pa.string())]))
_ROWS = 1 << 16
"""Rows of a part of a file, which are read at a time."""
_FILTERED = 1 << 13
"""Rows read at a time where few of them are kept."""

ITEMS = pa.schema(
    [
        pa.field("item_id", _id, nullable=False),
        pa.field("title", pa.string(), nullable=False),  # neutralised text, may be empty
        pa.field("image", pa.string()),  # path relative to the data stage's folder; null = no image
        pa.field("image_digest", pa.string()),  # of the stored image's bytes; null = no image
        pa.field("more_images", _MORE_IMAGES),  # those after the first, in order; null = none; see `data.images.max`
        pa.field("popularity", pa.int64(), nullable=False),  # interactions of training users/positions only
        pa.field("text", pa.string(), nullable=False),  # neutralised description, empty = none
        pa.field("category", pa.string()),  # as the source names it; null = none
        pa.field("in_log", pa.bool_(), nullable=False),  # clicked or shown in the kept log; else of the table alone
        pa.field("listed", pa.bool_(), nullable=False),  # candidate lists and full rankings may have it
    ]
)
"""The catalogue: one row per item of the kept log, and per item of the table that nobody interacted with yet, sorted by
item_id. `evaluate.protocol.catalogue` says whether the latter are `listed`; what runs is made of is the listed ones."""

INTERACTIONS = pa.schema(
    [
        pa.field("user_id", _id, nullable=False),
        pa.field("item_id", _id, nullable=False),
        pa.field("timestamp", pa.int64(), nullable=False),  # milliseconds, or the position when the log has no time
        pa.field("training", pa.bool_(), nullable=False),  # whether training may know of it; popularity counts these
    ]
)
"""The kept log, sorted by user_id, timestamp, original row; each pair once, unless `data.repeats` is keep."""

SEEN = pa.schema([pa.field("user_id", _id, nullable=False), pa.field("item_id", _id, nullable=False)])
"""What users have seen although INTERACTIONS does not say so, by user_id and item_id, items of the catalogue only.

Rows that a filter dropped (too low a rating, no time), and all that users have seen who are no longer in the log.
"""

OFFERED = pa.schema([pa.field("item_id", _id, nullable=False), pa.field("first", pa.int64(), nullable=False)])
"""Of a split by time: when each item first appears in the log that was read. No test list has an item before that."""

SPLITS = ("train", "validation", "test")
"""What the column `split` says; in memory, a split is its number here."""

EXAMPLES = pa.schema(
    [
        pa.field("example_id", pa.int64(), nullable=False),  # 0..n-1
        pa.field("split", pa.string(), nullable=False),  # train | validation | test
        pa.field("user_id", _id, nullable=False),
        pa.field("history", pa.list_(_id), nullable=False),  # oldest first, all strictly before the target
        pa.field("timestamp", pa.int64(), nullable=False),  # the target's, as in INTERACTIONS
    ]
)
"""One row per (user, target event); its candidates are in CANDIDATES."""

EARLIER = pa.schema([EXAMPLES.field("example_id"), pa.field("items", pa.list_(_id), nullable=False)])
"""What `split.max_history` cut off the histories of validation and test examples, oldest first; none where it cut
nothing."""

CANDIDATES = pa.schema(
    [
        pa.field("example_id", pa.int64(), nullable=False),
        pa.field("item_id", _id, nullable=False),
        pa.field("label", pa.int8(), nullable=False),  # 1 = a positive: the target; 0 = a negative
    ]
)
"""The candidate lists: one row per pair, grouped by example_id ascending, positives at seeded positions.

A list has one positive, but of impressions all that was clicked together."""

TRUTH = pa.schema(
    [
        pa.field("example_id", pa.int64(), nullable=False),
        pa.field("item_id", _id, nullable=False),
        pa.field("score", pa.float64(), nullable=False),
    ]
)
"""A synthetic dataset's true log-odds of choices at the moment of the target, up to a constant per example, one row per
validation and test candidate: what the oracle scorer knows. Absent for real data."""

ITEM_SUMMARIES = pa.schema([pa.field("item_id", _id, nullable=False), pa.field("summary", pa.string(), nullable=False)])

USER_SUMMARIES = pa.schema(
    [pa.field("example_id", pa.int64(), nullable=False), pa.field("summary", pa.string(), nullable=False)]
)
"""The user summary of every example, in order of example_id."""

TRUNCATED = pa.schema(
    [
        pa.field("example_id", pa.int64(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("tokens_before", pa.int64(), nullable=False),  # of the example's longest prompt with its answer
        pa.field("tokens_after", pa.int64(), nullable=False),
        pa.field("summary_tokens", pa.int64(), nullable=False),  # of the user summary that is left
        pa.field("text", pa.string(), nullable=False),  # that summary
    ]
)
"""Every user summary that was truncated because of `train.cutoff_len`."""

USER_STEPS = pa.schema(
    [
        pa.field("example_id", pa.int64(), nullable=False),
        pa.field("step", pa.int64(), nullable=False),  # 1, 2, ... in the order of reading
        pa.field("items_read", pa.int64(), nullable=False),  # of the history, from the oldest, after this step
        pa.field("summary", pa.string(), nullable=False),  # the text as it stood then; the last one is USER_SUMMARIES'
    ]
)
"""How the user summary of each test example grew, by example_id and step; for readers, no stage depends on it."""

SCORES = pa.schema(
    [
        pa.field("example_id", pa.int64(), nullable=False),
        pa.field("item_id", _id, nullable=False),
        pa.field("score", pa.float64(), nullable=False),  # p(yes) / (p(yes) + p(no)), in [0, 1]
        pa.field("logit", pa.float64(), nullable=False),  # log p(yes) - log p(no): ranks without saturating
        pa.field("answer_mass", pa.float64(), nullable=False),  # p(yes) + p(no) over the whole vocabulary
        pa.field("bounded", pa.bool_(), nullable=False),  # a server kept one answer back: score and logit are bounds
    ]
)
"""One row per test candidate, in the order of CANDIDATES."""

_NUMBERS = ("ratio", "given", "alone")  # what ranks; log p(text | prompt); log p(text | no user or candidate)
RATIOS = pa.schema(
    [*list(SCORES)[:2], *(pa.field(name, pa.float64(), nullable=False) for name in _NUMBERS),
     pa.field("tokens", pa.int64(), nullable=False)]  # of the text
)  # fmt: skip
"""`scores.parquet` where a text answers the question: no probabilities of a choice; a row as SCORES has one."""

BASELINE_SCORES = pa.schema(
    [
        pa.field("example_id", pa.int64(), nullable=False),
        pa.field("item_id", _id, nullable=False),
        pa.field("score", pa.float64(), nullable=False),  # on the baseline's own scale: only its order counts
    ]
)
"""One row per test candidate, in the order of CANDIDATES."""

FULL_RANKS = pa.schema(
    [
        pa.field("example_id", pa.int64(), nullable=False),
        pa.field("item_id", _id, nullable=False),
        pa.field("above", pa.int64(), nullable=False),  # items of the catalogue that are scored higher
        pa.field("tied", pa.int64(), nullable=False),  # items scored the same, the target among them
    ]
)
"""One row per target of the test split, in the order of CANDIDATES: where it stands in the whole catalogue."""

RECOMMENDATIONS = pa.schema(
    [
        pa.field("user_id", _id, nullable=False),
        pa.field("rank", pa.int64(), nullable=False),  # 1, 2, ... within the user
        pa.field("item_id", _id, nullable=False),
        pa.field("title", pa.string(), nullable=False),  # neutralised text, may be empty
        pa.field("score", pa.float64()),  # p(yes), or the log-likelihood ratio of a text; null: the model was not asked
        pa.field("logit", pa.float64()),  # log p(yes) - log p(no), which ranks; null as above and where a text answers
        pa.field("bounded", pa.bool_(), nullable=False),  # score and logit are bounds, as in SCORES
        pa.field("ranked_by", pa.string(), nullable=False),  # model | hybrid | popularity: without a history
        pa.field("retrieved_by", pa.string(), nullable=False),  # popular | item-knn | all | file | history
        pa.field("retrieval_rank", pa.int64(), nullable=False),  # 1, 2, ... among the user's candidates; breaks ties
        pa.field("history_items", pa.int64(), nullable=False),  # interactions that the user had
    ]
)
"""Ranked lists, grouped by user in the order asked for, by rank."""


def read_listed(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read the `listed` rows of ITEMS, or some of their columns; `DamagedFileError` for what is no such table."""
    wanted = None if columns is None else list(dict.fromkeys((*columns, "listed")))
    table = read_table(path, ITEMS, wanted)
    table = table.filter(table["listed"])
    return table if columns is None else table.select(list(columns))


def listed_digest(path: Path) -> str:
    """Return the SHA-256 of the `listed` rows of ITEMS, by their values: rows that are not listed change nothing."""
    table, content = read_listed(path), hashlib.sha256()
    more = table.schema.get_field_index("more_images")
    said = None if table[more].null_count == len(table) else pa.array(map(json.dumps, table[more].to_pylist()))
    # Without any, the digest is what it was before there were such.
    table = table.remove_column(more) if said is None else table.set_column(more, "more_images", said)
    content.update(str(len(table)).encode())
    for name in table.column_names:
        for chunk in table[name].chunks:
            content.update(chunk.is_valid().to_numpy(zero_copy_only=False).tobytes())
        if not pa.types.is_string(table.schema.field(name).type):
            for chunk in table[name].chunks:
                content.update(chunk.to_numpy(zero_copy_only=False).tobytes())
            continue
        texts = [pc.fill_null(chunk, "") for chunk in table[name].chunks]
        for chunk in texts:
            content.update(pc.binary_length(chunk).to_numpy(zero_copy_only=False).astype("<i8").tobytes())
        for chunk in texts:
            content.update(_text(chunk))
    return content.hexdigest()


RETRIEVER_RECALLS = pa.schema(
    [
        pa.field("example_id", pa.int64(), nullable=False),
        pa.field("retriever", pa.string(), nullable=False),
        pa.field("found", pa.int64(), nullable=False),  # targets of the example that are among what is retrieved
        pa.field("targets", pa.int64(), nullable=False),
    ]
)
"""One row per retriever and test example, in that order."""

EMBEDDINGS = pa.schema(
    [
        pa.field("id", _id, nullable=False),  # of the item or the user; in a stage's table of users, the example's
        pa.field("kind", pa.string(), nullable=False),  # item | user
        pa.field("parts", pa.string(), nullable=False),  # what is embedded: title+image+summary, summary, history
        pa.field("model", pa.string(), nullable=False),  # its name
        pa.field("model_digest", pa.string(), nullable=False),  # of its files and of how it embeds
        pa.field("dimension", pa.int32(), nullable=False),
        pa.field("vector", pa.list_(pa.float32()), nullable=False),  # of length 1
    ]
)
"""A vector of each item, then of each user, that has anything to embed."""


def candidates_digest(column: Callable[[str], Iterable[pa.Array]]) -> str:
    """Return the SHA-256 of candidate lists: example ids, labels and item ids (CANDIDATES rows) in order.

    ``column`` yields a column's values in chunks of any size, and is asked for one column after the other, so that
    the whole need not be in memory. Equal lists have one digest, whatever file format or library version stored them.
    """
    content = hashlib.sha256()
    for ids in column("example_id"):
        content.update(ids.to_numpy(zero_copy_only=False).astype("<i8").tobytes())
    for labels in column("label"):
        content.update(labels.to_numpy(zero_copy_only=False).astype("<i1").tobytes())
    # The lengths say where one id ends and the next begins.
    for ids in column("item_id"):
        content.update(pc.binary_length(ids).to_numpy(zero_copy_only=False).astype("<i8").tobytes())
    for ids in column("item_id"):
        content.update(_text(ids))
    return content.hexdigest()


def _text(ids: pa.StringArray) -> bytes:
    """Return all strings of an array, joined, as the bytes that Arrow holds them in."""
    _, offsets, text = ids.buffers()
    if not len(ids) or text is None:
        return b""
    bounds = np.frombuffer(offsets, dtype=np.int32)[ids.offset : ids.offset + len(ids) + 1]
    return bytes(memoryview(text)[bounds[0] : bounds[-1]])


def write_table(table: pa.Table, schema: pa.Schema, path: Path) -> None:
    """Write ``table`` as Parquet under ``schema``; the file appears whole or not at all."""
    with atomic_path(path) as temporary:
        pq.write_table(table.select(schema.names).cast(schema), temporary, _ROWS, compression="zstd")


def write_chunks(chunks: Iterable[pa.Table], schema: pa.Schema, path: Path) -> None:
    """Write tables one after the other as `write_table` writes one: memory is that of the largest chunk."""
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for chunk in chunks:
            writer.write_table(chunk.select(schema.names).cast(schema), _ROWS)


def read_table(path: Path, schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a table written by `write_table`, or some of its columns; `DamagedFileError` for anything else."""
    with _read(path):
        _require(path, pq.read_schema(path), schema)
        return pq.read_table(path, columns=None if columns is None else list(columns))


def count_rows(path: Path, schema: pa.Schema) -> int:
    """Return how many rows a table has, by its footer; `DamagedFileError` for anything else."""
    with _read(path), pq.ParquetFile(path) as file:
        _require(path, file.schema_arrow, schema)
        return int(file.metadata.num_rows)


def read_chunks(path: Path, schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield a table in parts, in order; `DamagedFileError` for anything else."""
    with _read(path), pq.ParquetFile(path) as file:
        _require(path, file.schema_arrow, schema)
        yield from _parts(file, range(file.num_row_groups), _ROWS)


def read_between(path: Path, schema: pa.Schema, column: str, low: int, high: int) -> pa.Table:
    """Read the rows of a table whose ``column`` is from ``low`` to ``high``.

    Only the parts of the file that may have such rows are read. Memory: those rows, and one part as it is compressed.
    """
    wanted = (pc.field(column) >= low) & (pc.field(column) <= high)
    with _read(path), pq.ParquetFile(path) as file:
        _require(path, file.schema_arrow, schema)
        place = schema.get_field_index(column)
        groups = [number for number in range(file.num_row_groups) if _overlaps(file, number, place, low, high)]
        found = (part.filter(wanted) for part in _parts(file, groups, _FILTERED))
        return pa.concat_tables([schema.empty_table(), *found])


def _parts(file: pq.ParquetFile, groups: Iterable[int], rows: int) -> Iterator[pa.Table]:
    for number in groups:
        for batch in file.iter_batches(rows, [number]):
            yield pa.Table.from_batches([batch])


def _overlaps(file: pq.ParquetFile, group: int, column: int, low: int, high: int) -> bool:
    """Tell whether a row group may have values from ``low`` to ``high``, by the statistics in the file's footer."""
    found = file.metadata.row_group(group).column(column).statistics
    return found is None or not found.has_min_max or (found.min <= high and found.max >= low)


@contextlib.contextmanager
def _read(path: Path) -> Iterator[None]:
    """Tell what is no table of ours, whatever Arrow makes of it, and do not wait for a pipe."""
    try:
        require_file(path)
        yield
    except FileNotFoundError as error:
        raise DamagedFileError(path, "is missing") from error
    except (OSError, pa.ArrowException, UnicodeDecodeError, MemoryError) as error:
        said = str(error).strip().splitlines()
        raise DamagedFileError(
            path, f"is not a readable table ({said[0] if said else type(error).__name__})"
        ) from error


def _require(path: Path, found: pa.Schema, schema: pa.Schema) -> None:
    """Refuse another schema."""
    if not found.equals(schema):
        differ = [name for name in {*found.names, *schema.names} if found.names != schema.names or
                  found.field(name) != schema.field(name)]  # fmt: skip
        raise DamagedFileError(path, f"is a table of other columns ({', '.join(map(str, sorted(differ)))})")
