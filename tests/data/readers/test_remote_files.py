"""Tables in buckets and on the web: an S3-compatible server where one is installed, a web server of the test."""

import functools
import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from msr_adapter.cli import app
from msr_adapter.config.schema import TableSourceConfig
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.readers import remote_files
from msr_adapter.data.readers.remote_files import remote_address
from msr_adapter.data.readers.sources import check_source, read, source_files
from msr_adapter.errors import UserError
from tests.support.s3_server import CANARY, empty_bucket, put, s3_server

LOG = "user_id,item_id,timestamp\n" + "".join(
    f"u{user},i{(user + place) % 9},{1_700_000_000 + place}\n" for user in range(8) for place in range(5)
)


@pytest.fixture(autouse=True)
def _each_command_is_a_process_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remote_files._parts.cache_clear()
    monkeypatch.setenv("MSR_SOURCES", str(tmp_path / "copies"))


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3_server(tmp_path_factory.mktemp("s3")) as address:
        yield address


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    return empty_bucket(endpoint, monkeypatch)


def source(address: str, **keys: Any) -> TableSourceConfig:
    return TableSourceConfig.model_validate({"kind": "table", "interactions": address, **keys})


def again() -> None:
    remote_files._parts.cache_clear()


def rows_of(found: TableSourceConfig) -> list[tuple[Any, ...]]:
    return read(found, 0, Audit()).interactions.select("user_id", "item_id", "timestamp").collect().rows()


@pytest.mark.parametrize(
    ("path", "address"),
    [
        ("s3://shop/a b/log.csv.gz", "s3://shop/a b/log.csv.gz"),
        ("gs://shop/log.parquet", "gs://shop/log.parquet"),
        ("https://shop.example/log.csv?day=1", "https://shop.example/log.csv?day=1"),
        ("/data/log.csv", None), ("log.csv", None), ("C:/log.csv", None), ("s3/log.csv", None),
    ],
)  # fmt: skip
def test_an_address_is_told_from_a_path(path: str, address: str | None) -> None:
    assert remote_address(Path(path)) == address


def test_a_file_of_a_bucket_is_read_and_its_version_identifies_it(bucket: str) -> None:
    put(bucket, "logs/log.csv", LOG.encode())
    found = source("s3://shop/logs/log.csv")
    assert check_source(found) == []
    assert len(rows_of(found)) == 40
    before = dict(source_files(found))
    put(bucket, "logs/log.csv", LOG.replace("u1,", "u2,").encode())  # as many bytes, in the same second
    again()
    assert dict(source_files(found)) != before
    assert {row[0] for row in rows_of(found)} == {f"u{n}" for n in range(8)} - {"u1"}


def test_of_a_folder_only_new_parts_are_copied(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def part(day: int) -> bytes:
        path = tmp_path / "part.parquet"
        pl.DataFrame({"user_id": ["u"], "item_id": [f"i{day}"], "timestamp": [1_700_000_000 + day]}).write_parquet(path)
        return path.read_bytes()

    copied = []
    real = remote_files._copy_from_a_bucket
    monkeypatch.setattr(remote_files, "_copy_from_a_bucket",
                        lambda address, one, out: copied.append(one.name) or real(address, one, out))  # fmt: skip
    for day in (1, 2):
        put(bucket, f"logs/day={day}/part.parquet", part(day))
    found = source("s3://shop/logs")
    assert [row[1] for row in rows_of(found)] == ["i1", "i2"]
    put(bucket, "logs/day=3/part.parquet", part(3))
    again()
    assert [row[1] for row in rows_of(found)] == ["i1", "i2", "i3"]
    assert copied == ["day=1/part.parquet", "day=2/part.parquet", "day=3/part.parquet"]


def test_faults_are_told_of_the_address(bucket: str) -> None:
    put(bucket, "logs/log.csv", (LOG + "u1,,1700000000\n").encode())
    with pytest.raises(UserError, match=r"s3://shop/logs/log\.csv:42 item_id: empty"):
        rows_of(source("s3://shop/logs/log.csv"))
    [problem] = check_source(source("s3://shop/logs/other.csv"))
    assert (problem.where, problem.found) == ("s3://shop/logs/other.csv", "nothing is there")


def test_a_pipeline_over_a_bucket_writes_its_secret_nowhere(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    put(bucket, "log.csv", LOG.encode())
    (tmp_path / "p.yaml").write_text(
        "extends: table\nname: p\ndata:\n  source: {interactions: 's3://shop/log.csv', items: null}\n"
        "  k_core: {users: 1, items: 1}\nevaluate: {protocol: {negatives: 2}}\n"
    )
    said = ""
    for command in ("check", "build-data"):
        done = CliRunner().invoke(app, [command, "p.yaml"])
        assert done.exit_code == 0, done.output
        said += done.output
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert CANARY not in said
    assert [path for path in tmp_path.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()] == []


@pytest.mark.slow
def test_a_million_rows_of_a_bucket_take_less_than_a_gigabyte(bucket: str, tmp_path: Path) -> None:
    n = pl.int_range(1_000_000, eager=True)
    frame = pl.DataFrame({"user_id": n % 50_000, "item_id": "item-" + (n * 7919 % 20_000).cast(pl.String),
                          "timestamp": n + 1_700_000_000})  # fmt: skip
    frame.write_parquet(tmp_path / "log.parquet")
    put(bucket, "log.parquet", (tmp_path / "log.parquet").read_bytes())
    script = (
        "import polars as pl\nfrom pathlib import Path\nfrom msr_adapter.config.schema import TableSourceConfig\n"
        "from msr_adapter.data.audit.report import Audit\nfrom msr_adapter.data.readers.sources import read\n"
        "source = TableSourceConfig(kind='table', interactions='s3://shop/log.parquet')\n"
        "print(read(source, 0, Audit()).interactions.select(pl.len()).collect(engine='streaming').item())\n"
        "print(next(line.split()[1] for line in Path('/proc/self/status').open() if line.startswith('VmHWM')))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=True)
    rows, kilobytes = map(int, done.stdout.split())
    assert rows == 1_000_000
    assert kilobytes < 2**20


# The web


class _Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "web"
    folder.mkdir()
    (folder / "log.csv").write_text(LOG)
    handler = functools.partial(_Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_a_file_of_the_web_is_read(web: str) -> None:
    found = source(f"{web}/log.csv")
    assert check_source(found) == []
    assert len(rows_of(found)) == 40
    [problem] = check_source(source(f"{web}/none.csv"))
    assert "404" in problem.found


def test_an_address_with_a_secret_is_refused_and_not_repeated(tmp_path: Path) -> None:
    for address in (f"https://shop:{CANARY}@127.0.0.1:1/log.csv", f"https://127.0.0.1:1/log.csv?token={CANARY}"):
        (tmp_path / "p.yaml").write_text(
            f"extends: table\ndata: {{source: {{interactions: '{address}', items: null}}}}\n"
        )
        done = CliRunner().invoke(app, ["check", str(tmp_path / "p.yaml")])
        assert done.exit_code == 2
        assert "an address with a secret in it" in done.output
        assert CANARY not in done.output
