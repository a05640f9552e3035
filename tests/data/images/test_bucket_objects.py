"""Images in buckets: an S3-compatible server where one is installed, and services that misbehave."""

import asyncio
import io
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from msr_adapter.cli import app
from msr_adapter.config.schema import ImagesConfig
from msr_adapter.data.images.download import DownloadPolicy, fetch_into
from msr_adapter.data.images.download.bucket_objects import BucketObjects, ObjectError, is_of_a_bucket
from msr_adapter.data.images.locate import read_download_index
from msr_adapter.progress import Reporter
from tests.support.image_server import image_bytes
from tests.support.s3_server import CANARY, empty_bucket, put, s3_server

QUICK: dict[str, Any] = {"retries": 1, "backoff_s": 0.01, "read_s": 2.0, "total_s": 20.0}


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3_server(tmp_path_factory.mktemp("s3")) as address:
        yield address


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    return empty_bucket(endpoint, monkeypatch)


def fetch(folder: Path, wanted: dict[str, str], **settings: Any) -> dict[str, Any]:
    policy = DownloadPolicy(**{"limits": ImagesConfig(max_file_mb=1), **QUICK, **settings})
    return fetch_into(folder, wanted, policy, Reporter(quiet=True))


def test_objects_become_files_and_what_is_there_is_not_asked_for_again(bucket: str, tmp_path: Path) -> None:
    put(bucket, "img/1.png", image_bytes())
    put(bucket, "img/a%20b.jpg", image_bytes("blue", "JPEG"))
    put(bucket, "img/text.png", b"no image")
    put(bucket, "img/large.png", b"x" * (2**20 + 1))
    wanted = {
        "1": "s3://shop/img/1.png", "2": "s3://shop/img/a b.jpg", "3": "s3://shop/img/none.png",
        "4": "s3://shop/img/text.png", "5": "s3://shop/img/large.png", "6": "s3://nobody/1.png", "7": "s3://shop",
        "8": "S3://shop/img/1.png",
    }  # fmt: skip
    report = fetch(tmp_path, wanted)
    assert (report["fetched"], report["failed"]) == (3, 5)
    index = read_download_index(tmp_path)
    assert [index[item].reason for item in "345678"] == [
        "not_found", "not_an_image", "too_large", "not_found", "bad_url", None,
    ]  # fmt: skip
    assert (tmp_path / "1.png").read_bytes() == image_bytes() == (tmp_path / "8.png").read_bytes()
    assert (tmp_path / "2.jpg").read_bytes() == image_bytes("blue", "JPEG")
    put(bucket, "img/none.png", image_bytes("green"))
    put(bucket, "img/1.png", image_bytes("green"))
    report = fetch(tmp_path, wanted)
    assert (report["there_already"], report["fetched"], report["failed"]) == (3, 1, 4)
    assert (tmp_path / "3.png").read_bytes() == image_bytes("green")
    assert (tmp_path / "1.png").read_bytes() == image_bytes()


def test_a_service_that_does_not_answer_is_a_reason_and_no_more(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    report = fetch(tmp_path, {"1": "s3://shop/1.png"})
    assert report["reasons"] == {"no_answer": 1}
    assert all(CANARY.encode() not in path.read_bytes() for path in tmp_path.iterdir())


def test_a_silent_service_is_waited_for_no_longer_than_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "shop")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", CANARY)
    with socket.create_server(("127.0.0.1", 0)) as server:  # takes connections, and says nothing
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        report = fetch(tmp_path, {"1": "s3://shop/1.png"}, read_s=0.5, retries=0)
    assert report["reasons"] == {"no_answer": 1}


def test_images_of_a_bucket_are_built_and_its_secret_is_written_nowhere(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MSR_SOURCES", str(tmp_path / "copies"))
    rows = [f"u{user},i{(user + place) % 9},{1_700_000_000 + place}" for user in range(8) for place in range(5)]
    (tmp_path / "log.csv").write_text("\n".join(["user_id,item_id,timestamp", *rows]) + "\n")
    titles = [f"i{item},Lamp {item},s3://shop/img/{item}.png" for item in range(9)]
    put(bucket, "items.csv", "\n".join(["item_id,title,image", *titles]).encode())
    for item in range(8):  # that of the ninth is absent
        put(bucket, f"img/{item}.png", image_bytes(size=8 + item))
    (tmp_path / "p.yaml").write_text(
        "extends: table\nname: p\ndata:\n  source: {interactions: log.csv, items: 's3://shop/items.csv'}\n"
        "  images: {folder: images}\n  k_core: {users: 1, items: 1}\nevaluate: {protocol: {negatives: 2}}\n"
    )
    said = ""
    for command in ("fetch-images", "build-data"):
        done = CliRunner().invoke(app, [command, "p.yaml"])
        assert done.exit_code == 0, done.output
        said += done.output
    assert "8 images downloaded" in said
    assert "not_found 1" in said
    assert CANARY not in said
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len([path for path in files if path.suffix == ".png" and "data" in path.parts]) == 8
    assert [path for path in files if CANARY.encode() in path.read_bytes()] == []


class _Service:
    """A file system that counts who is at work, and gives what it is told to."""

    def __init__(self, answer: bytes | Exception) -> None:
        self.answer, self.opened = answer, list[str]()

    def open_input_stream(self, key: str, **_: Any) -> io.BytesIO:
        self.opened.append(key)
        if isinstance(self.answer, Exception):
            raise self.answer
        return io.BytesIO(self.answer)


def read(answer: bytes | Exception, address: str, limit: int = 10) -> bytes | str:
    service = _Service(answer)
    with ThreadPoolExecutor(1) as threads:
        buckets = BucketObjects(threads, 1.0, lambda where, _: (service, where))
        try:
            return asyncio.run(buckets.read(address, limit))
        except ObjectError as error:
            return f"{error}{' again' if error.again else ''}"


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (b"0123456789", b"0123456789"),
        (b"0123456789x", "too_large"),
        (FileNotFoundError("canary"), "not_found"),
        (PermissionError("canary"), "forbidden"),
        (OSError("When reading: AWS Error ACCESS_DENIED during GetObject: canary"), "forbidden"),
        (OSError("google::cloud: PERMISSION_DENIED canary"), "forbidden"),
        (OSError("AWS Error NETWORK_CONNECTION: canary"), "no_answer again"),
        (TimeoutError("canary"), "no_answer again"),
        (ValueError("canary"), "bad_url"),
    ],
)
def test_each_end_has_its_reason(answer: bytes | Exception, found: bytes | str) -> None:
    for scheme in ("s3", "gs", "az"):
        assert read(answer, f"{scheme}://shop/a b/1.png") == found


@pytest.mark.parametrize(
    ("address", "reason"),
    [("s3://shop", "bad_url"), ("s3://shop/", "bad_url"), ("s3:///1.png", "bad_url"),
     ("s3://key:canary@shop/1.png", "secret_in_address"), ("s3://shop/1.png?token=canary123", "secret_in_address")],
)  # fmt: skip
def test_addresses_that_name_no_object_or_hold_a_secret_are_not_asked_for(address: str, reason: str) -> None:
    assert read(b"x", address) == reason


def test_addresses_of_buckets() -> None:
    assert all(map(is_of_a_bucket, ("s3://a/b", "gs://a/b", "gcs://a/b", "az://a/b", "abfs://a/b", "S3://a/b")))
    assert not any(map(is_of_a_bucket, ("https://a/b", "s3", "s3:a/b", "file:///a", "x/s3://a")))
