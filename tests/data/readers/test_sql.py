"""Logs in databases: SQLite, and a real PostgreSQL where the machine has one."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import adbc_driver_postgresql.dbapi as adbc
import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from msr_adapter.cli import app
from msr_adapter.config.schema import SqlSourceConfig
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.readers import sql
from msr_adapter.data.readers.database import database_at
from msr_adapter.data.readers.sources import check_source, read, source_files
from msr_adapter.errors import UserError
from tests.support.postgres_server import PASSWORD, postgres

LOG, ITEMS = (
    "SELECT user_id, item_id, ts FROM events ORDER BY ts, user_id",
    "SELECT sku AS item_id, title FROM goods;\n",
)
ROWS = [(f"u{user}", f"i{(user + place) % 9}", 1_700_000_000 + 60 * place) for user in range(6) for place in range(5)]


@pytest.fixture(autouse=True)
def _each_command_is_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    sql._fetched.cache_clear()
    monkeypatch.delenv("SHOP_DB", raising=False)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[sqlite3.Connection]:
    path = tmp_path / "shop 100%.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE events (user_id TEXT, item_id TEXT, ts INTEGER)")
        connection.execute("CREATE TABLE goods (sku TEXT, title TEXT)")
        connection.executemany("INSERT INTO events VALUES (?, ?, ?)", ROWS)
        connection.executemany("INSERT INTO goods VALUES (?, ?)", [(f"i{n}", f"Lamp {n}") for n in range(9)])
    monkeypatch.setenv("SHOP_DB", f"sqlite:///{str(path).replace('%', '%25')}".replace("sqlite:////", "sqlite:////"))
    yield connection
    connection.close()


def source(**keys: Any) -> SqlSourceConfig:
    given = {"kind": "sql", "url_env": "SHOP_DB", "interactions": LOG, "items": ITEMS}
    return SqlSourceConfig.model_validate(given | keys)


def again() -> None:
    """Let the next look be that of a new command."""
    sql._fetched.cache_clear()


def rows_of(found: SqlSourceConfig, audit: Audit | None = None) -> list[tuple[Any, ...]]:
    corpus = read(found, 0, audit or Audit())
    return corpus.interactions.select("user_id", "item_id", "timestamp").collect().rows()


def problem_of(found: SqlSourceConfig) -> str:
    return str(UserError(check_source(found)))


def test_rows_and_items_are_what_the_queries_return(shop: sqlite3.Connection) -> None:
    found = source()
    assert check_source(found) == []
    assert sorted(rows_of(found)) == sorted((user, item, 1000 * time) for user, item, time in ROWS)
    items = read(found, 0, Audit()).items
    assert items is not None
    assert items.sort("item_id").row(0) == ("i0", "Lamp 0")


def test_without_a_snapshot_the_rows_identify_themselves(shop: sqlite3.Connection) -> None:
    found = source()
    before = dict(source_files(found))
    again()
    assert dict(source_files(found)) == before
    with shop:
        shop.execute("UPDATE goods SET title = 'Desk' WHERE sku = 'i3'")
    again()
    after = dict(source_files(found))
    assert after["interactions"] == before["interactions"]
    assert after["items"] != before["items"]


def test_a_snapshot_saves_the_rows_from_being_fetched(
    shop: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = source(snapshot="SELECT count(*), max(ts) FROM events")
    before = dict(source_files(found))
    again()
    fetches = []
    monkeypatch.setattr(sql, "write_rows", lambda *given: fetches.append(given))
    assert dict(source_files(found)) == before
    assert not fetches
    monkeypatch.undo()
    with shop:
        shop.execute("INSERT INTO events VALUES ('u9', 'i1', 1700009999)")
    again()
    assert dict(source_files(found)) != before


def test_with_a_watermark_only_what_is_new_is_fetched(
    shop: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, fetched = source(watermark="ts", items=None), []
    real = sql.write_rows
    monkeypatch.setattr(sql, "write_rows", lambda *given: fetched.append(real(*given)) or fetched[-1])
    assert len(rows_of(found)) == 30
    stamp = dict(source_files(found))
    again()
    assert dict(source_files(found)) == stamp
    assert fetched == [30]
    late = ("u7", "i1", ROWS[-1][2])  # at the very watermark
    with shop:
        shop.executemany("INSERT INTO events VALUES (?, ?, ?)", [late, ("u7", "i2", ROWS[-1][2] + 60)])
    again()
    rows = rows_of(found)
    assert fetched == [30, 8]  # the six at the watermark again
    assert sorted(rows) == sorted((u, i, 1000 * t) for u, i, t in [*ROWS, late, ("u7", "i2", ROWS[-1][2] + 60)])
    assert dict(source_files(found)) != stamp


def test_a_changed_past_is_fetched_again_and_said(shop: sqlite3.Connection) -> None:
    found = source(watermark="ts", items=None)
    rows_of(found)
    with shop:
        shop.execute("DELETE FROM events WHERE ts = 1700000000 AND user_id = 'u0'")
    again()
    audit = Audit()
    assert len(rows_of(found, audit)) == 29
    assert any("others than they were" in finding["text"] for finding in audit.findings)


def test_the_database_is_only_read(shop: sqlite3.Connection) -> None:
    assert "data.source.interactions" in problem_of(source(interactions="DELETE FROM events RETURNING *"))
    assert shop.execute("SELECT count(*) FROM events").fetchone() == (30,)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"interactions": "SELECT * FROM orders"}, "no such table: orders"),
        ({"interactions": "SELECT user_id FROM events"}, "no column for the item"),
        ({"items": "SELECT sku FROM goods"}, "no column for the title"),
        ({"snapshot": "SELECT nothing"}, "data.source.snapshot"),
        ({"watermark": "id"}, "data.source.watermark: no column 'id'"),
        ({"url_env": "OTHER_DB"}, "the environment has no OTHER_DB"),
    ],
)
def test_what_is_wrong_is_told_before_rows_are_fetched(
    shop: sqlite3.Connection, keys: dict[str, str], said: str
) -> None:
    assert said in problem_of(source(**keys))


@pytest.mark.parametrize("url", ["mysql://u:canary-9921@h/db", "sqlite:////no/such/canary-9921.db", "canary-9921"])
def test_addresses_that_lead_nowhere_are_not_repeated(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_DB", url)
    found = problem_of(source())
    assert "SHOP_DB" in found
    assert "canary" not in found


def test_an_address_within_the_pipeline_is_refused_and_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="no name of a variable"):
        source(url_env="postgresql://shop:canary-9921@host/db")
    (tmp_path / "p.yaml").write_text(
        "extends: table\ndata: {source: {kind: sql, url_env: 'postgresql://shop:canary-9921@h/db', interactions: x}}\n"
    )
    done = CliRunner().invoke(app, ["check", str(tmp_path / "p.yaml")])
    assert done.exit_code == 2
    assert "url_env" in done.output
    assert "canary" not in done.output


# DuckDB


@pytest.fixture
def duck(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a database of 30 rows at times of their own."""
    duckdb = pytest.importorskip("duckdb", reason="needs DuckDB: pip install duckdb")
    path = tmp_path / "shop 100%.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute(
            "CREATE TABLE events AS SELECT 'u' || (n % 6) AS user_id, 'i' || (n * 7 % 9) AS item_id, "
            "TIMESTAMPTZ '2024-01-01 00:00+01' + to_minutes(n) AS ts FROM range(30) AS t(n)"
        )
        connection.execute("CREATE TABLE goods AS SELECT 'i' || n AS sku, 'Lampe ü ' || n AS title FROM range(9) t(n)")
    monkeypatch.setenv("SHOP_DB", f"duckdb:///{str(path).replace('%', '%25')}")
    return path


