"""Logs that are added to day by day: only what is new is fetched, and the tables are those of a build from nothing."""

import filecmp
import io
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from msr_adapter.config.schema import (
    DataConfig,
    NegativesConfig,
    ProtocolConfig,
    SourceConfig,
    SplitConfig,
    SqlSourceConfig,
    TableSourceConfig,
    TrainNegativesConfig,
)
from msr_adapter.data import BuildInputs, build
from msr_adapter.data.readers import remote_files, sql
from msr_adapter.data.readers.sources import check_source, source_files
from msr_adapter.progress import Reporter
from msr_adapter.stage_arguments import Job
from tests.support.s3_server import empty_bucket, put, s3_server

DAYS, USERS = 6, 12
DAY = 86_400


def rows_of_day(day: int) -> list[tuple[str, str, int]]:
    """Return one interaction of each user, at times of their own."""
    return [
        (f"u{user:02}", f"i{(7 * user + 5 * day) % 23:02}", 1_700_000_000 + DAY * day + user) for user in range(USERS)
    ]


ALL = [row for day in range(DAYS) for row in rows_of_day(day)]


def again() -> None:
    """Let the next look be that of a new command."""
    sql._fetched.cache_clear()
    remote_files._parts.cache_clear()


def built(found: SourceConfig, out: Path) -> Path:
    """Build and return the folder; its findings are in audit.json."""
    again()
    out.mkdir()
    data = DataConfig(source=found)
    protocol = ProtocolConfig(name="p", negatives=NegativesConfig(count=3))
    split = SplitConfig(kind="leave-last-out", max_history=3)
    inputs = BuildInputs(data, split, protocol, TrainNegativesConfig(count=1))
    build(inputs, Job(out, Reporter(quiet=True)))
    return out


def assert_same_tables(one: Path, other: Path) -> None:
    names = sorted(path.name for path in one.glob("*.parquet"))
    assert len(names) > 5
    assert filecmp.cmpfiles(one, other, names, shallow=False) == (names, [], [])


