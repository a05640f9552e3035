"""Whatever a server answers is an answer, a `Failure` with a reason, or a `StageError`; no other exception, no hang.

Answers are made by a seeded generator: valid ones, with odd values in odd places, odd headers, cut and packed bodies.
"""

import asyncio
import gzip
import json
import random
import zlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from msr_adapter.backends.logprobs import ServerScoring
from msr_adapter.backends.openai import ServerBackend
from msr_adapter.backends.reference_prompts import ReferencePrompts, compare_prompts
from msr_adapter.config.schema import ImagesConfig, ModelConfig, ServerConfig
from msr_adapter.data.images.download.bucket_objects import BucketObjects
from msr_adapter.data.images.download.request import DownloadPolicy, FetchError, Sources, download
from msr_adapter.errors import StageError
from msr_adapter.generation import Completion, Failure, Request
from tests.support.image_server import image_bytes

ODD: list[Any] = [
    None,
    True,
    -1,
    0,
    10**30,
    float("inf"),
    float("nan"),
    -1e308,
    1e308,
    "",
    "x",
    "\ud800",
    "\x00",
    "9" * 5000,
    [],
    {},
    [[]],
    [None],
    {"": None},
    {"a": {"b": []}},
    "1e999",
    [1, "2", None],
    2**31,
    -(2**70),
    "\udfff\ud800",
    {"message": "\ud83d"},
]
TEXTS = {"1e999": '"@1e999@"', "-1e999": '"@-1e999@"', "deep": '"@deep@"', "digits": '"@digits@"'}
RAW = {'"@1e999@"': "1e999", '"@-1e999@"': "-1e999", '"@deep@"': "[" * 3000 + "]" * 3000, '"@digits@"': "9" * 5000}
HEADERS = [
    ("Content-Encoding", "gzip"),
    ("Content-Encoding", "deflate"),
    ("Content-Encoding", "br"),
    ("Content-Length", "-1"),
    ("Content-Length", "9" * 5000),
    ("Content-Length", "²"),
    ("Retry-After", "nan"),
    ("Retry-After", "1e999"),
    ("Retry-After", "9" * 400),
    ("Retry-After", "Mon, 99 Foo 0000"),
    ("Content-Type", "text/html; charset=\xff"),
    ("Content-Type", "a;charset=utf-99"),
    ("Content-Type", "a; charset=base64"),
    ("Content-Type", "a; charset=rot13"),
    ("Content-Type", "a; charset=idna"),
    ("Content-Type", "a; charset=undefined"),
    ("Retry-After", "Mon, 01 Jan 0001 00:00:00 +2359"),
    ("Location", "http://[::1"),
    ("Location", "//"),
    ("Location", "http://a:99999999/"),
    ("Location", "\xff\xfe"),
    ("Location", "http://\xff/"),
    ("Location", "http://xn--/"),
    ("Location", "http://" + "a" * 70_000),
    ("Location", "http://a\x00b/"),
    ("Location", "data:,x"),
    ("Location", "?" * 9),
    ("Location", "http://%zz@/"),
    ("Location", "http:///x"),
    ("Location", "http://\u202e.example/".encode().decode("latin-1")),
    ("Location", "http://user:pass@:80/"),
    ("Location", ""),
    ("Location", "http://a..b/"),
]
STATUS = [200] * 12 + [100, 199, 204, 301, 302, 307, 308, 400, 401, 404, 429, 500, 503, 599, 999]


def mutated(value: Any, chance: random.Random) -> Any:
    """Return a JSON value with an odd one somewhere in it."""
    if chance.random() < 0.2 or not isinstance(value, dict | list) or not value:
        return chance.choice([*ODD, *(f"@{name}@" for name in TEXTS)])
    if isinstance(value, dict):
        key = chance.choice(list(value))
        if chance.random() < 0.15:
            return {name: one for name, one in value.items() if name != key}
        return {**value, key: mutated(value[key], chance)}
    place = chance.randrange(len(value))
    return [mutated(one, chance) if at == place else one for at, one in enumerate(value)]


def response(valid: Any, chance: random.Random) -> httpx.Response:
    """Return a response that is odd in some way."""
    value = mutated(valid, chance) if chance.random() < 0.8 else valid
    text = json.dumps(value)
    for name, raw in RAW.items():
        text = text.replace(name, raw)
    data = text.encode("utf-8", "surrogatepass")
    headers = [chance.choice(HEADERS) for _ in range(chance.choice([0, 0, 0, 1, 2]))]
    pack = chance.random()
    if pack < 0.15:
        data, headers = gzip.compress(data), [*headers, ("Content-Encoding", "gzip")]
    elif pack < 0.2:
        data, headers = zlib.compress(data), [*headers, ("Content-Encoding", "deflate")]
    if chance.random() < 0.25:
        place = chance.randrange(len(data) + 1)
        data = chance.choice([data[:place], data[:place] + chance.randbytes(3) + data[place + 3 :], data + data])
    encoded = [(name.encode(), one.encode("latin-1")) for name, one in headers]
    status = chance.choice(STATUS)
    return httpx.Response(status, headers=encoded, stream=httpx.ByteStream(data))


