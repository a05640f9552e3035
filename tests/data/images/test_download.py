"""Downloads from a server that misbehaves: each way has its reason, and nothing half-written is ever left."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from PIL import Image

from msr_adapter.config.schema import ImagesConfig
from msr_adapter.data.images.download import DownloadPolicy, fetch_into
from msr_adapter.data.images.locate import DownloadedImage, image_key, read_download_index, read_downloads, safe_name
from msr_adapter.errors import UserError
from msr_adapter.progress import Reporter
from tests.support.image_server import Answer, Handler, Server, drip, endless, image_bytes, ok, serving, silent

QUICK: dict[str, Any] = {"retries": 2, "backoff_s": 0.01, "total_s": 20.0, "allow_private": True}


def fetch(folder: Path, wanted: dict[str, str], **settings: Any) -> dict[str, Any]:
    policy = DownloadPolicy(**{"limits": ImagesConfig(max_file_mb=1), **QUICK, **settings})
    return fetch_into(folder, wanted, policy, Reporter(quiet=True))


def reason(folder: Path, answer: Answer, path: str = "x.jpg", **settings: Any) -> tuple[str | None, int]:
    """Fetch one URL from a server with one answer; return why it failed and how often it was asked for."""
    with serving(x=answer) as server:
        fetch(folder, {"1": server.url(path)}, **settings)
        assert not [file for file in folder.iterdir() if file.suffix == ".tmp"]
        return read_download_index(folder)["1"].reason, server.hits[f"/{path}"]


def status(code: int, body: bytes = b"no", **headers: str) -> Answer:
    return lambda handler: handler.send(body, code, **headers)


def body(data: bytes, **headers: str) -> Answer:
    return lambda handler: handler.send(data, **headers)


def test_images_are_stored_as_sent_and_named_by_item_and_true_format(tmp_path: Path) -> None:
    jpeg, webp = image_bytes(kind="JPEG"), image_bytes(kind="WEBP")
    with serving(a=ok, b=body(jpeg, Content_Type="text/html"), c=body(webp), d=body(image_bytes(kind="GIF"))) as server:
        wanted = {"1": server.url("a.jpg"), "00B": server.url("b"), "../x": server.url("c.png"), "4": server.url("d")}
        report = fetch(tmp_path, wanted)
    index = read_download_index(tmp_path)
    assert [index[item].file for item in wanted] == ["1.png", "00B.jpg", f"{safe_name('../x')}.webp", "4.gif"]
    assert (tmp_path / "00B.jpg").read_bytes() == jpeg
    assert index["1"] == DownloadedImage("1", wanted["1"], "1.png", len(image_bytes()), index["1"].digest)
    assert report == {"wanted": 4, "there_already": 0, "fetched": 4, "failed": 0, "reasons": {},
                      "bytes": sum(one.bytes for one in index.values())}  # fmt: skip
    assert json.loads((tmp_path / "fetch-report.json").read_text()) == report


@pytest.mark.parametrize("code", [400, 401, 403, 404, 410, 501, 206, 304])
def test_what_will_not_change_is_asked_for_once(tmp_path: Path, code: int) -> None:
    assert reason(tmp_path, status(code)) == (f"http_{code}", 1)


@pytest.mark.parametrize("code", [408, 425, 429, 500, 502, 503, 504])
def test_what_may_change_is_asked_for_again(tmp_path: Path, code: int) -> None:
    assert reason(tmp_path, status(code)) == (f"http_{code}", 3)


def test_a_server_that_recovers(tmp_path: Path) -> None:
    def recovers(handler: Handler) -> None:
        ok(handler) if handler.hit == 3 else handler.send(b"", 500)

    assert reason(tmp_path, recovers) == (None, 3)
    assert (tmp_path / "1.png").read_bytes() == image_bytes()


def test_retry_after_is_obeyed(tmp_path: Path) -> None:
    times = []

    def busy(handler: Handler) -> None:
        times.append(time.monotonic())
        ok(handler) if handler.hit == 2 else handler.send(b"", 429, Retry_After="1")

    assert reason(tmp_path, busy) == (None, 2)
    assert times[1] - times[0] >= 1.0


def test_a_server_that_wants_a_longer_wait_than_ours_is_left_alone(tmp_path: Path) -> None:
    assert reason(tmp_path, status(429, Retry_After="3600")) == ("http_429", 1)


def test_too_slow_and_silent_servers(tmp_path: Path) -> None:
    assert reason(tmp_path / "drip", drip, total_s=0.3, retries=1) == ("timeout", 2)
    assert reason(tmp_path / "silent", silent, read_s=0.2, retries=1) == ("timeout", 2)


def test_too_large_bodies_announced_or_not(tmp_path: Path) -> None:
    assert reason(tmp_path / "endless", endless) == ("too_large", 1)

    def announced(handler: Handler) -> None:
        handler.send(b"x", length=2**20 + 1)
        handler.close_connection = True

    assert reason(tmp_path / "announced", announced) == ("too_large", 1)


def test_truncated_bodies_announced_or_not(tmp_path: Path) -> None:
    data = image_bytes(kind="JPEG", size=200)

    def announced(handler: Handler) -> None:
        handler.send(data[:100], length=len(data))
        handler.close_connection = True

    def unannounced(handler: Handler) -> None:
        handler.send(data[: len(data) // 2] if handler.hit < 3 else data)

    assert reason(tmp_path / "1", announced) == ("cut_short", 3)
    assert reason(tmp_path / "2", unannounced) == (None, 3)


@pytest.mark.parametrize(
    ("data", "why"),
    [(b"<html>gone</html>", "not_an_image"), (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not_an_image"),
     (b"", "empty"), (image_bytes()[:-30], "broken")],
)  # fmt: skip
def test_the_content_is_checked_by_decoding(tmp_path: Path, data: bytes, why: str) -> None:
    assert reason(tmp_path, body(data, Content_Type="image/jpeg"))[0] == why
    assert {file.name for file in tmp_path.iterdir()} == {
        ".fetch.lock", "fetched.jsonl", "fetch-failures.csv", "fetch-report.json"
    }  # fmt: skip


def test_packed_bodies_are_not_unpacked(tmp_path: Path) -> None:
    assert reason(tmp_path, body(b"\x1f\x8b", Content_Encoding="gzip")) == ("compressed", 1)


def redirect(to: str, code: int = 302) -> Answer:
    return lambda handler: handler.send(b"", code, Location=to)


def test_redirects_are_followed_to_a_limit(tmp_path: Path) -> None:
    with serving(hop=redirect("../a.png", 301), a=ok, loop=redirect("/loop")) as server:
        fetch(tmp_path, {"1": server.url("hop/1"), "2": server.url("loop")}, redirects=3)
        assert server.hits["/loop"] == 4
    index = read_download_index(tmp_path)
    assert (index["1"].file, index["2"].reason) == ("1.png", "too_many_redirects")
    assert index["1"].url == server.url("hop/1")


@pytest.mark.parametrize(
    ("to", "why"),
    [("file:///etc/passwd", "not_http"), ("ftp://127.0.0.1/x", "not_http"), ("gopher://a/1", "not_http"),
     ("javascript:alert(1)", "bad_url"), ("http://127.0.0.1:99999/", "bad_url")],
)  # fmt: skip
def test_redirects_to_other_schemes_are_not_followed(tmp_path: Path, to: str, why: str) -> None:
    assert reason(tmp_path, redirect(to)) == (why, 1)


@pytest.mark.parametrize(
    ("url", "why"),
    [("ftp://a/x.png", "not_http"), ("file:///etc/passwd", "not_http"), ("http://", "not_http"),
     ("http://127.0.0.1:99999/x", "bad_url"), ("http://a\0b/x", "bad_url"), ("http://[::1/x", "bad_url"),
     ("http://" + "a" * 70 + ".example/x", "bad_url"), ("http://a..b/x", "bad_url"), ("https://\n/x", "bad_url")],
)  # fmt: skip
def test_urls_that_are_none(tmp_path: Path, url: str, why: str) -> None:
    fetch(tmp_path, {"1": url})
    assert read_download_index(tmp_path)["1"].reason == why


def test_nobody_listens(tmp_path: Path) -> None:
    with Server() as closed:
        url = closed.url("x")
    fetch(tmp_path, {"1": url}, retries=1)
    assert read_download_index(tmp_path)["1"].reason == "no_connection"


def test_done_ones_are_skipped_failed_ones_retried_changed_ones_replaced(tmp_path: Path) -> None:
    def flaky(handler: Handler) -> None:
        ok(handler) if handler.hit == 2 else handler.send(b"", 404)

    blue = body(image_bytes("blue", "JPEG"))
    with serving(a=ok, b=flaky, c=blue) as server:
        wanted = {"1": server.url("a"), "2": server.url("b"), "3": server.url("a/3")}
        first = fetch(tmp_path, wanted)
        assert (first["fetched"], first["failed"], first["reasons"]) == (2, 1, {"http_404": 1})
        failures = pl.read_csv(tmp_path / "fetch-failures.csv", infer_schema=False).rows()
        assert failures == [("2", wanted["2"], "http_404")]
        (tmp_path / "3.png").unlink()
        wanted["1"] = server.url("c")
        second = fetch(tmp_path, wanted)
        assert (second["fetched"], second["there_already"], second["failed"]) == (3, 0, 0)
        assert server.hits == {"/a": 1, "/b": 2, "/a/3": 2, "/c": 1}
        assert read_download_index(tmp_path)["1"].file == "1.jpg"
        before = (tmp_path / "fetched.jsonl").stat().st_mtime_ns
        third = fetch(tmp_path, wanted)
        assert (third["fetched"], third["there_already"]) == (0, 3)
        assert (tmp_path / "fetched.jsonl").stat().st_mtime_ns == before
        assert server.hits.total() == 6
    assert (tmp_path / "fetch-failures.csv").read_text() == "item_id,url,reason\n"


def test_a_url_of_several_items_is_asked_for_once(tmp_path: Path) -> None:
    with serving(x=ok, y=status(404)) as server:
        wanted = {"1": server.url("x"), "2": server.url("y"), "3": server.url("x"), "4": server.url("y")}
        report = fetch(tmp_path, wanted)
        assert server.hits == {"/x": 1, "/y": 1}
    assert (report["fetched"], report["failed"], report["reasons"]) == (2, 2, {"http_404": 2})
    assert (tmp_path / "1.png").read_bytes() == (tmp_path / "3.png").read_bytes() == image_bytes()


def test_requests_at_a_time_are_limited_in_all_and_by_host(tmp_path: Path) -> None:
    def slow(handler: Handler) -> None:
        time.sleep(0.02)
        ok(handler)

    for settings, most in (({"per_host": 3, "workers": 8}, 3), ({"per_host": 8, "workers": 2}, 2)):
        with serving(x=slow) as server:
            fetch(tmp_path / str(most), {f"{n}": server.url(f"x/{n}") for n in range(24)}, **settings)
            assert server.most == most
            assert server.hits.total() == 24


def test_a_host_that_must_be_waited_for_does_not_hold_up_others(tmp_path: Path) -> None:
    order: list[str] = []

    def busy(handler: Handler) -> None:
        order.append("busy")
        ok(handler) if handler.hit == 2 else handler.send(b"", 503, Retry_After="1")

    def fine(handler: Handler) -> None:
        order.append("fine")
        ok(handler)

    with serving(b=busy) as one, serving(f=fine) as two:
        wanted = {"0": one.url("b")} | {
            f"{n}": two.url(f"f/{n}").replace("127.0.0.1", "localhost") for n in range(1, 6)
        }
        assert fetch(tmp_path, wanted, workers=1)["fetched"] == 6
    assert order == ["busy", *["fine"] * 5, "busy"]


KILLED = """
import sys
from pathlib import Path
from msr_adapter.config.schema import ImagesConfig
from msr_adapter.data.images.download import DownloadPolicy, fetch_into
from msr_adapter.progress import Reporter
folder, base = Path(sys.argv[1]), sys.argv[2]
wanted = {f"{n:03}": f"{base}{n}" for n in range(60)}
fetch_into(folder, wanted, DownloadPolicy(ImagesConfig(), per_host=2, allow_private=True), Reporter(quiet=True))
"""


def test_a_killed_download_goes_on(tmp_path: Path) -> None:
    def slow(handler: Handler) -> None:
        time.sleep(0.02)
        ok(handler)

    with serving(x=slow) as server:
        wanted = {f"{n:03}": server.url(f"x/{n}") for n in range(60)}
        child = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path), server.url("x/")], env=dict(os.environ))
        deadline = time.monotonic() + 60
        while len(list(tmp_path.glob("*.png"))) < 10 and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
        done = {item for item, one in read_download_index(tmp_path).items() if one.file}
        assert 5 <= len(done) < 60
        for path in tmp_path.glob("*.png"):
            with Image.open(path) as image:
                image.load()
        before = server.hits.copy()
        report = fetch(tmp_path, wanted)
        again = {path for path in server.hits if server.hits[path] > before[path]}
        assert again == {f"/x/{int(item)}" for item in wanted if item not in done}
    assert (report["there_already"], report["fetched"], report["failed"]) == (len(done), 60 - len(done), 0)
    assert {path.stem for path in tmp_path.glob("*.png")} == set(wanted)


def test_two_at_a_time_do_not_share_a_folder(tmp_path: Path) -> None:
    def second(handler: Handler) -> None:
        with pytest.raises(UserError, match=f"{tmp_path}: another `msr fetch-images` writes into it"):
            fetch(tmp_path, {"2": "http://127.0.0.1/"})
        ok(handler)

    assert reason(tmp_path, second, retries=0) == (None, 1)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        fetch(tmp_path / "file" / "x", {})


def test_images_that_were_not_downloaded_are_never_replaced_unasked(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(b"my own image")
    (tmp_path / ".2.png.abcdefgh.tmp").write_bytes(b"half")
    (tmp_path / ".mine.png.abcdefgh.tmp").write_bytes(b"not of an item")
    with serving(x=ok) as server:
        wanted = {"1": server.url("x/1"), "2": server.url("x/2")}
        assert fetch(tmp_path, wanted)["reasons"] == {"own_file": 1}
        assert fetch(tmp_path, wanted)["reasons"] == {"own_file": 1}
        assert (tmp_path / "1.png").read_bytes() == b"my own image"
        assert sorted(path.name for path in tmp_path.glob(".*.tmp")) == [".mine.png.abcdefgh.tmp"]
        (tmp_path / "1.png").write_bytes((tmp_path / "2.png").read_bytes())  # written by a killed command, not noted
        assert fetch(tmp_path, wanted)["failed"] == 0
        (tmp_path / "3.png").write_bytes(b"mine")
        assert fetch(tmp_path, {"3": server.url("x/3")}, overwrite=True)["fetched"] == 1
    assert (tmp_path / "3.png").read_bytes() == (tmp_path / "2.png").read_bytes()


def test_reports_of_somebody_else_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "fetch-failures.csv").write_text("mine")
    with pytest.raises(UserError, match="no image was downloaded into this folder yet"):
        fetch(tmp_path, {"1": "http://127.0.0.1/"})
    assert (tmp_path / "fetch-failures.csv").read_text() == "mine"


@pytest.mark.parametrize(
    "location",
    ["http://a\x00b/", "http://[::1", "http://a:99999999/", "http://xn--/", "//", "http://%zz@/", "http://\xff/"],
)
def test_a_redirect_with_a_bad_location_costs_one_image(location: str, tmp_path: Path) -> None:
    with serving(a=redirect(location, 302), b=ok) as server:
        report = fetch(tmp_path, {"1": server.url("a"), "2": server.url("b")})
    assert (report["fetched"], report["failed"]) == (1, 1)


def test_several_images_of_an_item_have_files_of_their_own(tmp_path: Path) -> None:
    with serving(a=ok, b=ok, c=ok) as server:
        wanted = {image_key("a", 1): server.url("a"), image_key("a", 2): server.url("b"),
                  image_key("a_2", 1): server.url("c")}  # fmt: skip
        report = fetch(tmp_path, wanted)
    assert (report["fetched"], report["failed"]) == (3, 0)
    assert sorted(path.name for path in tmp_path.glob("a*")) == ["a+2.png", "a.png", "a_2.png"]
    entries = read_downloads(tmp_path)
    assert {(one.item_id, one.number, one.file) for one in entries.values()} == {
        ("a", 1, "a.png"), ("a", 2, "a+2.png"), ("a_2", 1, "a_2.png"),
    }  # fmt: skip
