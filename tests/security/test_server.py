"""What servers say is not believed: no secret comes back out of it, and it has an end."""

import gzip
import io
import json
import re
import resource
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from msr_adapter.backends import http
from msr_adapter.backends.openai import ServerBackend
from msr_adapter.backends.reference_prompts import compare_prompts
from msr_adapter.config.schema import ModelConfig, ServerConfig
from msr_adapter.distributed.worker_messages import Raised
from msr_adapter.errors import StageError, UserError
from msr_adapter.generation import Completion, CompletionCache, Failure, Request
from msr_adapter.progress import Reporter
from msr_adapter.redaction import QUOTED, quoted, redact
from tests.support.paths import ROOT

KEY = "canary-4711-canary-4711-canary-4711"
Answer = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def serving(answer: Answer) -> Iterator[str]:
    """Serve on loopback what ``answer`` writes; yield the address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.close_connection = True
            try:
                answer(self)
            except (BrokenPipeError, ConnectionResetError):
                return

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)


def send(handler: BaseHTTPRequestHandler, data: bytes, status: int = 200, **headers: str) -> None:
    handler.send_response(status)
    for name, value in ({"Content-Length": str(len(data)), "Connection": "close"} | headers).items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(data)


def completion(text: Any, **changes: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"} | changes
    return json.dumps({"choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}).encode()


def model(url: str) -> ModelConfig:
    server = ServerConfig(url=url, key_variable="SHOP_ENTRY", retries=0, timeout=20, first_wait=0, longest_wait=0)
    return ModelConfig(path="served", backend="server", server=server)


def ask(url: str) -> Any:
    backend = ServerBackend(model(url))
    return backend.complete([Request(backend.identity, "prompt", max_new_tokens=9)])[0]


def compare(url: str) -> str:
    reference: Any = SimpleNamespace(
        encoder=object(), absent="", url=None, image_token=None, encode=lambda request: [1]
    )
    made = model(url)
    headers = {"Authorization": f"Bearer {KEY}"}
    return compare_prompts(made, made.server, reference, [Request("i", "p", max_new_tokens=1)], headers)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_ENTRY", KEY)


def echo(before: str, status: int) -> Answer:
    return lambda handler: send(handler, f"{before}{dict(handler.headers)}".encode(), status)


@pytest.mark.parametrize("before", ["", "x" * 260, *("x" * n for n in range(100, QUOTED, 9))])
def test_headers_that_tokenize_repeats_leave_no_part_of_the_key(before: str) -> None:
    with serving(echo(before, 422)) as url:
        said = compare(url)
    assert said.startswith("not verified (/tokenize does not take messages: status 422")
    assert "canary" not in said
    assert "anary-4711" not in said


@pytest.mark.parametrize("status", [400, 401, 500])
@pytest.mark.parametrize("length", [0, *range(240, QUOTED, 6)])
def test_a_key_across_the_cut_of_a_refusal_leaves_no_head(status: int, length: int) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        send(handler, ("x" * length + " " + handler.headers["Authorization"]).encode(), status)

    with serving(answer) as url:
        try:
            said = ask(url).reason
        except StageError as error:
            said = str(error)
    assert f"status {status}" in said
    assert "cana" not in said


def test_a_key_in_a_finish_reason_or_an_answer_is_left_out(tmp_path: Path) -> None:
    with serving(lambda handler: send(handler, completion("x", finish_reason="y" * 280 + KEY))) as url:
        refused = ask(url)
    assert isinstance(refused, Failure)
    assert "cana" not in refused.reason
    assert len(refused.reason) < 400
    with serving(lambda handler: send(handler, completion(f"I was told {handler.headers['Authorization']}!"))) as url:
        backend = ServerBackend(model(url))
        with CompletionCache(tmp_path / "c.sqlite") as cache:
            [answer] = cache.attempt(backend, [Request(backend.identity, "prompt", max_new_tokens=9)])
    assert isinstance(answer, Completion)
    assert answer.text == "I was told Bearer ***!"
    assert all(KEY.encode() not in path.read_bytes() for path in tmp_path.iterdir())


def test_a_key_that_cannot_be_sent_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_ENTRY", KEY + "\nX")
    with serving(lambda handler: send(handler, completion("x"))) as url:
        said = ask(url)
    assert isinstance(said, Failure)
    assert "cana" not in said.reason


@pytest.mark.parametrize(("text", "shown"), [
    ("Authorization: Bearer abc.def-123", "Authorization: Bearer ***"),
    ("{'authorization': 'Basic dXNlcjpwYXNz'}", "{'authorization': 'Basic ***'}"),
    ("{\"x-api-key\": \"s3cret\"}", "{\"x-api-key\": \"***\"}"),
    ("(b'Authorization', b'Bearer abcdefgh')", "(b'Authorization', b'Bearer ***')"),
    ("https://user:pa55@host/a?x=1", "https://***@host/a?x=1"),
    ("get https://host/a?api_key=abc&x=1&X-Amz-Signature=0f0f", "get https://host/a?api_key=***&x=1&X-Amz-Signature=***"),
    ("https://host/?access_token=abc#top", "https://host/?access_token=***#top"),
    ("max_tokens=5, the key is 'title': no; 12 tokens", "max_tokens=5, the key is 'title': no; 12 tokens"),
    ("http://127.0.0.1:8000/v1 at a@b.example", "http://127.0.0.1:8000/v1 at a@b.example"),
])  # fmt: skip
def test_headers_and_addresses_are_told_without_their_secrets(text: str, shown: str) -> None:
    assert redact(text) == shown


def test_redacting_comes_before_cutting() -> None:
    for length in range(QUOTED + 20):
        said = quoted("x" * length + KEY, [KEY])
        assert len(said) <= QUOTED
        assert "c" not in said


def test_secrets_of_the_environment_reach_no_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_canarycanary")
    log, console = tmp_path / "run.log", Console(record=True, file=io.StringIO())
    Reporter(log=log, console=console).note("the hub said: hf_canarycanary is no token")
    assert "canary" not in log.read_text() + console.export_text()
    assert "canary" not in Raised.of(1, ValueError("hf_canarycanary")).trace


@pytest.mark.parametrize("url", ["http://me:pa55word@host/v1", "https://host/v1?api_key=abcdef"])
def test_an_address_with_a_secret_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="key_variable"):
        ServerConfig(url=url)


def bomb(handler: BaseHTTPRequestHandler) -> None:
    """Send 13 MB that unpack to 13 GB: one block of 64 MiB, packed, again and again."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    handler.send_response(200)
    handler.send_header("Content-Encoding", "gzip")
    handler.end_headers()
    block = bytes(2**24)
    for _ in range(200):
        handler.wfile.write(packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH))


