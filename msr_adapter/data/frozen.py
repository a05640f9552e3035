"""The frozen candidates and their digest: equal lists give the same one on every machine, in chunks of any size."""

import hashlib
import json
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from msr_adapter.data.corpus import Codes, Log, Rows
from msr_adapter.data.split import Examples
from msr_adapter.files import digest

_IDS = 2**16


@dataclass(frozen=True)
class Candidates:
    """One row per (example, item), grouped by example in order; the positive at a seeded position."""

    example: Rows
    item: Codes
    label: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.item)

    def of_examples(self, part: slice) -> "Candidates":
        """Return the rows of the examples part.start..part.stop-1."""
        rows = slice(*np.searchsorted(self.example, [part.start, part.stop]).tolist())
        return Candidates(self.example[rows], self.item[rows], self.label[rows])


class CandidatesDigest:
    """Takes the chunks one after the other; memory O(chunk)."""

    def __init__(self) -> None:
        self._columns = [hashlib.sha256() for _ in range(3)]

    def add(self, chunk: Candidates) -> None:
        """Go on with the next chunk."""
        rows: list[NDArray[np.integer]] = [chunk.example, chunk.item, chunk.label]
        for column, values in zip(self._columns, rows, strict=True):
            column.update(values.astype("<i8").tobytes())

    def result(self, log: Log, examples: Examples) -> str:
        """Return the digest of the users, the items, the examples and all that was added."""
        group = (examples.split, examples.user, examples.target - log.bounds()[examples.user])
        columns = [digest(np.ascontiguousarray(row, "<i8").tobytes()) for row in group]
        whole = hashlib.sha256()
        for opening, ids in (("[[", log.users), ("], [", log.items)):
            whole.update(opening.encode())
            _add_ids(whole, ids)
        columns += [column.hexdigest() for column in self._columns]
        whole.update(f"], {json.dumps(columns)}]".encode())
        return whole.hexdigest()


def candidates_digest(log: Log, examples: Examples, candidates: Candidates) -> str:
    """Identify the frozen candidates in one piece."""
    one = CandidatesDigest()
    one.add(candidates)
    return one.result(log, examples)


def _add_ids(whole: "hashlib._Hash", ids: pl.Series) -> None:
    """Add ids as the elements of a JSON list, so many at a time."""
    for begin in range(0, len(ids), _IDS):
        text = json.dumps(ids[begin : begin + _IDS].to_list(), ensure_ascii=False)[1:-1]
        whole.update((", " * bool(begin) + text).encode())
