"""The server backend against a local endpoint that misbehaves in every way a real one does."""

import base64
import io
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as PillowImage
from pydantic import ValidationError

from msr_adapter.backends import make_backend
from msr_adapter.backends.http import Attempts
from msr_adapter.backends.openai import ServerBackend
from msr_adapter.config.schema import ModelConfig, ServerConfig
from msr_adapter.errors import StageError
from msr_adapter.generation import Completion, CompletionCache, Failure, Image, Request
from msr_adapter.llamafactory.model_weights import Weights
from tests.support.misbehaving_server import Served, serving


def model(served: Served, **server: object) -> ModelConfig:
    quick = {"url": served.url, "first_wait": 0.01, "longest_wait": 0.05, "timeout": 5, "retries": 3}
    return ModelConfig(path="served", backend="server", server=ServerConfig.model_validate(quick | server))


def asks(backend: ServerBackend, *prompts: str) -> list[Request]:
    return [Request(backend.identity, prompt, max_new_tokens=9) for prompt in prompts]


def test_answers_come_in_order_with_their_tokens() -> None:
    with serving(lambda prompt, attempt: "slow 0.02") as served:
        backend = ServerBackend(model(served, concurrency=3))
        requests = asks(backend, *(f"prompt {number}" for number in range(20)))
        answers = backend.complete(requests)
    assert answers == [Completion(r.key, r.prompt[::-1], (), "stop", 7, 3) for r in requests]
    assert 1 < served.busiest <= 3
    assert {body["model"] for body in served.bodies} == {"served"}
    assert all(body["temperature"] == 0 and body["max_tokens"] == 9 for body in served.bodies)
    assert served.authorizations == [None] * 20


PASSING = (
    "drop", "429", "429 after 0", "500", "502", "503 after 0.01", "half", "slow 2",
    "malformed", "malformed {}", "malformed []",
    'malformed {"choices": [{"message": {"content": 5}, "finish_reason": "stop"}]}',
)  # fmt: skip


@pytest.mark.parametrize("fault", PASSING)
def test_a_passing_fault_is_survived(fault: str) -> None:
    def plan(prompt: str, attempt: int) -> str:
        return fault if prompt == "b" and attempt < 2 else "ok"

    with serving(plan) as served:
        backend = ServerBackend(model(served, timeout=0.4))
        answers = backend.complete(asks(backend, "a", "b", "c"))
    assert [answer.text for answer in answers if isinstance(answer, Completion)] == ["a", "b", "c"]
    assert served.attempts == {"a": 1, "b": 3, "c": 1}


def test_a_lasting_fault_fails_its_request_alone_and_is_asked_again_by_the_next_run(tmp_path: Path) -> None:
    with serving(lambda prompt, attempt: "500" if prompt == "b" else "ok") as served:
        backend = ServerBackend(model(served, retries=2))
        requests = asks(backend, "a", "b", "c")
        with CompletionCache(tmp_path / "c.sqlite") as cache:
            answers = cache.attempt(backend, requests)
            assert cache.stats == (0, 2, 1)
        assert answers[1] == Failure(requests[1].key, "status 500: no (3 attempts)")
        assert served.attempts == {"a": 1, "b": 3, "c": 1}
        served.plan = lambda prompt, attempt: "ok"
        with CompletionCache(tmp_path / "c.sqlite") as cache:
            answers = cache.attempt(backend, requests)
            assert cache.stats == (2, 1, 0)
    assert [answer.text for answer in answers if isinstance(answer, Completion)] == ["a", "b", "c"]


@pytest.mark.parametrize(("behaviour", "reason"), [
    ("400", "status 400: no"), ("413", "status 413: no"),
    ("finish content_filter", "the server ended the answer with finish_reason 'content_filter'"),
])  # fmt: skip
def test_a_refusal_of_one_request_is_not_repeated(behaviour: str, reason: str) -> None:
    with serving(lambda prompt, attempt: behaviour if prompt == "b" else "ok") as served:
        backend = ServerBackend(model(served))
        answers = backend.complete(asks(backend, "a", "b"))
    assert [answer.reason for answer in answers if isinstance(answer, Failure)] == [reason]
    assert served.attempts["b"] == 1


def test_an_answer_cut_at_the_budget_says_so() -> None:
    with serving(lambda prompt, attempt: "finish length") as served:
        backend = ServerBackend(model(served))
        [answer] = backend.complete(asks(backend, "a"))
    assert isinstance(answer, Completion)
    assert answer.finish_reason == "length"