def endless(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    for _ in range(3 * 1024):
        handler.wfile.write(bytes(2**20))


def announced(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(3 * 2**30))
    handler.end_headers()
    handler.wfile.write(bytes(2**20))


def refused(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(401)
    handler.end_headers()
    for _ in range(3 * 1024):
        handler.wfile.write(bytes(2**20))


@pytest.mark.parametrize("answer", [bomb, endless, announced, refused])
@pytest.mark.parametrize("way", [ask, compare])
def test_a_body_that_is_too_large_is_a_failure_and_takes_no_memory(answer: Answer, way: Callable[[str], Any]) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with serving(answer) as url:
        said = way(url)
    assert "larger than 16 MiB" in str(said.reason if isinstance(said, Failure) else said)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400 * 1024


@pytest.mark.parametrize(("data", "encoding", "said"), [
    (b"\x1f\x8bnot gzip at all", "gzip", "cannot be decompressed"),
    (gzip.compress(completion("x"))[:-20], "gzip", "is incomplete"),
    (b"whatever", "br", "compresses its answer"),
    (b'{"a":' * 900 + b"1" + b"}" * 900, "identity", "not an answer"),
    (b"[" * 500_000 + b"]" * 500_000, "identity", "not an answer"),
    (completion("x").replace(b": 1}", b": 1e999}"), "identity", "not an answer"),
    (completion("x").replace(b": 1}", b": 99999999999999}"), "identity", "not an answer"),
    (completion("\ud800"), "identity", "not an answer"),
    (completion("x", finish_reason=["stop"]), "identity", "finish_reason"),
])  # fmt: skip
def test_damaged_and_deep_answers_are_failures(data: bytes, encoding: str, said: str) -> None:
    with serving(lambda handler: send(handler, data, Content_Encoding=encoding)) as url:
        answer = ask(url)
        compared = compare(url)
    assert isinstance(answer, Failure)
    assert said in answer.reason
    assert compared.startswith("not verified")


@pytest.mark.parametrize("data", [b"[" * 500_000, b'{"error": ' * 900 + b"1" + b"}" * 900])
def test_a_deep_refusal_is_quoted_and_cut(data: bytes) -> None:
    with serving(lambda handler: send(handler, data, 400)) as url:
        answer = ask(url)
    assert answer.reason.startswith("status 400")
    assert len(answer.reason) < 400


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "identity"])
def test_packed_answers_are_read(encoding: str) -> None:
    pack = {"gzip": gzip.compress, "deflate": zlib.compress, "identity": bytes}[encoding]
    with serving(lambda handler: send(handler, pack(completion("fine")), Content_Encoding=encoding)) as url:
        answer = ask(url)
    assert isinstance(answer, Completion)
    assert answer.text == "fine"


def test_a_tokenise_endpoint_that_trickles_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "time", SimpleNamespace(monotonic=iter([0.0, 99.0, 99.0]).__next__))
    with serving(lambda handler: send(handler, b'{"tokens": [1]}')) as url:
        assert compare(url) == "not verified (/tokenize cannot be read: no answer in time)"


def test_a_problem_is_printed_without_its_secret(capsys: pytest.CaptureFixture[str]) -> None:
    import typer

    from msr_adapter.cli.common import exit_codes
    from msr_adapter.errors import Problem

    with pytest.raises(typer.Exit), exit_codes(as_json=True):
        raise UserError(Problem("", "url", "https://me:canary@host/", "", "canary is hidden at https://a:canary@host"))
    out = capsys.readouterr()
    assert "canary@" not in out.out + out.err


def test_failed_downloads_are_listed_redacted(tmp_path: Path) -> None:
    from msr_adapter.config.schema import ImagesConfig
    from msr_adapter.data.images.download.folder import fetch_into
    from msr_adapter.data.images.download.request import DownloadPolicy

    wanted = {"1": "ftp://me:canary@host/x.jpg?access_token=canary"}
    fetch_into(tmp_path, wanted, DownloadPolicy(limits=ImagesConfig()), Reporter(quiet=True))
    assert "canary" not in (tmp_path / "fetch-failures.csv").read_text()
    assert "ftp://***@host/x.jpg?access_token=***" in (tmp_path / "fetch-failures.csv").read_text()


def test_every_line_of_the_security_document_names_tests_that_exist() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:[\w/]+/)?test_\w+\.py)::(test_\w+)`", text)
    assert len(named) > 20
    assert [one for one in named if f"def {one[1]}(" not in (ROOT / "tests" / one[0]).read_text(encoding="utf-8")] == []
    lines = re.split(r"^- ", text, flags=re.MULTILINE)[1:]
    assert [line for line in lines if "::test_" not in line] == []
