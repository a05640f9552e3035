"""A log in a database: what its queries return is fetched once, as Parquet, and read like any table.

Several passes read a log; over a database that is written to they would see different rows. What identifies the data
for the fingerprint is the answer of the query `snapshot`, or the rows themselves. With a `watermark`, only rows from
the last known value on are fetched, after a count of those before it.
"""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import polars as pl

from msr_adapter.config.schema import SqlSourceConfig
from msr_adapter.data.readers.database import Database, database_at, literal, plain, schema_of_query, write_rows
from msr_adapter.data.readers.local_copies import folder_of, local_copy
from msr_adapter.data.readers.log_and_items import (
    ITEM,
    ITEM_MORE,
    LOG_MORE,
    RowRules,
    header_problems,
    log_needs,
    read_tables,
)
from msr_adapter.data.readers.reader import Corpus, ReadContext
from msr_adapter.data.readers.table_layout import Layout, Table
from msr_adapter.errors import Problem, UserError, collecting
from msr_adapter.files import atomic_path, digest, file_digest, write_json

_ROWS = Layout("parquet")
_PLACE = "{watermark}"
"""In the query `snapshot`: the last value that was fetched."""


class _Fetched:
    """What the queries of a source returned, by role: files of Parquet and what identifies them."""

    def __init__(self) -> None:
        self.frames: dict[str, pl.LazyFrame] = {}
        self.stamps: dict[str, str] = {}
        self.told: list[str] = []


def read_sql(source: SqlSourceConfig, context: ReadContext) -> Corpus:
    """Read what the queries return; `UserError` with the rows that are wrong, by their number."""
    fetched = _fetched(source, _address(source))
    for text in fetched.told:
        context.audit.find("info", text, "database")
    tables = {role: Table(_name(role), _ROWS, frame) for role, frame in fetched.frames.items()}
    rules = RowRules(source.min_rating, source.missing_times, source.drop_without_id)
    columns = source.columns.model_dump()
    return read_tables(tables["interactions"], tables.get("items"), columns, context.audit, rules)


def check_sql(source: SqlSourceConfig) -> list[Problem]:
    """Return what is wrong with address, database, queries and their columns; no row is fetched."""
    problems, columns = list[Problem](), source.columns.model_dump()
    with collecting(problems):
        database = database_at(source.url_env)
        with database.cursor() as cursor:
            for role, query, needs, more in (
                ("interactions", source.interactions, log_needs(source.min_rating), LOG_MORE),
                ("items", source.items, ITEM, ITEM_MORE),
            ):  # fmt: skip
                if query is None or problems:
                    continue
                with collecting(problems), database.explaining(f"data.source.{role}"):
                    empty = pl.from_arrow(schema_of_query(cursor, query).empty_table())
                    assert isinstance(empty, pl.DataFrame)
                    problems += header_problems(Table(_name(role), _ROWS, empty.lazy()), needs, columns, more)
                    if role == "interactions" and source.watermark not in (None, *empty.columns):
                        there = f"columns of the query: {', '.join(empty.columns)}"
                        problems.append(Problem("", "data.source.watermark", f"no column {source.watermark!r}", there))
            if source.snapshot is not None and not problems:
                if _PLACE in source.snapshot and source.watermark is None:
                    found = f"{_PLACE} stands for the last value of a watermark, and there is none"
                    problems.append(Problem("", "data.source.snapshot", found, "", "Set data.source.watermark"))
                    return problems
                with collecting(problems):
                    _answer(cursor, source.snapshot.replace(_PLACE, "NULL"), database)
    return problems


def sql_files(source: SqlSourceConfig) -> dict[str, Path | str | None]:
    """Return what identifies the rows, by role; they are fetched for it, unless a snapshot says what they are."""
    try:
        return dict(_fetched(source, _address(source)).stamps)
    except UserError:  # told by who checks it
        return {"interactions": None}


def _name(role: str) -> Path:
    return Path(f"data.source.{role}")


def _address(source: SqlSourceConfig) -> str:
    return digest([source.url_env, os.environ.get(source.url_env, "")])


@lru_cache(maxsize=8)
def _fetched(source: SqlSourceConfig, address: str) -> _Fetched:
    """Fetch the rows of a source, once in the life of a process: its stages must see the same."""
    database, result = database_at(source.url_env), _Fetched()
    queries = {"interactions": source.interactions, "items": source.items}
    with database.cursor() as cursor:
        snapshot, past = None, None
        if source.snapshot is not None and _PLACE in source.snapshot:
            past = partial(_past, cursor, source.snapshot, database)
        elif source.snapshot is not None:
            snapshot = _answer(cursor, source.snapshot, database)
        for role, query in queries.items():
            if query is None:
                continue
            key = f"{source.url_env} {role}: {plain(query)}"
            with database.explaining(f"data.source.{role}"):
                if role == "interactions" and source.watermark is not None:
                    _grow(
                        _Grown(folder_of(f"{key} by {source.watermark}", address), query, source.watermark, past),
                        cursor,
                        result,
                    )
                    continue
                path = _whole(cursor, _Query(key, address, query), snapshot)
            result.frames[role] = pl.scan_parquet(path, glob=False)
            result.stamps[role] = f"snapshot {snapshot}" if snapshot is not None else f"rows {path.parent.name}"
    return result


def _answer(cursor: Any, query: str, database: Database) -> str:
    """Return a digest of what a query answers."""
    with database.explaining("data.source.snapshot"):
        cursor.execute(query)
        return digest([[str(value) for value in row] for row in cursor.fetchall()])