@pytest.fixture(autouse=True)
def copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return what sets a place for copies where nothing was copied yet."""
    use: Callable[[str], None] = lambda name: monkeypatch.setenv("MSR_SOURCES", str(tmp_path / name))  # noqa: E731
    use("copies")
    return use


# A database


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[sqlite3.Connection]:
    with sqlite3.connect(tmp_path / "shop.db") as connection:
        connection.execute("CREATE TABLE events (user_id TEXT, item_id TEXT, ts INTEGER)")
    monkeypatch.setenv("SHOP_DB", f"sqlite:///{tmp_path / 'shop.db'}")
    yield connection
    connection.close()


DATABASE = SqlSourceConfig.model_validate(
    {"kind": "sql", "url_env": "SHOP_DB", "interactions": "SELECT * FROM events", "watermark": "ts"}
)


def test_of_a_database_each_day_is_fetched_once(
    shop: sqlite3.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copies: Callable[[str], None]
) -> None:
    fetched: list[int] = []
    real = sql.write_rows
    monkeypatch.setattr(sql, "write_rows", lambda *given: fetched.append(real(*given)) or fetched[-1])
    stamps = set()
    for day in range(DAYS):
        with shop:
            shop.executemany("INSERT INTO events VALUES (?, ?, ?)", rows_of_day(day))
        again()
        stamps.add(str(dict(source_files(DATABASE))))
    assert fetched == [USERS] + [USERS + 1] * (DAYS - 1)  # the latest row is fetched again: others may have its time
    assert len(stamps) == DAYS
    grown = built(DATABASE, tmp_path / "grown")
    assert len(fetched) == DAYS
    copies("nothing")
    assert_same_tables(grown, built(DATABASE, tmp_path / "anew"))
    assert fetched[-1] == DAYS * USERS


@pytest.mark.parametrize("change", [
    "DELETE FROM events WHERE user_id = 'u03' AND ts < 1700090000",
    "INSERT INTO events VALUES ('u99', 'i01', 1700000500)",
    "UPDATE events SET ts = ts - 86400000 WHERE ts = (SELECT max(ts) FROM events)",
])  # fmt: skip
def test_of_a_database_whose_past_is_another_all_is_fetched_again(
    shop: sqlite3.Connection, tmp_path: Path, change: str, copies: Callable[[str], None]
) -> None:
    with shop:
        shop.executemany("INSERT INTO events VALUES (?, ?, ?)", ALL)
    built(DATABASE, tmp_path / "before")
    with shop:
        shop.execute(change)
    after = built(DATABASE, tmp_path / "after")
    assert "all are fetched again" in (after / "audit.json").read_text()
    copies("nothing")
    assert_same_tables(after, built(DATABASE, tmp_path / "anew"))


def test_a_query_about_the_known_rows_notices_one_that_was_changed_in_its_place(
    shop: sqlite3.Connection, tmp_path: Path, copies: Callable[[str], None]
) -> None:
    with shop:
        shop.executemany("INSERT INTO events VALUES (?, ?, ?)", rows_of_day(0))
    watched = DATABASE.model_copy(
        update={"snapshot": "SELECT group_concat(item_id) FROM events WHERE ts < {watermark}"}
    )
    assert check_source(watched) == []

    def stamps() -> list[str]:
        again()
        return [str(dict(source_files(one))) for one in (DATABASE, watched)]

    before = stamps()
    assert stamps() == before
    with shop:
        shop.executemany("INSERT INTO events VALUES (?, ?, ?)", ALL[USERS:])
    grown = stamps()
    assert all(one != other for one, other in zip(before, grown, strict=True))
    with shop:
        shop.execute("UPDATE events SET item_id = 'i22' WHERE ts < 1700000003")
    after = stamps()
    assert after[0] == grown[0]
    assert after[1] != grown[1]
    changed = built(watched, tmp_path / "changed")
    copies("nothing")
    assert stamps()[1] == after[1]
    assert_same_tables(changed, built(watched, tmp_path / "anew"))
    [problem] = check_source(watched.model_copy(update={"watermark": None}))
    assert problem.next_step == "Set data.source.watermark"


# Parts of Parquet


def part(day: int, rows: list[tuple[str, str, int]] | None = None) -> bytes:
    buffer = io.BytesIO()
    schema = ["user_id", "item_id", "timestamp"]
    pl.DataFrame(rows or rows_of_day(day), schema=schema, orient="row").write_parquet(buffer)
    return buffer.getvalue()


def test_local_parts_are_read_as_one_file_would_be(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    for day in range(DAYS):
        (folder / f"day-{day}.parquet").write_bytes(part(day))
    found = TableSourceConfig(kind="table", interactions=folder)
    grown = built(found, tmp_path / "grown")
    whole = tmp_path / "log.parquet"
    whole.write_bytes(part(0, ALL))
    assert_same_tables(grown, built(TableSourceConfig(kind="table", interactions=whole), tmp_path / "anew"))


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3_server(tmp_path_factory.mktemp("s3")) as address:
        yield address


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    return empty_bucket(endpoint, monkeypatch)


def test_of_a_bucket_each_part_is_fetched_once_and_a_changed_one_again(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copies: Callable[[str], None]
) -> None:
    sizes: list[int] = []
    real = remote_files._copy_from_a_bucket

    def counting(*given: Any) -> int:
        sizes.append(real(*given))
        return sizes[-1]

    monkeypatch.setattr(remote_files, "_copy_from_a_bucket", counting)
    found = TableSourceConfig.model_validate({"kind": "table", "interactions": "s3://shop/log"})
    for day in range(DAYS - 1):
        put(bucket, f"log/day-{day}.parquet", part(day))
    built(found, tmp_path / "first")
    assert len(sizes) == DAYS - 1
    put(bucket, f"log/day-{DAYS - 1}.parquet", part(DAYS - 1))
    grown = built(found, tmp_path / "grown")
    assert sizes[DAYS - 1 :] == [len(part(DAYS - 1))]  # the new part alone
    told = (grown / "audit.json").read_text()
    assert f"of {DAYS} parts, 1 " in told
    assert "since it was read last" not in told
    copies("nothing")
    assert_same_tables(grown, built(found, tmp_path / "anew"))

    copies("copies")
    del sizes[:]
    put(bucket, "log/day-2.parquet", part(2, rows_of_day(2)[1:]))
    changed = built(found, tmp_path / "changed")
    assert len(sizes) == 1
    assert "1 part changed and 0 parts went" in (changed / "audit.json").read_text()
    copies("nothing at all")
    assert_same_tables(changed, built(found, tmp_path / "changed anew"))
