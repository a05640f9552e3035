"""The file behind the completion cache: one SQLite database, safe under ``kill -9`` and under several processes."""

import contextlib
import hashlib
import json
import sqlite3
import struct
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from msr_adapter.errors import StageError
from msr_adapter.files import atomic_path
from msr_adapter.generation.request import Completion, Failure

# The tables carry the version of their schema. Rows of the last one are taken over, those of any other never read.
# WITHOUT ROWID: a table is then one tree by key, and a look-up does not go through a second one.
_CREATE = (
    """CREATE TABLE IF NOT EXISTS models_2 (
  id INTEGER PRIMARY KEY, identity TEXT NOT NULL UNIQUE, label TEXT NOT NULL)""",
    """CREATE TABLE IF NOT EXISTS completions_3 (
  key BLOB PRIMARY KEY, text TEXT NOT NULL, choice_logprobs BLOB NOT NULL, finish_reason TEXT NOT NULL,
  tokens_in INTEGER NOT NULL, tokens_out INTEGER NOT NULL, model INTEGER NOT NULL, created INTEGER NOT NULL,
  checksum BLOB NOT NULL) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS failures_2 (
  key BLOB PRIMARY KEY, reason TEXT NOT NULL, model INTEGER NOT NULL, created INTEGER NOT NULL) WITHOUT ROWID""",
)
_COLUMNS = "key, text, choice_logprobs, finish_reason, tokens_in, tokens_out"
_ROW = f"{_COLUMNS}, model, created"
_WITHOUT_CHECKSUM = "completions_2"
"""The table of earlier versions; its rows are taken over once."""
_PASSING = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_PLACE = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR,
          sqlite3.SQLITE_PERM)  # fmt: skip
_CHECKSUM_BYTES = 8
_LOOKUP_CHUNK = 500  # SQLite builds allow as few as 999 variables in one statement
_BUSY_MS = 60_000


class Entry(NamedTuple):
    """A stored completion and where it came from."""

    completion: Completion
    label: str
    identity: str
    created: int
    """Seconds since 1970."""


class Share(NamedTuple):
    """What one model has in a cache."""

    label: str
    identity: str
    completions: int
    failures: int
    tokens_in: int
    tokens_out: int
    first: int | None
    """Seconds since 1970; None without a completion."""
    last: int | None