def _past(cursor: Any, query: str, database: Database, high: str) -> str:
    """Return a digest of what a query says of the rows below a value of the watermark, given as SQL."""
    return _answer(cursor, query.replace(_PLACE, high), database)


@dataclass(frozen=True)
class _Query:
    """A query, as messages call it, and a digest of where it is asked."""

    name: str
    address: str
    text: str


def _whole(cursor: Any, query: _Query, snapshot: str | None) -> Path:
    name = "rows.parquet"
    if snapshot is not None:
        write = partial(_write, cursor, query.text)
        return local_copy(query.name, snapshot, name, write, query.address)
    with atomic_path(folder_of(query.name, query.address) / "fetched.parquet") as temporary:
        _write(cursor, query.text, temporary)
        content = file_digest(temporary)
        return local_copy(query.name, content, name, lambda target: _move(temporary, target), query.address)


def _write(cursor: Any, query: str, target: Path) -> None:
    write_rows(cursor, plain(query), target)


def _move(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    target.hardlink_to(source)


class _Grown:
    """A log that grows: the parts fetched so far, and up to which value of the watermark they reach."""

    def __init__(self, folder: Path, query: str, column: str, past: Callable[[str], str] | None = None) -> None:
        """``past`` identifies the rows below a value of the watermark (as SQL); None = their number does."""
        self.folder, self.query, self.column, self.past = folder, plain(query), column, past
        self.name = '"' + column.replace('"', '""') + '"'
        self.parts: list[dict[str, Any]] = []
        """file, high (as SQL), below and at (rows with a lower watermark, and with this one), maybe past."""
        with suppress(OSError, ValueError):
            self.parts = json.loads((folder / "parts.json").read_text(encoding="utf-8"))
        if any(not (folder / part["file"]).is_file() for part in self.parts):
            self.parts = []

    @property
    def frame(self) -> pl.LazyFrame:
        """All rows: of each part but the last, those below the begin of the next, which has the others again."""
        frames = []
        for place, part in enumerate(self.parts):
            rows = pl.scan_parquet(self.folder / part["file"], glob=False)
            if place + 1 < len(self.parts):
                rows = rows.slice(0, part["below"])
            frames.append(rows)
        return pl.concat(frames)


def _grow(grown: _Grown, cursor: Any, result: _Fetched) -> None:
    """Fetch what is new, or all where what is known is no longer what the database holds."""
    if grown.parts and not _has_the_same_past(grown, cursor):
        result.told.append("Rows below the watermark are others than they were: all are fetched again.")
        grown.parts = []
    if not grown.parts or _count(grown, cursor, ">=") != grown.parts[-1]["at"] or _is_beyond(grown, cursor):
        _fetch_part(grown, cursor)
    last = grown.parts[-1]
    result.frames["interactions"] = grown.frame
    total = sum(part["below"] for part in grown.parts) + last["at"]
    result.stamps["interactions"] = f"{total} rows to {last['high']}" + (f" of {last['past']}" if grown.past else "")
    result.told.append(f"{last['below'] + last['at']:,} of {total:,} rows were in the latest part that was fetched; "
                       f"{grown.column} reaches to {last['high']}.")  # fmt: skip


def _has_the_same_past(grown: _Grown, cursor: Any) -> bool:
    last = grown.parts[-1]
    if grown.past is not None and grown.past(last["high"]) != last.get("past"):
        return False
    return _count(grown, cursor, "<") == sum(int(part["below"]) for part in grown.parts)


def _is_beyond(grown: _Grown, cursor: Any) -> bool:
    return _count(grown, cursor, ">") > 0


def _count(grown: _Grown, cursor: Any, sign: str) -> int:
    high = grown.parts[-1]["high"]
    cursor.execute(f"SELECT count(*) FROM ({grown.query}) AS q WHERE {grown.name} {sign} {high}")
    return int(cursor.fetchall()[0][0])


def _fetch_part(grown: _Grown, cursor: Any) -> None:
    """Fetch the rows from the highest known watermark on, in its order."""
    where = f" WHERE {grown.name} >= {grown.parts[-1]['high']}" if grown.parts else ""
    name = f"part-{len(grown.parts):05d}-{digest([part['high'] for part in grown.parts])[:8]}.parquet"
    with atomic_path(grown.folder / name) as temporary:
        write_rows(cursor, f"SELECT * FROM ({grown.query}) AS q{where} ORDER BY {grown.name}", temporary)
        column = pl.scan_parquet(temporary, glob=False).select(mark=pl.col(grown.column))
        rows, empty = column.select(pl.len(), empty=pl.col("mark").null_count()).collect().row(0)
        if not rows:
            raise UserError(Problem("", "data.source.interactions", "the query returns no row", "one or more"))
        if empty:
            found = f"{empty:,} rows without {grown.column}"
            raise UserError(Problem("", "data.source.watermark", found, "a value in each row", "Leave it out"))
        value = column.tail(1).collect().item()  # the database's order counts, that of its texts too
        at = column.select((pl.col("mark") == value).sum()).collect().item()
        try:
            high = literal(value)
        except TypeError as error:
            raise UserError(Problem("", "data.source.watermark", str(error), "times, numbers or texts")) from None
    part = {"file": name, "high": high, "below": rows - at, "at": at}
    if grown.past is not None:
        part["past"] = grown.past(high)
    grown.parts = [*grown.parts, part]
    write_json(grown.folder / "parts.json", grown.parts)
