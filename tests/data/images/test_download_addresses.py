"""Requests go to public addresses only: however an address is written, after redirects, and when names change."""

import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msr_adapter.config.schema import ImagesConfig
from msr_adapter.data.images.download import DownloadPolicy, fetch_into
from msr_adapter.data.images.download.addresses import Resolve, is_public, resolve
from msr_adapter.data.images.locate import read_download_index
from msr_adapter.progress import Reporter
from tests.support.image_server import Handler, ok, serving

PUBLIC = ["93.184.216.34", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"]
NOT_PUBLIC = [
    "127.0.0.1", "127.255.255.254", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254",
    "100.64.0.1", "0.0.0.0", "0.1.2.3", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255", "192.0.2.1",
    "198.18.0.1", "198.51.100.7", "203.0.113.9",
    "::1", "::", "fe80::1", "fc00::1", "fd12:3456::1", "fec0::1", "ff02::1", "2001:db8::1", "100::1", "2001::1",
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "2002:7f00:1::1",
    "2002:a9fe:a9fe::", "64:ff9b:1::1", "fe80::1%lo", "::ffff:0:127.0.0.1",
]  # fmt: skip


def run(folder: Path, url: str, resolve: Resolve = resolve, **settings: Any) -> str | None:
    policy = DownloadPolicy(ImagesConfig(), **{"retries": 0, "backoff_s": 0.01, "total_s": 20.0, **settings})
    fetch_into(folder, {"1": url}, policy, Reporter(quiet=True), resolve)
    return read_download_index(folder)["1"].reason


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_other_addresses(address: str) -> None:
    assert not is_public(address)


@given(st.ip_addresses(v=4))
def test_an_address_inside_an_address_decides(address: Any) -> None:
    plain, number = is_public(str(address)), int(address)
    assert is_public(f"::ffff:{address}") == plain
    assert is_public(f"64:ff9b::{number >> 16:x}:{number & 0xFFFF:x}") == plain
    assert is_public(f"2002:{number >> 16:x}:{number & 0xFFFF:x}::1") == plain
    assert not is_public(f"::{number >> 16:x}:{number & 0xFFFF:x}")


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "LOCALHOST", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "127.0.1", "0",
     "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:0:0:1]", "①②⑦.⓪.⓪.①", "127。0。0。1"],
)  # fmt: skip
def test_loopback_is_refused_however_it_is_written(tmp_path: Path, host: str) -> None:
    with serving(x=ok) as server:
        url = f"http://{host}:{server.server_address[1]}/x"
        assert run(tmp_path, url) in ("private_address", "bad_url", "unknown_host")
        assert not server.hits
    assert not list(tmp_path.glob("*.png"))


def test_the_flag_allows_it(tmp_path: Path) -> None:
    with serving(x=ok) as server:
        assert run(tmp_path / "1", server.url("x"), allow_private=True) is None
        assert run(tmp_path / "2", server.url("x").replace("127.0.0.1", "localhost"), allow_private=True) is None


def naming(*answers: list[str]) -> tuple[Resolve, list[str]]:
    """Return a resolver that gives one answer after the other, and what it was asked."""
    asked: list[str] = []

    async def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return answers[min(len(asked), len(answers)) - 1]

    return resolve, asked


@pytest.mark.parametrize(
    "addresses", [["127.0.0.1"], ["8.8.8.8", "127.0.0.1"], ["::ffff:10.1.2.3"], ["169.254.169.254"]]
)
def test_a_name_with_any_private_address_is_refused(tmp_path: Path, addresses: list[str]) -> None:
    with serving(x=ok) as server:
        resolver, asked = naming(addresses)
        assert run(tmp_path, f"http://shop.example:{server.server_address[1]}/x", resolver) == "private_address"
        assert asked == ["shop.example"]
        assert not server.hits


def test_the_address_that_was_checked_is_the_one_connected_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is public when asked and private when asked again (DNS rebinding) gains nothing."""
    monkeypatch.setattr("msr_adapter.data.images.download.addresses.is_public", lambda address: address == "127.0.0.1")
    with serving(x=ok) as server:
        resolver, asked = naming(["127.0.0.1"], ["10.0.0.1"])
        assert run(tmp_path, f"http://shop.example:{server.server_address[1]}/x", resolver) is None
        assert asked == ["shop.example"]
        assert server.hits == {"/x": 1}


def test_the_next_address_is_tried_when_the_first_does_not_answer(tmp_path: Path) -> None:
    with serving(x=ok) as server:
        resolver, _ = naming(["127.0.0.2", "127.0.0.1"])
        url = f"http://shop.example:{server.server_address[1]}/x"
        assert run(tmp_path, url, resolver, allow_private=True) is None


@pytest.mark.parametrize(
    "target", ["http://inside.example:{port}/x", "http://[::ffff:127.0.0.1]:{port}/x", "//10.0.0.1/x"]
)
def test_a_redirect_is_checked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    """The first host counts as public here; what it redirects to does not."""
    monkeypatch.setattr("msr_adapter.data.images.download.addresses.is_public", lambda address: address == "127.0.0.1")

    async def resolver(host: str, port: int) -> list[str]:
        return {"shop.example": ["127.0.0.1"], "inside.example": ["127.0.0.2"]}.get(host, [host])

    def redirect(handler: Handler) -> None:
        handler.send(b"", 302, Location=target.format(port=handler.server.server_address[1]))

    with serving(go=redirect, x=ok) as server:
        assert run(tmp_path, f"http://shop.example:{server.server_address[1]}/go", resolver) == "private_address"
        assert server.hits == {"/go": 1}


@pytest.mark.parametrize(
    ("error", "why"),
    [(socket.gaierror(socket.EAI_NONAME, "no"), "unknown_host"), (UnicodeError("label too long"), "bad_url"),
     (OSError("no more files"), "cut_short")],
)  # fmt: skip
def test_names_that_do_not_resolve(tmp_path: Path, error: Exception, why: str) -> None:
    async def resolver(host: str, port: int) -> list[str]:
        raise error

    assert run(tmp_path, "https://shop.example/x", resolver) == why


def test_a_proxy_in_the_environment_is_no_way_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(x=ok) as server:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, server.url(""))
        assert run(tmp_path, "http://10.0.0.1/x") == "private_address"
        assert not server.hits
