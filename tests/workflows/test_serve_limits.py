"""What `msr serve` refuses, and that it loses nothing: overload, time-outs, clients that go away, tokens, nonsense."""

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from msr_adapter.backends.scripted import ScriptedBackend
from msr_adapter.errors import StageError, UserError
from msr_adapter.generation import Follow, Request, ends_there
from msr_adapter.workflows.serve import Batching, RequestLimits, ServeSettings
from msr_adapter.workflows.serve.messages import FIELDS
from msr_adapter.workflows.serve.request_queue import QueueClosedError, QueueFullError, RequestQueue, Ticket
from msr_adapter.workflows.serve.settings import read_token, setting_problems
from msr_adapter.workflows.serve.work import Candidate, UserWork
from tests.support.recommending import TAKEN, own_run, trained, write_pipeline
from tests.support.serving import Served, listening, serve_folder, served, wait_until

TOKEN = "0123456789abcdef-secret"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("pipeline")
    write_pipeline(folder)
    with trained(folder):
        yield folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    return own_run(finished, tmp_path)


@pytest.fixture(scope="module")
def server(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(serve_folder(own_run(finished, tmp_path_factory.mktemp("served")))) as found:
        yield found


class Held:
    """A model that waits with its scores until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go, self.batches = threading.Event(), list[int]()
        whole = ScriptedBackend.complete

        def held(backend: ScriptedBackend, requests: Sequence[Request], follow: Follow = ends_there) -> list[Any]:
            if requests and requests[0].choices and requests[0].prompt != "A summary":
                self.batches.append(len(requests))
                assert self.go.wait(30)
            return whole(backend, requests, follow)

        self._patch = lambda: monkeypatch.setattr(ScriptedBackend, "complete", held)

    def hold(self) -> None:
        self._patch()


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    found = Held(monkeypatch)
    yield found
    found.go.set()


def body(number: int) -> dict[str, Any]:
    return {"history": ["a", "b", "cdefghij"[number % 8]], "candidates": ["popular:6", "all"][number // 8 % 2]}


async def asked(server: Served, bodies: Sequence[Any], path: str = "/v1/recommend") -> list[httpx.Response]:
    return list(await asyncio.gather(*(server.client.ask("POST", path, json=one) for one in bodies)))


def test_overload_is_refused_and_every_other_answer_is_right(folder: Path, held: Held) -> None:
    limits = RequestLimits(queue=4)
    with served(serve_folder(folder), limits=limits, batching=Batching(0, 512, 2)) as server:
        expected = {number: server.post("/v1/recommend", body(number)) for number in range(8)}
        held.hold()

        async def crowd() -> list[httpx.Response]:
            first = asyncio.ensure_future(asked(server, [body(0) | {"history": ["c", "d"]}]))
            while not held.batches:
                await asyncio.sleep(0.005)
            rest = asyncio.ensure_future(asked(server, [body(number) for number in range(8)]))
            while server.run.metrics.registry.get_sample_value("msr_refusals_total", {"reason": "queue full"}) != 4:
                await asyncio.sleep(0.005)
            held.go.set()
            return [*await first, *await rest]

        found = asyncio.run(crowd())[1:]
        refused = [one for one in found if one.status_code == 429]
        assert len(refused) == 4
        for one in refused:
            assert int(one.headers["Retry-After"]) >= 1
            assert "4 requests wait already" in one.json()["error"]["message"]
        for number, one in enumerate(found):
            if one.status_code != 429:
                assert (one.status_code, one.json()) == (200, expected[number])
        assert server.metric("msr_queue_length") == 0


def test_requests_of_several_clients_are_one_call_of_the_model(folder: Path, held: Held) -> None:
    with served(serve_folder(folder), batching=Batching(window_ms=0)) as server:
        held.hold()

        async def crowd() -> list[httpx.Response]:
            first = asyncio.ensure_future(asked(server, [{"history": ["c", "d"], "candidates": ["a"]}]))
            while not held.batches:
                await asyncio.sleep(0.005)
            histories = [[one, other] for one in "abc" for other in "defg"]
            bodies = [{"history": history, "candidates": ["h", "i", "j"]} for history in histories]
            rest = asyncio.ensure_future(asked(server, bodies))
            while len(server.run.engine.queue) < len(bodies):
                await asyncio.sleep(0.005)
            held.go.set()
            return [*await first, *await rest]

        assert {one.status_code for one in asyncio.run(crowd())} == {200}
    assert held.batches == [1, 36]


def test_a_request_that_takes_too_long_ends_alone(folder: Path, held: Held) -> None:
    limits = RequestLimits(timeout_s=0.4)
    with served(serve_folder(folder), limits=limits) as server:
        held.hold()
        late = server.post("/v1/recommend", body(1), 504)["error"]
        assert late["message"].startswith("no answer within 0.4 s")
        held.go.set()
        assert server.post("/v1/recommend", body(2))["items"]


def test_a_client_that_goes_away_costs_nothing(folder: Path, held: Held) -> None:
    with served(serve_folder(folder)) as server, listening(server) as url:
        held.hold()

        async def leave() -> None:
            async with httpx.AsyncClient(base_url=url, timeout=30) as client:
                stays = asyncio.ensure_future(client.post("/v1/recommend", json=body(0)))
                while not held.batches:
                    await asyncio.sleep(0.005)
                leaves = [asyncio.ensure_future(client.post("/v1/recommend", json=body(one))) for one in (1, 2, 3)]
                while len(server.run.engine.queue) < 3:
                    await asyncio.sleep(0.005)
                for one in leaves:
                    one.cancel()
                while len(server.run.engine.queue):
                    await asyncio.sleep(0.005)
                held.go.set()
                assert (await stays).status_code == 200

        asyncio.run(leave())
        wait_until(lambda: server.gate.under_way == 0)
    assert len(held.batches) == 1  # what nobody waited for was never scored


def test_one_request_that_the_model_cannot_answer_harms_no_other(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(serve_folder(folder), batching=Batching(window_ms=300)) as server:
        whole = ScriptedBackend.complete

        def fragile(backend: ScriptedBackend, requests: Sequence[Request], follow: Follow = ends_there) -> list[Any]:
            if any("poison" in request.prompt for request in requests):
                raise StageError("a prompt does not fit the memory", "it is poison", "leave it out")
            return whole(backend, requests, follow)

        monkeypatch.setattr(ScriptedBackend, "complete", fragile)
        pairs = [[{"summary": text, "item_id": "a"}] for text in ("likes ships", "poison", "likes maps")]
        found = asyncio.run(asked(server, [{"pairs": one} for one in pairs], "/v1/score"))
    assert [one.status_code for one in found] == [200, 503, 200]
    assert found[1].json()["error"]["message"] == "a prompt does not fit the memory (it is poison). leave it out"


def test_a_token_is_asked_for_and_never_told(finished: Path, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with served(serve_folder(folder), token=TOKEN) as server:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}, {"Authorization": "Bearer é"}):
            raw = {name: value.encode() for name, value in headers.items()}
            response = server.client.get("/v1/info", headers=raw)
            assert response.status_code == 401
            assert response.headers["WWW-Authenticate"] == "Bearer"
            assert TOKEN not in response.text
        assert server.client.get("/metrics").status_code == 401
        for path in ("/healthz", "/readyz", "/", "/openapi.json"):
            assert server.client.get(path).status_code == 200
        assert server.client.get("/v1/info", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
    told = capfd.readouterr()
    assert TOKEN not in told.out + told.err


def test_other_names_of_this_machine_are_refused(server: Served) -> None:
    response = server.client.get("/v1/info", headers={"Host": "evil.example"})
    assert (response.status_code, response.json()["error"]["problems"][0]["field"]) == (421, "Host")
    for name in ("localhost:8000", "127.0.0.1", "[::1]:8000"):
        assert server.client.get("/v1/info", headers={"Host": name}).status_code == 200


def test_a_server_that_stops_refuses_aloud(folder: Path) -> None:
    with served(serve_folder(folder)) as server:
        server.gate.stopping = True
        refused = server.client.post("/v1/recommend", json=body(0))
        assert (refused.status_code, refused.headers["connection"]) == (503, "close")
        assert server.get("/readyz", 503) == {"status": "stopping"}
        assert server.get("/healthz") == {"status": "ok"}


def test_a_body_that_is_too_large_is_refused_unread(folder: Path) -> None:
    with served(serve_folder(folder), limits=RequestLimits(body_bytes=200, candidates=3)) as server:
        large = server.post("/v1/recommend", {"history": ["a"] * 100}, 413)["error"]
        assert large["message"] == "the body is too large; at most 200 bytes"

        async def parts() -> Any:
            for _ in range(100):
                yield b'{"user_id": "u1"'

        headers = {"Content-Type": "application/json"}
        response = asyncio.run(server.client.ask("POST", "/v1/recommend", content=parts(), headers=headers))
        assert response.status_code == 413
        many = server.post("/v1/recommend", {"history": ["a"], "candidates": list("bcde")}, 422)["error"]
        assert many["message"] == "candidates: 4 of them; at most 3 in one request. Send several requests"


BAD = [
    ("/v1/recommend", "{", 400), ("/v1/recommend", "", 422), ("/v1/recommend", "[]", 422),
    ("/v1/recommend", "[" * 20_000, 400), ("/v1/recommend", '{"k": ' + "9" * 5_000 + "}", 400),
    ("/v1/recommend", '{"user_id": 5}', 422), ("/v1/recommend", '{"user_id": "\\ud800"}', 422),
    ("/v1/recommend", '{"user_id": "u1", "k": 2.5}', 422),
    ("/v1/recommend", '{"user_id": "u1", "k": true}', 422), ("/v1/recommend", '{"user_id": "u1", "k": 0}', 422),
    ("/v1/recommend", '{"user_id": "u1", "top": 3}', 422), ("/v1/recommend", "{}", 422),
    ("/v1/recommend", '{"user_id": "nobody"}', 404), ("/v1/recommend", '{"history": ["zz"]}', 422),
    ("/v1/recommend", '{"user_id": "u1", "candidates": []}', 422),
    ("/v1/recommend", '{"user_id": "u1", "candidates": "popular:9"}', 422),
    ("/v1/recommend", '{"user_id": "u1", "candidates": {"a": 1}}', 422),
    ("/v1/recommend", '{"history": [{"item_id": "a", "timestamp": 1700000000}]}', 422),
    ("/v1/recommend", '{"history": [{"item_id": "a", "timestamp": "2024-01-01"}]}', 422),
    ("/v1/recommend", '{"history": ["b", {"item_id": "a", "timestamp": 1700000000000}]}', 422),
    ("/v1/score", '{"pairs": []}', 422), ("/v1/score", '{"pairs": [{"user_id": "u1"}]}', 422),
    ("/v1/score", '{"pairs": [{"item_id": "a"}]}', 422),
    ("/v1/score", '{"pairs": [{"user_id": "x", "item_id": "a"}]}', 404),
    ("/v1/rerank", '{"query": "", "documents": ["a"]}', 422), ("/v1/rerank", '{"query": "x"}', 422),
    ("/v1/rerank", '{"query": "{\\"user_id\\": 3}", "documents": ["a"]}', 422),
    ("/v1/rerank", '{"query": {"history": []}, "documents": ["a"]}', 422),
    ("/v1/recommend", '{"user_id": "u1", "user_id": "u2"}', 400), ("/v1/recommend", '{"k": 1, "k": 1}', 400),
    ("/v1/score", '{"pairs": [{"item_id": "a", "user_id": "u1", "item_id": "b"}]}', 400),
    ("/v1/recommend", '{"user_id": "u1", "k": NaN}', 400), ("/v1/recommend", '{"user_id": "u1", "k": -Infinity}', 400),
    ("/v1/recommend", '{"user_id": "u1", "k": 1e400}', 422), ("/v1/recommend", '{"user_id": "u1", "k": 1e3}', 422),
    ("/v1/recommend", '{"user_id": "u1", "k": ' + "9" * 400 + "}", 422),
    ("/v1/recommend", '{"history": [{"item_id": "a", "timestamp": ' + "9" * 400 + "}]}", 422),
    ("/v1/recommend", '{"history": [{"item_id": "a", "timestamp": -1}]}', 422),
    ("/v1/recommend", '{"history": [{"item_id": "a", "timestamp": "99999-01-01T00:00:00Z"}]}', 422),
    ("/v1/recommend", '{"history": [{"item_id": "a", "timestamp": true}]}', 422),
    ("/v1/recommend", '{"\\ud800": 1, "user_id": "u1"}', 422), ("/v1/recommend", '{"history": ["\\udfff"]}', 422),
    ("/v1/recommend", '{"user_id": "u1\\u0000"}', 404), ("/v1/recommend", '{"user_id": ""}', 422),
    ("/v1/recommend", '{"history": ' + "[" * 500 + "]" * 500 + "}", 422),
    ("/v1/recommend", '{"a":' * 500 + "1" + "}" * 500, 422), ("/v1/recommend", "[" * 100_000 + "]" * 100_000, 400),
    ("/v1/recommend", '{"user_id": "u1"} {}', 400), ("/v1/recommend", '{"user_id": "u1",}', 400),
    ("/v1/recommend", "{'user_id': 'u1'}", 400), ("/v1/recommend", '{"user_id": "u1" // mine\n}', 400),
    ("/v1/recommend", "null", 422), ("/v1/recommend", '"u1"', 422), ("/v1/recommend", '{"history": {"0": "a"}}', 422),
    ("/v1/recommend", '{"user_id": "' + "u" * 2_000 + '"}', 422), ("/v1/recommend", '{"unknown_users": "x"}', 422),
    ("/v1/score", '{"pairs": [{"summary": "\\ud83d", "item_id": "a"}]}', 422), ("/v1/score", '{"pairs": {}}', 422),
    ("/v1/score", '{"pairs": [{"summary": "x", "item_id": "a", "title": "b"}]}', 422),
    ("/v1/score", '{"pairs": [0]}', 422),
    ("/v1/rerank", '{"query": "{\\"user_id\\": \\"u1\\", \\"user_id\\": \\"u2\\"}", "documents": ["a"]}', 422),
    ("/v1/rerank", '{"query": ' + json.dumps('{"history": ' + "[" * 90_000) + ', "documents": ["a", "no id"]}', 422),
    ("/v1/rerank", '{"query": "x", "documents": [NaN]}', 400), ("/v1/rerank", '{"query": 1, "documents": "a"}', 422),
    ("/v1/rerank", '{"query": "x", "documents": [{"id": 1}]}', 422),
]  # fmt: skip


@pytest.mark.parametrize(("path", "text", "status"), BAD, ids=range(len(BAD)))
def test_what_is_wrong_is_said_in_one_sentence(server: Served, path: str, text: str, status: int) -> None:
    response = server.client.post(path, content=text.encode(), headers={"Content-Type": "application/json"})
    assert_refused(response, status)


@pytest.mark.parametrize(("method", "path", "status"), [
    ("GET", "/nowhere", 404), ("GET", "/v1/recommend", 405), ("DELETE", "/v1/users/u1", 405),
    ("GET", "/v1/users/x%00y", 404),
    ("GET", "/v1/users/nobody", 404), ("GET", "/v1/items/zz/image", 404), ("GET", "/v1/items?limit=0", 422),
    ("GET", "/v1/items/a/image", 404), ("GET", "/v1/items?limit=many", 422),
    ("GET", "/v1/users/u1?summary=perhaps", 422),
])  # fmt: skip
def test_addresses_are_refused_in_the_same_shape(server: Served, method: str, path: str, status: int) -> None:
    assert_refused(server.client.request(method, path), status)


def test_a_body_has_to_say_that_it_is_json(server: Served) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        assert_refused(server.client.post("/v1/recommend", content=b"{}", headers={"Content-Type": kind}), 415)
    assert_refused(
        server.client.post("/v1/recommend", content=b"\xff\xfe", headers={"Content-Type": "application/json"}), 400
    )


def raw(head: str, body: bytes = b"", path: str = "/v1/recommend") -> bytes:
    """Return a request as it goes over the wire; ``head`` are the lines after the first two."""
    return f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{head}\r\n\r\n".encode() + body


KIND = "Content-Type: application/json\r\n"
ASKED = b'{"user_id": "u1"}'
WIRED = {
    "chunks without end": (raw(f"{KIND}Transfer-Encoding: chunked", b"5\r\nhello\r\n"), b"408"),
    "less than announced": (raw(f"{KIND}Content-Length: 99", ASKED), b"408"),
    "a chunk of no size": (raw(f"{KIND}Transfer-Encoding: chunked", b"zz\r\n{}\r\n0\r\n\r\n"), b"400"),
    "a length that is none": (raw(f"{KIND}Content-Length: -1", ASKED), b"400"),
    "two lengths": (raw(f"{KIND}Content-Length: 17\r\nContent-Length: 2", ASKED), b"400"),
    "a length beyond all bounds": (raw(f"{KIND}Content-Length: {'9' * 30}", ASKED), b"4"),
    "packed": (raw(f"{KIND}Content-Encoding: gzip\r\nContent-Length: 17", ASKED), b"415"),
    "a form": (raw("Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 17", ASKED), b"415"),
    "no kind": (raw("Content-Length: 17", ASKED), b"415"),
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n", b"400"),
    "a header without end": (raw(f"{KIND}X-Long: {'x' * 200_000}"), b"4"),
    "bytes that are no text": (raw(f"{KIND}Content-Length: 17", ASKED, "/v1/users/%ff%fe"), b"405"),
}  # fmt: skip


def test_what_is_wrong_on_the_wire_is_told_and_nobody_is_kept_waiting(finished: Path, tmp_path: Path) -> None:
    with served(serve_folder(own_run(finished, tmp_path)), limits=RequestLimits(timeout_s=0.5)) as server:
        with listening(server) as url:
            for name, (sent, status) in WIRED.items():
                with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=20) as connection:
                    connection.sendall(sent)
                    told = b""
                    with contextlib.suppress(ConnectionResetError):  # what it did not read is thrown away
                        while part := connection.recv(65_536):
                            told += part
                assert told.startswith(b"HTTP/1.1 " + status), (name, told[:200])
                assert b"Traceback" not in told
            whole = {"Content-Type": "application/json"}
            assert httpx.post(f"{url}/v1/recommend", content=ASKED, headers=whole, timeout=30).status_code == 200
        wait_until(lambda: server.gate.under_way == 0)
        assert len(server.run.engine.queue) == 0


def assert_refused(response: httpx.Response, *statuses: int) -> None:
    assert response.status_code in (statuses or range(400, 500)), response.text
    error = response.json()["error"]
    assert error["status"] == response.status_code
    assert error["message"].strip()
    assert "\n" not in error["message"]
    assert "Traceback" not in error["message"]
    assert error["problems"]
    assert {tuple(one) for one in error["problems"]} == {("field", "found", "allowed", "next_step")}


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["u1", "a", "popular:6"])
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(sorted({name for names in FIELDS.values() for name in names}))
BODIES = st.dictionaries(NAMES | st.text(max_size=6), VALUES, max_size=4) | VALUES
PATHS = st.sampled_from(["/v1/recommend", "/v1/score", "/v1/rerank"])


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(PATHS, BODIES)
def test_whatever_is_sent_is_answered_or_refused_never_a_fault(server: Served, path: str, value: Any) -> None:
    text = json.dumps(value).encode("utf-8", "surrogatepass")
    response = server.client.post(path, content=text, headers={"Content-Type": "application/json"})
    if response.status_code != 200:
        assert_refused(response)


def test_the_queue_is_bounded_and_ordered() -> None:
    queue = RequestQueue(2, Batching(window_ms=0, pairs=3, requests=8))
    tickets = [Ticket([UserWork(TAKEN, [Candidate("x")] * size)]) for size in (2, 2)]  # type: ignore[arg-type]
    for one in tickets:
        queue.put(one)
    with pytest.raises(QueueFullError):
        queue.put(Ticket([]))
    assert queue.take() == tickets[:1]  # both together would be more than 3 pairs
    queue.drop(tickets[1])
    assert len(queue) == 0
    queue.close()
    assert queue.take() is None
    with pytest.raises(QueueClosedError):
        queue.put(Ticket([]))


def test_an_idle_server_waits_for_company_once() -> None:
    queue = RequestQueue(9, Batching(window_ms=10_000, pairs=2, requests=8))
    first, second = (Ticket([UserWork(TAKEN, [Candidate("x")])]) for _ in range(2))  # type: ignore[arg-type]
    queue.put(first)
    threading.Timer(0.05, queue.put, [second]).start()
    started = time.monotonic()
    assert queue.take() == [first, second]
    assert time.monotonic() - started < 9  # it was full before the window ended


def waiting(queue: RequestQueue, number: int) -> list[Ticket]:
    """Let requests wait that came long ago."""
    tickets = [Ticket([UserWork(TAKEN, [Candidate("x")])], entered=0.0) for _ in range(number)]  # type: ignore[arg-type]
    for one in tickets:
        queue.put(one)
    return tickets


def test_those_who_were_answered_are_waited_for_beside_those_who_came_meanwhile() -> None:
    """Else 8 clients who ask again at once would be answered in two halves, in turns."""
    queue = RequestQueue(99, Batching(window_ms=5_000, requests=8))
    waiting(queue, 8)
    assert len(queue.take() or ()) == 8
    waiting(queue, 6)
    threading.Timer(0.05, waiting, [queue, 1]).start()
    threading.Timer(0.1, waiting, [queue, 1]).start()
    assert len(queue.take() or ()) == 8


def test_a_wait_in_vain_is_not_repeated_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    queue = RequestQueue(99, Batching(window_ms=20, requests=8))
    waited: list[int] = []
    whole = RequestQueue._await_company

    def watched(queue: RequestQueue, expected: int, busy_s: float) -> bool:
        waited.append(expected)
        return whole(queue, expected, busy_s)

    monkeypatch.setattr(RequestQueue, "_await_company", watched)
    for number in (8, 3, 3, 3):
        waiting(queue, number)
        assert len(queue.take() or ()) == number
    assert waited == [8, 8 + 3]  # whoever comes first; the 8 beside the 3; then nobody for a while


def test_one_client_alone_waits_for_nobody() -> None:
    queue = RequestQueue(99, Batching(window_ms=60_000, requests=8))
    waiting(queue, 8)
    queue.take()
    queue._answered = 1
    threading.Timer(0.05, waiting, [queue, 1]).start()
    assert len(queue.take() or ()) == 1


def test_options_and_tokens_are_looked_at_first(tmp_path: Path) -> None:
    listed = tmp_path / "items.csv"
    listed.write_text("item_id\na\n")
    bad = ServeSettings(candidates=("popular:2000", str(listed), "popularity"))
    told = [str(one) for one in setting_problems(bad)]
    assert len(told) == 3
    assert "more than the 1,000 pairs" in told[0]
    assert read_token({}) is None
    with pytest.raises(UserError, match="16 or more"):
        read_token({"MSR_SERVE_TOKEN": "short"})
    assert ServeSettings(host="127.0.0.2").on_loopback
    assert not ServeSettings(host="0.0.0.0").on_loopback
    assert ServeSettings(host="0.0.0.0").hosts is None
