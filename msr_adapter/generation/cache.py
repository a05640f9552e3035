"""Completions kept by request key, so that neither a second run nor a killed one computes anything twice."""

import contextlib
import math
import sqlite3
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Self

from msr_adapter.errors import StageError
from msr_adapter.generation.request import Backend, Completion, Request

# One table per schema version: entries of another version stay in the file and are never read.
_TABLE = "completions_1"
_CREATE = f"""CREATE TABLE IF NOT EXISTS {_TABLE} (
  key BLOB PRIMARY KEY, text TEXT NOT NULL, choice_logprobs BLOB NOT NULL, finish_reason TEXT NOT NULL,
  tokens_in INTEGER NOT NULL, tokens_out INTEGER NOT NULL) WITHOUT ROWID"""
_LOOKUP_CHUNK = 500  # SQLite builds allow as few as 999 variables in one statement
_BUSY_MS = 60_000


class CacheStats(NamedTuple):
    """Running counts of a cache, over distinct requests."""

    hits: int = 0
    """Answered from the file."""
    computed: int = 0
    """Answered by a backend."""


class CompletionCache:
    """Completions in one SQLite file; several processes may use it at once. A context manager."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stats = CacheStats()
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._explained():
            # Autocommit: transactions are opened where they are meant.
            self._db = sqlite3.connect(path, isolation_level=None)
            try:
                self._db.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
                self._db.execute("PRAGMA journal_mode=WAL")
                # With WAL, NORMAL keeps every commit through a killed process; a power cut may lose the latest
                # shards, never the file, and those are computed again. FULL would pay a disk flush per shard for that.
                self._db.execute("PRAGMA synchronous=NORMAL")
                self._db.execute(_CREATE)
            except BaseException:
                self._db.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; everything is committed already."""
        self._db.close()

    def complete(
        self,
        backend: Backend,
        requests: Sequence[Request],
        *,
        shard: int = 256,
        advance: Callable[[int], None] | None = None,
    ) -> list[Completion]:
        """Answer ``requests`` in their order, each distinct one at most once ever.

        Shards are consecutive slices of the distinct requests, whatever is cached; the missing ones of a shard go to
        the backend in one call and are committed in one transaction. Hence a killed run loses at most one shard, and
        its rerun hands the backend the very batches that an undisturbed run would have. ``advance`` sums to
        ``len(requests)``. Raises `StageError` if the file cannot be used or an answer is not a finite number.
        """
        if shard < 1:
            raise ValueError(f"shard {shard} must be at least 1")
        copies = Counter(request.key for request in requests)
        distinct = list({request.key: request for request in requests}.values())
        found: dict[str, Completion] = {}
        for start in range(0, len(distinct), shard):
            part = distinct[start : start + shard]
            found.update(self._complete_shard(backend, part))
            if advance is not None:
                advance(sum(copies[request.key] for request in part))
        return [found[request.key] for request in requests]

    def _complete_shard(self, backend: Backend, shard: Sequence[Request]) -> dict[str, Completion]:
        found = self._lookup([request.key for request in shard])
        missing = [request for request in shard if request.key not in found]
        if missing:
            answers = backend.complete(missing)
            _check_answers(missing, answers)
            self._store(answers)
            # Read back: if another process stored an answer meanwhile, the first one stands for both.
            found.update(self._lookup([request.key for request in missing]))
        hits, computed = self.stats
        self.stats = CacheStats(hits + len(shard) - len(missing), computed + len(missing))
        return found

    def _lookup(self, keys: Sequence[str]) -> dict[str, Completion]:
        found: dict[str, Completion] = {}
        for start in range(0, len(keys), _LOOKUP_CHUNK):
            chunk = [bytes.fromhex(key) for key in keys[start : start + _LOOKUP_CHUNK]]
            marks = ",".join("?" * len(chunk))
            with self._explained():
                rows = self._db.execute(f"SELECT * FROM {_TABLE} WHERE key IN ({marks})", chunk).fetchall()
            found.update((completion.key, completion) for completion in map(_from_row, rows))
        return found

    def _store(self, answers: Sequence[Completion]) -> None:
        rows = [_to_row(answer) for answer in answers]
        with self._explained():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._db.executemany(f"INSERT OR IGNORE INTO {_TABLE} VALUES (?,?,?,?,?,?)", rows)
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what SQLite says into what to do. A damaged file is never replaced: that is the user's decision."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            what = f"{self.path}: the completion cache cannot be used ({error})"
            if not isinstance(error, sqlite3.OperationalError):
                cause, step = "the file is damaged or not a cache", "move it away; its completions are computed again"
            elif "locked" in str(error):
                cause, step = "another process holds the file", "wait for it to end and run again"
            else:
                cause, step = "no space left or no right to write", "make room or choose another --run-dir"
            raise StageError(what, cause, step) from error


def _check_answers(requests: Sequence[Request], answers: Sequence[Completion]) -> None:
    """Refuse answers that would poison the cache: wrong ones are a bug, non-finite ones a sick model."""
    if [request.key for request in requests] != [answer.key for answer in answers]:
        raise ValueError(f"the backend gave {len(answers)} answers to {len(requests)} requests, or in another order")
    for request, answer in zip(requests, answers, strict=True):
        if len(answer.choice_logprobs) != len(request.choices):
            raise ValueError(f"{len(answer.choice_logprobs)} log-probabilities for choices {request.choices}")
    sick = sum(not all(map(math.isfinite, answer.choice_logprobs)) for answer in answers)
    if sick:
        raise StageError(
            f"the model gave no finite log-probability for {sick} of {len(answers)} prompts",
            "training diverged, or its numbers overflow in float16",
            "look at the training loss; lower the learning rate, or set dtype to bfloat16 or float32",
        )


def _to_row(answer: Completion) -> tuple[bytes, str, bytes, str, int, int]:
    numbers = struct.pack(f"<{len(answer.choice_logprobs)}d", *answer.choice_logprobs)
    return bytes.fromhex(answer.key), answer.text, numbers, answer.finish_reason, answer.tokens_in, answer.tokens_out


def _from_row(row: tuple[bytes, str, bytes, str, int, int]) -> Completion:
    key, text, numbers, finish_reason, tokens_in, tokens_out = row
    logprobs = struct.unpack(f"<{len(numbers) // 8}d", numbers)
    return Completion(key.hex(), text, logprobs, finish_reason, tokens_in, tokens_out)
