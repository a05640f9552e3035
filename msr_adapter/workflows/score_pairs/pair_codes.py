"""Rows of pairs as numbers on disk, and the distinct pairs of some users at a time.

What is scored together are the pairs of the same users, wherever in the table they stand: prompts of a user begin
alike, which a model computes once. So rows go into buckets of users, and scores come back by pair. Memory: a part of
the table, or the distinct pairs of a bucket.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from msr_adapter.arrays import Codes, Floats, Mask, Rows, contains

PART = 1 << 18
"""Rows of the table that are in memory at a time."""
_BUCKET = 1 << 20
"""Rows of a bucket, beyond which it holds a single user."""
_FIELDS = ("number", "code", "reason")
_TYPES: dict[str, np.dtype[Any]] = {"number": np.dtype("<i4"), "code": np.dtype("<i4"), "reason": np.dtype("u1")}


class CodedRows:
    """Number of the user, code of the item and reason for no score of every row, in files of a folder."""

    def __init__(self, folder: Path) -> None:
        """Begin with none; the folder is made."""
        folder.mkdir()
        self._folder, self.rows = folder, 0

    def append(self, part: pl.DataFrame) -> None:
        """Add rows (number, code, reason)."""
        for name in _FIELDS:
            with (self._folder / name).open("ab") as file:
                file.write(np.ascontiguousarray(part[name].to_numpy(), _TYPES[name]).tobytes())
        self.rows += part.height

    def parts(self) -> Iterator[tuple[Codes, Codes, Codes]]:
        """Yield numbers, codes and reasons, `PART` rows at a time."""
        for begin in range(0, self.rows, PART):
            number, code, reason = (self._read(name, begin) for name in _FIELDS)
            yield number, code, reason

    def _read(self, name: str, begin: int) -> Codes:
        kind = _TYPES[name]
        return np.fromfile(self._folder / name, kind, PART, offset=begin * kind.itemsize)


@dataclass(frozen=True)
class Buckets:
    """The pairs to be scored, by ranges of users."""

    folder: Path
    starts: Rows
    """(buckets,) the first user of each."""
    items: int
    """Codes are smaller."""

    def keys(self, numbers: Codes, codes: Codes) -> Rows:
        """Return what stands for each pair; ascending by user, then by item."""
        return numbers.astype(np.int64) * self.items + codes

    def bucket_of(self, numbers: Codes) -> Rows:
        """Return the bucket of each user."""
        found: Rows = np.searchsorted(self.starts, numbers, side="right") - 1
        return found

    def pairs(self, bucket: int) -> tuple[Codes, Codes]:
        """Return numbers and codes of the distinct pairs of a bucket, by user and item."""
        keys = np.empty(0, np.int64)
        path = self._path(bucket)
        size = path.stat().st_size // 8 if path.exists() else 0
        for begin in range(0, size, _BUCKET):
            # Part by part: of a pair that stands a million times, one is kept.
            keys = np.unique(np.concatenate([keys, np.fromfile(path, "<i8", _BUCKET, offset=begin * 8)]))
        return (keys // self.items).astype(np.int64), (keys % self.items).astype(np.int32)

    def add(self, numbers: Codes, codes: Codes) -> None:
        """Add pairs to their buckets."""
        bucket = self.bucket_of(numbers)
        order = np.argsort(bucket, kind="stable")
        keys = self.keys(numbers, codes)[order]
        found, begins = np.unique(bucket[order], return_index=True)
        for one, part in zip(found, np.split(keys, begins[1:]), strict=True):
            with self._path(one).open("ab") as file:
                file.write(part.astype("<i8").tobytes())

    def keep_scores(self, bucket: int, columns: Sequence[Floats | Mask]) -> None:
        """Keep score, logit and bounded of the pairs of a bucket, in their order."""
        np.save(self._scores(bucket), np.stack([np.asarray(one, np.float64) for one in columns]))

    def scores(self, numbers: Codes, codes: Codes) -> Floats:
        """Return score, logit and bounded of pairs: (3, pairs)."""
        result = np.full((3, len(numbers)), np.nan)
        bucket = self.bucket_of(numbers)
        order = np.argsort(bucket, kind="stable")
        found, begins = np.unique(bucket[order], return_index=True)
        for one, rows in zip(found, np.split(order, begins[1:]), strict=True):
            known = self.keys(*self.pairs(int(one)))
            wanted = self.keys(numbers[rows], codes[rows])
            assert contains(known, wanted).all(), "a pair was not scored"
            # Only while they are looked at: what stays mapped would count as memory.
            result[:, rows] = np.load(self._scores(one), mmap_mode="r")[:, np.searchsorted(known, wanted)]
        return result

    def __len__(self) -> int:
        return len(self.starts)

    def _path(self, bucket: int) -> Path:
        return self.folder / f"{bucket:06}.pairs"

    def _scores(self, bucket: int) -> Path:
        return self.folder / f"{bucket:06}.npy"


def fill_buckets(coded: CodedRows, folder: Path, shape: tuple[int, int], group: int) -> Buckets:
    """Return the rows that can be scored in buckets; ``shape`` is the number of users and of items.

    A bucket ends where a ``group`` of users does, whose texts are in one file, or where it would have too many rows.
    """
    users, items = shape
    counts = np.zeros(users, np.int64)
    for number, _, reason in coded.parts():
        counts += np.bincount(number[reason == 0], minlength=users)
    folder.mkdir()
    buckets = Buckets(folder, np.array(_cuts(counts, group), np.int64), items)
    for number, code, reason in coded.parts():
        if (mine := reason == 0).any():
            buckets.add(number[mine], code[mine])
    return buckets


def _cuts(counts: Rows, group: int) -> list[int]:
    """Return where buckets begin."""
    cuts: list[int] = []
    before = np.concatenate([[0], np.cumsum(counts)])
    for begin in range(0, len(counts), group):
        end = min(begin + group, len(counts))
        while begin < end:
            cuts.append(begin)
            fits = int(np.searchsorted(before, before[begin] + _BUCKET, side="right")) - 1
            begin = min(max(fits, begin + 1), end)
    return cuts


def cut_at_users(numbers: Codes, size: int) -> Iterator[slice]:
    """Cut ascending ``numbers`` into slices of at most ``size``, between users unless one alone has more."""
    begin = 0
    while begin < len(numbers):
        end = min(begin + size, len(numbers))
        if end < len(numbers):
            whole = int(np.searchsorted(numbers, numbers[end], side="left"))
            end = whole if whole > begin else end
        yield slice(begin, end)
        begin = end
