"""Vectors as a table on disk: EMBEDDINGS."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from msr_adapter.arrays import Vectors
from msr_adapter.schema import EMBEDDINGS, read_chunks, write_chunks

_ROWS = 16_384
"""Vectors that become Arrow's at a time."""


@dataclass(frozen=True)
class EmbeddedRows:
    """Vectors of one kind."""

    kind: str
    """item, or user."""
    ids: Sequence[str]
    parts: Sequence[str]
    """What each vector is of."""
    vectors: Vectors
    """(n, dimension); rows of zeros are not written."""

    @property
    def present(self) -> int:
        """How many have a vector."""
        return int(np.count_nonzero(np.any(self.vectors, axis=1)))


def write_embeddings(path: Path, rows: Iterable[EmbeddedRows], model: tuple[str, str]) -> None:
    """Write ``rows`` as EMBEDDINGS, by the model with this name and digest; the file appears whole or not at all."""
    write_chunks((part for each in rows for part in _tables(each, model)), EMBEDDINGS, path)


def _tables(rows: EmbeddedRows, model: tuple[str, str]) -> Iterator[pa.Table]:
    there = np.flatnonzero(rows.vectors.any(axis=1))
    name, digest = model
    dimension = rows.vectors.shape[1]
    for first in range(0, len(there), _ROWS):
        some = there[first : first + _ROWS]
        offsets = np.arange(0, (len(some) + 1) * dimension, max(1, dimension), dtype=np.int32)[: len(some) + 1]
        values = pa.array(rows.vectors[some].ravel(), pa.float32())
        columns = {
            "id": [rows.ids[place] for place in some],
            "kind": [rows.kind] * len(some),
            "parts": [rows.parts[place] for place in some],
            "model": [name] * len(some),
            "model_digest": [digest] * len(some),
            "dimension": np.full(len(some), dimension, np.int32),
            "vector": pa.ListArray.from_arrays(pa.array(offsets), values),
        }
        yield pa.table(columns).cast(EMBEDDINGS)


def read_vectors(path: Path, kind: str, ids: Sequence[str]) -> Vectors:
    """Return the vector of each of ``ids`` (n, dimension); zeros where the table has none of that ``kind``."""
    wanted = pa.array(ids, pa.string())
    vectors: Vectors | None = None
    for chunk in read_chunks(path, EMBEDDINGS):
        mine = chunk.filter(pc.equal(chunk["kind"], kind)).combine_chunks()
        if not len(mine):
            continue
        place = pc.index_in(mine["id"].combine_chunks(), value_set=wanted)
        known = mine.filter(place.is_valid())
        dimension = mine["dimension"][0].as_py()
        if vectors is None:
            vectors = np.zeros((len(ids), dimension), np.float32)
        lists = known["vector"].combine_chunks()
        vectors[place.drop_null().to_numpy()] = lists.flatten().to_numpy().reshape(len(known), dimension)
    return np.zeros((len(ids), 0), np.float32) if vectors is None else vectors