@pytest.mark.parametrize(("status", "step"), [(401, "key_variable"), (403, "a key that may"), (404, "server.url")])
def test_a_refused_key_or_address_stops_at_once_and_the_key_is_never_shown(
    status: int, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_KEY", "canary-4711")
    with serving(lambda prompt, attempt: f"key {status}") as served:
        backend = ServerBackend(model(served, key_variable="SHOP_KEY", concurrency=1))
        with pytest.raises(StageError, match=step) as caught:
            backend.complete(asks(backend, *"abcdefgh"))
    assert served.authorizations[0] == "Bearer canary-4711"
    assert sum(served.attempts.values()) == 1
    assert "canary" not in str(caught.value)
    assert "***" in str(caught.value)


def test_a_key_that_a_server_repeats_reaches_no_failure_and_no_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_KEY", "canary-4711")
    with serving(lambda prompt, attempt: "key 400" if prompt == "b" else "ok") as served:
        backend = ServerBackend(model(served, key_variable="SHOP_KEY"))
        with CompletionCache(tmp_path / "c.sqlite") as cache:
            answers = cache.attempt(backend, asks(backend, "a", "b"))
    assert [answer.reason for answer in answers if isinstance(answer, Failure)] == [
        "status 400: Incorrect key: Bearer ***"
    ]
    written = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"answer" not in written or b"canary" not in written
    assert b"canary" not in written
    assert "canary" not in backend.identity + backend.label


def test_a_server_that_is_not_there_stops_with_its_address() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        backend = ServerBackend(model(Served(url=url), retries=1))
        with pytest.raises(StageError, match=rf"{url}: none of 2 requests was answered(.|\n)*model\.server\.url"):
            backend.complete(asks(backend, "a", "b"))


@pytest.mark.parametrize("behaviour", ["400", "500", "drop", "finish content_filter"])
def test_a_failure_that_stands_alone_is_still_the_failure_of_one_request(behaviour: str) -> None:
    with serving(lambda prompt, attempt: behaviour) as served:
        backend = ServerBackend(model(served, retries=1))
        [answer] = backend.complete(asks(backend, "a"))
    assert isinstance(answer, Failure)


def test_redirects_are_not_followed_with_the_key() -> None:
    with serving(lambda prompt, attempt: "302") as served:
        backend = ServerBackend(model(served))
        [answer] = backend.complete(asks(backend, "a"))
    assert isinstance(answer, Failure)
    assert answer.reason == "status 302: no"
    assert served.attempts == {"a": 1}


@pytest.mark.parametrize(("suffix", "mime"), [("jpg", "image/jpeg"), ("png", "image/png"), ("webp", "image/png")])
def test_images_go_as_data_urls_where_their_placeholder_stands(tmp_path: Path, suffix: str, mime: str) -> None:
    path = tmp_path / f"cover.{suffix}"
    PillowImage.new("RGB", (8, 6), (200, 30, 40)).save(path)
    with serving() as served:
        backend = ServerBackend(model(served))
        request = Request(backend.identity, "Look: <image> Describe it.", (Image(path, "d"),), max_new_tokens=4)
        backend.complete([request])
    before, shown, after = served.bodies[0]["messages"][0]["content"]
    assert (before, after) == ({"type": "text", "text": "Look: "}, {"type": "text", "text": " Describe it."})
    head, _, data = shown["image_url"]["url"].partition(",")
    assert head == f"data:{mime};base64"
    with PillowImage.open(io.BytesIO(base64.b64decode(data))) as sent:
        assert sent.size == (8, 6)
    if suffix != "webp":
        assert base64.b64decode(data) == path.read_bytes()


@pytest.mark.parametrize("damage", ["absent", "no webp"])
def test_an_unreadable_image_fails_its_request_alone(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "cover.webp"
    if damage == "no webp":
        path.write_bytes(b"no image")
    with serving() as served:
        backend = ServerBackend(model(served))
        bad = Request(backend.identity, "<image>", (Image(path, "d"),), max_new_tokens=4)
        answers = backend.complete([bad, *asks(backend, "a")])
    assert isinstance(answers[0], Failure)
    assert answers[0].reason.startswith("image cannot be read")
    assert isinstance(answers[1], Completion)


def test_the_system_text_is_sent_and_is_part_of_the_identity() -> None:
    with serving() as served:
        plain = model(served)
        spoken = plain.model_copy(update={"default_system": "Be brief."})
        backend = ServerBackend(spoken)
        backend.complete(asks(backend, "a"))
    assert served.bodies[0]["messages"][0] == {"role": "system", "content": "Be brief."}
    assert ServerBackend(spoken).identity != ServerBackend(plain).identity


def test_speed_settings_are_no_part_of_the_identity_and_the_address_is() -> None:
    served = Served(url="http://one.example/v1")
    one = ServerBackend(model(served))
    assert one.identity == ServerBackend(model(served, concurrency=99, retries=0, key_variable="X")).identity
    assert one.identity != ServerBackend(model(Served(url="http://two.example/v1"))).identity


def test_scoring_is_refused() -> None:
    backend = ServerBackend(model(Served(url="http://one.example/v1")))
    with pytest.raises(StageError, match="asked to score answers"):
        backend.complete([Request(backend.identity, "p", choices=("Yes", "No"))])


def test_a_server_needs_an_address_and_takes_no_weights(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"needs server\.url"):
        ModelConfig(path="m", backend="server")
    with pytest.raises(ValidationError):
        ServerConfig(url="localhost:8000")
    with pytest.raises(ValueError, match="trained weights"):
        make_backend(model(Served(url="http://one.example/v1")), Weights(tmp_path))


@given(st.integers(0, 40), st.none() | st.floats(0, 1e9))
def test_no_pause_is_longer_than_allowed(attempt: int, asked: float | None) -> None:
    server = ServerConfig(url="http://x", first_wait=1, longest_wait=60)
    pause = Attempts(server)._pause(attempt, asked)
    assert 0 <= pause <= 66
    if asked is not None:
        assert pause >= min(60, asked)