class CompletionStore:
    """Completions and failures by request key. Every write is one transaction."""

    def __init__(self, path: Path, *, must_exist: bool = False) -> None:
        """Open or create the file. Raises `StageError` if it cannot be used."""
        self.path = path
        self.dropped = 0
        """Completions that were not what had been stored."""
        if must_exist and not path.is_file():
            raise StageError(f"{path}: no such cache", next_step="name a cache file, or a run folder that has one")
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._explained():
            # Autocommit: transactions are opened where they are meant.
            self._db = sqlite3.connect(path, isolation_level=None)
            # A flipped bit may leave no UTF-8: that is for the checksum to find.
            self._db.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
            try:
                self._db.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
                self._db.execute("PRAGMA journal_mode=WAL")
                # With WAL, NORMAL keeps every commit through a killed process; a power cut may lose the latest
                # shards, never the file, and those are computed again. FULL would pay a disk flush per shard for that.
                self._db.execute("PRAGMA synchronous=NORMAL")
                for statement in _CREATE:
                    self._db.execute(statement)
                self._take_over()
            except BaseException:
                self._db.close()
                raise

    def close(self) -> None:
        """Close the file; everything is committed already."""
        self._db.close()

    def lookup(self, keys: Sequence[str]) -> dict[str, Completion]:
        """Return the completions that are there, by key; those that do not fit their checksum leave the file."""
        found, damaged = dict[str, Completion](), list[tuple[bytes]]()
        for row in self._rows(f"SELECT {_ROW}, checksum FROM completions_3", keys):
            if _checksum(row[:-1]) == row[-1]:
                found[row[0].hex()] = _from_row(row[:6])
            else:
                damaged.append(row[:1])
        if damaged:
            with self._transaction():
                self._db.executemany("DELETE FROM completions_3 WHERE key = ?", damaged)
            self.dropped += len(damaged)
        return found

    def failures(self, keys: Sequence[str]) -> dict[str, Failure]:
        """Return key -> failure for those of ``keys`` that got no answer when they were last asked."""
        rows = self._rows("SELECT key, reason FROM failures_2", keys)
        return {key.hex(): Failure(key.hex(), reason) for key, reason in rows}

    def add(self, identity: str, label: str, completions: Sequence[Completion], failures: Sequence[Failure]) -> int:
        """Store completions (the first one of a key stands) and failures (the latest stands) in one transaction.

        Returns how many completions were new.
        """
        now = int(time.time())
        with self._transaction():
            self._db.execute("INSERT OR IGNORE INTO models_2 (identity, label) VALUES (?, ?)", (identity, label))
            (model,) = self._db.execute("SELECT id FROM models_2 WHERE identity = ?", (identity,)).fetchone()
            rows = [(*_to_row(completion), model, now) for completion in completions]
            summed = [(*row, _checksum(row)) for row in rows]
            insert = "INSERT OR IGNORE INTO completions_3 VALUES (?,?,?,?,?,?,?,?,?)"
            added = self._db.executemany(insert, summed).rowcount
            self._db.executemany("DELETE FROM failures_2 WHERE key = ?", [row[:1] for row in rows])
            faults = [(bytes.fromhex(failure.key), failure.reason, model, now) for failure in failures]
            self._db.executemany("INSERT OR REPLACE INTO failures_2 VALUES (?,?,?,?)", faults)
        return max(added, 0)  # -1 where there was nothing to insert

    def shares(self) -> list[Share]:
        """Return what each model has in the file, the latest first."""
        with self._explained():
            rows = self._db.execute(
                """SELECT label, identity, COUNT(c.key),
                          (SELECT COUNT(*) FROM failures_2 f WHERE f.model = m.id),
                          COALESCE(SUM(tokens_in), 0), COALESCE(SUM(tokens_out), 0), MIN(created), MAX(created)
                   FROM models_2 m LEFT JOIN completions_3 c ON c.model = m.id GROUP BY m.id
                   ORDER BY MAX(created) DESC, m.id"""
            ).fetchall()
        return [Share(*row) for row in rows]

    def entries(self) -> Iterator[Entry]:
        """Stream every completion with its model, in order of the key, but for those that do not fit their checksum."""
        with self._explained():
            rows = self._db.execute(
                f"SELECT {_ROW}, checksum, label, identity FROM completions_3 c JOIN models_2 m ON m.id = c.model "
                "ORDER BY key"
            )
            for *row, checksum, label, identity in rows:
                if _checksum(row) == checksum:
                    key, text, numbers, finish_reason, tokens_in, tokens_out, _, created = row
                    answer = _from_row((key, text, numbers, finish_reason, tokens_in, tokens_out))
                    yield Entry(answer, label, identity, created)
                else:
                    self.dropped += 1

    def prune(self, *, before: int | None = None, identity: str | None = None) -> int:
        """Delete what was stored before a time (seconds since 1970), by one model, or both; shrink the file.

        Returns how many completions went. With neither condition nothing is deleted.
        """
        conditions = {"created < ?": before, "model IN (SELECT id FROM models_2 WHERE identity = ?)": identity}
        given = {text: value for text, value in conditions.items() if value is not None}
        if not given:
            return 0
        where, values = " AND ".join(given), tuple(given.values())
        with self._transaction():
            gone = self._db.execute(f"DELETE FROM completions_3 WHERE {where}", values).rowcount
            self._db.execute(f"DELETE FROM failures_2 WHERE {where}", values)
            used = "SELECT model FROM completions_3 UNION SELECT model FROM failures_2"
            self._db.execute(f"DELETE FROM models_2 WHERE id NOT IN ({used})")
        with self._explained():
            self._db.execute("VACUUM")  # which SQLite refuses inside a transaction
        return gone

    def _rows(self, select: str, keys: Sequence[str]) -> Iterator[Any]:
        """Yield the rows of a query for ``keys``; at most `_LOOKUP_CHUNK` of them are in memory."""
        for start in range(0, len(keys), _LOOKUP_CHUNK):
            chunk = [bytes.fromhex(key) for key in keys[start : start + _LOOKUP_CHUNK]]
            marks = ",".join("?" * len(chunk))
            with self._explained():
                rows = self._db.execute(f"{select} WHERE key IN ({marks})", chunk).fetchall()
            yield from rows

    def _take_over(self) -> None:
        """Give the completions of earlier versions a checksum: from here on they are what they are now."""
        known = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
        if self._db.execute(known, (_WITHOUT_CHECKSUM,)).fetchone() is None:
            return
        self._db.create_function("checksum", -1, lambda *row: _checksum(row), deterministic=True)
        with self._transaction():
            if self._db.execute(known, (_WITHOUT_CHECKSUM,)).fetchone():  # else another process was faster
                rows = f"SELECT {_ROW}, checksum({_ROW}) FROM {_WITHOUT_CHECKSUM}"
                self._db.execute(f"INSERT OR IGNORE INTO completions_3 {rows}")
                self._db.execute(f"DROP TABLE {_WITHOUT_CHECKSUM}")

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """Commit what is written while the context lasts, or none of it if an exception leaves it."""
        with self._explained():
            # Waits for other writers here: a transaction that began by reading could not, and would fail at once.
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                # After some errors, such as a full disk, SQLite has rolled back itself and would refuse to do it again.
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Raise SQLite's errors as a `StageError` with cause and next step.

        A damaged file is never replaced: that is the user's decision.
        """
        try:
            yield
        except sqlite3.DatabaseError as error:
            what = f"{self.path}: the completion cache cannot be used ({error})"
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the higher bits say more than is told here
            if code in _PASSING:
                cause, step = "another process holds the file", "wait for it to end and run again"
            elif code in _PLACE:
                cause, step = "no space left or no right to write", "free some space or choose another --run-dir"
            else:
                cause, step = "the file is damaged or not a cache", "move it away; its completions are computed again"
            raise StageError(what, cause, step) from error


def _to_row(answer: Completion) -> tuple[bytes, str, bytes, str, int, int]:
    numbers = struct.pack(f"<{len(answer.choice_logprobs)}d", *answer.choice_logprobs)
    return bytes.fromhex(answer.key), answer.text, numbers, answer.finish_reason, answer.tokens_in, answer.tokens_out


def _checksum(row: Sequence[Any]) -> bytes:
    """Return the checksum of a row, of whatever types a damaged file gives its columns."""
    parts = [one if isinstance(one, bytes) else str(one).encode("utf-8", "surrogateescape") for one in row]
    lengths = struct.pack(f"<{len(parts)}q", *map(len, parts))
    return hashlib.blake2b(lengths + b"".join(parts), digest_size=_CHECKSUM_BYTES).digest()


def _from_row(row: tuple[bytes, str, bytes, str, int, int]) -> Completion:
    key, text, numbers, finish_reason, tokens_in, tokens_out = row
    logprobs = struct.unpack(f"<{len(numbers) // 8}d", numbers)
    return Completion(key.hex(), text, logprobs, finish_reason, tokens_in, tokens_out)


# Stored completions as a table for other tools.

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


def _row(entry: Entry) -> dict[str, object]:
    answer = entry.completion
    return {
        "key": answer.key, "model": entry.label, "model_id": entry.identity, "text": answer.text,
        "choice_logprobs": list(answer.choice_logprobs), "finish_reason": answer.finish_reason,
        "tokens_in": answer.tokens_in, "tokens_out": answer.tokens_out, "created": entry.created,
    }  # fmt: skip