def answering(monkeypatch: pytest.MonkeyPatch, valid: Any, chance: random.Random) -> None:
    transport = httpx.MockTransport(lambda _: response(valid, chance))
    for name in ("Client", "AsyncClient"):
        real = getattr(httpx, name)
        monkeypatch.setattr(httpx, name, lambda real=real, **options: real(transport=transport, **options))


def served() -> ModelConfig:
    server = ServerConfig(
        url="http://127.0.0.1:1/v1", retries=1, first_wait=0, longest_wait=0, timeout=20, concurrency=64
    )
    return ModelConfig(path="served", backend="server", server=server)


def ask_texts(monkeypatch: pytest.MonkeyPatch, chance: random.Random) -> str:
    message = {"role": "assistant", "content": "fine"}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    answering(monkeypatch, {"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}, chance)
    backend = ServerBackend(served())
    answer = backend.complete([Request(backend.identity, "prompt", max_new_tokens=9)])[0]
    return checked(answer)


def checked(answer: Any) -> str:
    """Return what an answer is, once it is certain that it can be kept."""
    if isinstance(answer, Failure):
        assert answer.reason
        answer.reason.encode()
        return "failure"
    assert isinstance(answer, Completion)
    answer.text.encode()
    assert all(0 <= tokens < 2**31 for tokens in (answer.tokens_in, answer.tokens_out))
    assert all(-1000 < value <= 1e-3 for value in answer.choice_logprobs)
    return "answer"


def ask_scores(monkeypatch: pytest.MonkeyPatch, chance: random.Random) -> str:
    given = [{"token": word, "logprob": value} for word, value in (("Yes", -0.5), ("No", -1.5), ("x", -3.0))]
    content = [{"token": "Yes", "logprob": -0.5, "top_logprobs": given}]
    choice = {"message": {"content": "Yes"}, "logprobs": {"content": content}, "finish_reason": "length"}
    answering(monkeypatch, {"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}, chance)
    monkeypatch.setattr(
        ReferencePrompts, "names", lambda self, words: [[frozenset({one}) for one in side] for side in words]
    )
    monkeypatch.setattr(ServerScoring, "identity", "scoring")
    monkeypatch.setattr(ReferencePrompts, "encoder", None)
    backend = ServerBackend(served(), ServerScoring(served(), ModelConfig(path="tiny"), ()))
    return checked(backend.complete([Request(backend.identity, "prompt", choices=("Yes", "No"))])[0])


def compare(monkeypatch: pytest.MonkeyPatch, chance: random.Random) -> str:
    answering(monkeypatch, {"tokens": [1, 2, 3], "count": 3}, chance)

    def pieces(ids: list[int]) -> list[str]:
        assert all(0 <= one < 2**31 for one in ids)
        return [str(one) for one in ids]

    reference: Any = SimpleNamespace(
        encoder=object(), absent="", url=None, image_token=None, encode=lambda _: [1, 2, 3], pieces=pieces,
        model=ModelConfig(path="tiny"),
    )  # fmt: skip
    model = served()
    assert model.server is not None
    said = compare_prompts(model, model.server, reference, [Request("i", "p", max_new_tokens=1)], {})
    said.encode()
    return "failure" if said.startswith("not verified") else "answer"


def fetch(monkeypatch: pytest.MonkeyPatch, chance: random.Random) -> str:
    picture = image_bytes()

    def answer(_: httpx.Request) -> httpx.Response:
        made = response("x", chance)
        if chance.random() < 0.3:
            made.stream = httpx.ByteStream(picture[: chance.choice([len(picture), chance.randrange(len(picture))])])
        return made

    policy = DownloadPolicy(ImagesConfig(max_file_mb=1), retries=1, backoff_s=0, longest_wait_s=0)

    async def once() -> None:
        with ThreadPoolExecutor(1) as threads:
            async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
                sources = Sources(client, BucketObjects(threads, 1))
                await download(sources, "http://example.org/x.png", policy, asyncio.Semaphore(1), threads)

    try:
        asyncio.run(once())
    except FetchError as error:
        return error.reason and "failure"
    return "answer"


def run(edge: Callable[[pytest.MonkeyPatch, random.Random], str], seeds: range) -> Counter[str]:
    """Return how many answers of a seed ended how; exceptions outside the contract are shown with their seed."""
    ends: Counter[str] = Counter()
    broken: list[str] = []
    for seed in seeds:
        with pytest.MonkeyPatch.context() as monkeypatch:
            try:
                ends[edge(monkeypatch, random.Random(seed))] += 1
            except StageError as error:
                str(error).encode()
                ends["failure"] += 1
            except Exception as error:  # these are what is looked for
                broken.append(f"seed {seed}: {type(error).__name__}: {str(error)[:200]}")
    print(f"{edge.__name__}: {len(seeds)} inputs, {dict(ends)}, {len(broken)} outside the contract")
    assert broken == []
    return ends


EDGES = [ask_texts, ask_scores, compare, fetch]


@pytest.mark.parametrize("edge", EDGES)
def test_some_odd_answers(edge: Callable[[pytest.MonkeyPatch, random.Random], str]) -> None:
    ends = run(edge, range(150))
    assert ends["failure"]
    assert ends["answer"]


@pytest.mark.slow
@pytest.mark.parametrize("edge", EDGES)
def test_two_thousand_odd_answers(edge: Callable[[pytest.MonkeyPatch, random.Random], str]) -> None:
    assert sum(run(edge, range(1_000, 3_000)).values()) == 2_000