def test_duckdb_is_read_and_grows(duck: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    duckdb = pytest.importorskip("duckdb")
    fetched: list[int] = []
    real = sql.write_rows
    monkeypatch.setattr(sql, "write_rows", lambda *given: fetched.append(real(*given)) or fetched[-1])
    found = source(interactions="SELECT * FROM events", watermark="ts")
    assert check_source(found) == []
    rows = rows_of(found)
    assert (len(rows), rows[0]) == (30, ("u0", "i0", 1_704_063_600_000))
    items = read(found, 0, Audit()).items
    assert items is not None
    assert items.sort("item_id").row(0) == ("i0", "Lampe ü 0")
    with duckdb.connect(str(duck)) as connection:
        connection.execute("INSERT INTO events VALUES ('u9', 'i1', TIMESTAMPTZ '2024-02-01 00:00:00.123456+00')")
    again()
    assert ("u9", "i1", 1_706_745_600_123) in rows_of(found)
    assert fetched == [30, 9, 2, 9]


def test_duckdb_is_only_read(duck: Path) -> None:
    database = database_at("SHOP_DB")
    with database.cursor() as cursor, pytest.raises(UserError, match="read-only"), database.explaining(""):
        cursor.execute("INSERT INTO events SELECT * FROM events")
    before = duck.read_bytes()
    assert "no column for the item" in problem_of(source(interactions="SELECT user_id FROM events"))
    assert "nothing_here" in problem_of(source(interactions="SELECT * FROM nothing_here"))
    assert duck.read_bytes() == before


# PostgreSQL


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres() as address:
        with adbc.connect(address) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE TABLE events (user_id bigint, item_id text, ts timestamptz, price numeric(8, 2))")
            cursor.execute("CREATE TABLE goods (sku text, title text)")
            cursor.execute(
                "INSERT INTO events SELECT n % 12, 'i' || (n * 7 % 9), timestamptz '2024-01-01 00:00+01' + n * "
                "interval '1 minute', 9.50 FROM generate_series(1, 60) AS n"
            )
            cursor.execute("INSERT INTO goods SELECT 'i' || n, 'Lampe ' || n || ' ü' FROM generate_series(0, 8) AS n")
            connection.commit()
        yield address


def test_postgres_builds_and_writes_its_password_nowhere(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_DB", server)
    monkeypatch.setenv("MSR_SOURCES", str(tmp_path / "copies"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shop.yaml").write_text(
        "extends: table\nname: shop\ndata:\n  source:\n    kind: sql\n    url_env: SHOP_DB\n"
        "    interactions: SELECT user_id, item_id, ts FROM events\n"
        "    items: SELECT sku AS item_id, title FROM goods\n"
        "    watermark: ts\n  k_core: {users: 1, items: 1}\nevaluate: {protocol: {negatives: 2}}\n"
    )
    said = ""
    for command in ("check", "build-data"):
        done = CliRunner().invoke(app, [command, "shop.yaml"])
        assert done.exit_code == 0, done.output
        said += done.output
    assert "12 users" in said or "60" in said
    broken = server.replace(PASSWORD, PASSWORD + "-wrong")
    monkeypatch.setenv("SHOP_DB", broken)
    again()
    done = CliRunner().invoke(app, ["build-data", "shop.yaml", "--force", "data"])
    assert done.exit_code == 2
    assert "SHOP_DB" in done.output
    said += done.output
    assert PASSWORD not in said
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 5
    assert [path for path in files if PASSWORD.encode() in path.read_bytes()] == []


def test_postgres_grows_by_times_with_a_zone(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_DB", server)
    query = "SELECT user_id, item_id, ts FROM events WHERE price > 1"
    found = source(interactions=query, items=None, watermark="ts")
    before = rows_of(found)
    with adbc.connect(server) as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO events VALUES (99, 'i1', '2024-02-01 00:00:00.123456+00', 5)")
        connection.commit()
    again()
    rows, audit = [], Audit()
    rows = rows_of(found, audit)
    assert len(rows) == len(before) + 1
    assert ("99", "i1", 1_706_745_600_123) in rows
    assert any("2 of 61 rows were in the latest part" in finding["text"] for finding in audit.findings)
    with adbc.connect(server) as connection, connection.cursor() as cursor:
        cursor.execute("DELETE FROM events WHERE user_id = 99")
        connection.commit()


def test_postgres_is_only_read(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_DB", server)
    database = database_at("SHOP_DB")
    with database.cursor() as cursor, pytest.raises(UserError, match="read-only"), database.explaining(""):
        cursor.execute("CREATE TABLE mine (n int)")


@pytest.mark.slow
def test_a_million_rows_take_less_than_a_gigabyte(server: str, tmp_path: Path) -> None:
    script = (
        "import polars as pl\nfrom pathlib import Path\nfrom msr_adapter.config.schema import SqlSourceConfig\n"
        "from msr_adapter.data.audit.report import Audit\nfrom msr_adapter.data.readers.sources import read\n"
        "query = \"SELECT n % 50000 AS user_id, 'item-' || (n::bigint * 7919 % 20000) AS item_id, \" \\\n"
        "  \"timestamptz '2024-01-01' + n * interval '1 second' AS ts FROM generate_series(1, 1000000) AS n\"\n"
        "source = SqlSourceConfig(kind='sql', url_env='SHOP_DB', interactions=query)\n"
        "print(read(source, 0, Audit()).interactions.select(pl.len()).collect(engine='streaming').item())\n"
        "print(next(line.split()[1] for line in Path('/proc/self/status').open() if line.startswith('VmHWM')))\n"
    )
    environment = os.environ | {"SHOP_DB": server, "MSR_SOURCES": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=300,
                          check=True)  # fmt: skip
    rows, kilobytes = map(int, done.stdout.split())
    assert rows == 1_000_000
    assert kilobytes < 2**20
