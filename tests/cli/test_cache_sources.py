"""`msr cache sources`: the copies of what lies elsewhere, listed and deleted."""

import json
import os
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from msr_adapter.cli.app import app
from msr_adapter.data.readers.local_copies import folder_of, local_copy

DAY_S = 86_400


def msr(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["cache", "sources", *map(str, arguments)], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(autouse=True)
def copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MSR_SOURCES", str(tmp_path / "copies"))
    return tmp_path / "copies"


def copy(origin: str, data: bytes, days: float, secret: str = "") -> Path:
    path = local_copy(origin, "v1", "rows.bin", lambda target: target.write_bytes(data) and None, secret)
    moment = time.time() - days * DAY_S
    os.utime(path.parent.parent, (moment, moment))
    return path


def test_nothing_is_listed_where_nothing_was_copied(copies: Path) -> None:
    assert "0 sources copied, 0 bytes" in msr()
    assert not copies.exists()


def test_copies_are_listed_by_origin_and_the_old_ones_deleted(copies: Path) -> None:
    new, old = copy("s3://shop/log.parquet", b"x" * 100, 1), copy("SHOP_DB interactions: SELECT 1", b"y" * 50, 40)
    listed = json.loads(msr("--json"))
    assert [one["origin"] for one in listed["sources"]] == ["s3://shop/log.parquet", "SHOP_DB interactions: SELECT 1"]
    assert listed["sources"][0]["bytes"] > 100
    told = msr("--older-than", 30)
    assert "SHOP_DB interactions" in told
    assert "s3://" not in told
    assert old.exists()
    msr("--older-than", 30, "--yes")
    assert new.exists()
    assert not old.parent.parent.exists()
    msr("--yes")
    assert list(copies.iterdir()) == []


def test_what_two_copies_share_is_counted_once() -> None:
    one = copy("s3://shop/logs/1.parquet", b"x" * 100_000, 1)
    folder = folder_of("s3://shop/logs")
    (folder / "1.parquet").hardlink_to(one)
    assert 100_000 < json.loads(msr("--json"))["bytes"] < 101_000


def test_a_secret_tells_copies_apart_and_is_written_nowhere(copies: Path) -> None:
    one, other = copy("SHOP_DB x", b"1", 0, "canary-1"), copy("SHOP_DB x", b"2", 0, "canary-2")
    assert one.parent.parent != other.parent.parent
    assert all(b"canary" not in path.read_bytes() for path in copies.rglob("*") if path.is_file())
    copy("https://u:canary-3@shop.example/log.csv", b"3", 0)
    assert "canary" not in msr()
