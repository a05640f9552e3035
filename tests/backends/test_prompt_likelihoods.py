"""Likelihoods of whole texts through a server: those of the model in memory, or one refusal that says why."""

import functools
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from msr_adapter.backends import make_server_scorer
from msr_adapter.backends.http import LARGEST, BrokenAnswerError, UnusableServerError
from msr_adapter.backends.huggingface import HuggingFaceBackend
from msr_adapter.backends.openai import ServerBackend
from msr_adapter.backends.prompt_likelihoods import SENT_AS_TOKENS, PromptLikelihoods
from msr_adapter.backends.reference_prompts import ReferencePrompts
from msr_adapter.config.schema import ModelConfig, ServerConfig
from msr_adapter.errors import StageError
from msr_adapter.generation import Backend, Completion, Failure, Image, Request
from msr_adapter.llamafactory.model_weights import BASE
from msr_adapter.llamafactory.prompt_encoder import Encoder
from tests.score.test_likelihood_ratios import Recorder, asking, plain, prompts_of, ratios, run, upstream
from tests.support.scoring_server import Serving, serving
from tests.support.tiny_models import tiny_model
from tests.support.tiny_run import model_ref, stages

TITLES = ("Quiet Meadows", "A", "é 🎬: a longer title, of several words")
known_encoder = functools.cache(Encoder)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Serving]:
    with serving(tiny_model("qwen2_vl")) as one:
        yield one


@pytest.fixture
def served(endpoint: Serving, monkeypatch: pytest.MonkeyPatch) -> Serving:
    monkeypatch.setattr("msr_adapter.backends.reference_prompts.Encoder", known_encoder)  # half a second each
    endpoint.echoes, endpoint.names, endpoint.spoil, endpoint.key, endpoint.reads = True, True, lambda _: None, None, 0
    for seen in (endpoint.bodies, endpoint.text_requests):
        seen.clear()
    return endpoint


def scorer(served: Serving, base: ModelConfig | None = None, **server: Any) -> ServerBackend:
    settings = {"url": served.url, "retries": 0, "first_wait": 0.01, **server}
    model = ModelConfig(path="ours", backend="server", server=ServerConfig.model_validate(settings))
    made = make_server_scorer(model, base or model_ref(), BASE)
    assert isinstance(made, ServerBackend)
    return made


def asked(backend: Backend, whole: Any = "answer") -> list[Request]:
    return [Request(backend.identity, f"{user} likes quiet films. What next?", (), (title,), whole=whole)
            for user in ("One", "Two") for title in TITLES]  # fmt: skip


@functools.cache
def here() -> HuggingFaceBackend:
    return HuggingFaceBackend(model_ref())


@pytest.mark.parametrize("whole", ["answer", "turn"])
@pytest.mark.parametrize("names", [True, False])
def test_a_server_gives_the_likelihoods_of_the_model_loaded_here(served: Serving, whole: str, names: bool) -> None:
    served.names = names
    backend = scorer(served)
    assert backend.exactness() == ""
    found, known = backend.complete(asked(backend, whole)), here().complete(asked(here(), whole))
    for theirs, ours in zip(found, known, strict=True):
        assert isinstance(theirs, Completion)
        assert isinstance(ours, Completion)
        assert theirs.choice_logprobs == pytest.approx(ours.choice_logprobs, abs=1e-5 * ours.tokens_out)
        assert (theirs.tokens_in, theirs.tokens_out) == (ours.tokens_in, ours.tokens_out)
        assert (theirs.text, theirs.finish_reason) == ("", "choice")
    assert backend.exactness().startswith("exact: /completions tells those of all tokens of a prompt and its text")
    assert ("verified by its number" in backend.exactness()) == names
    assert len(served.text_requests) == len(found) + 1  # the server is tried once
    encoder = known_encoder(model_ref())
    text = encoder.scored_ids(TITLES[0], end=whole == "turn")
    first = served.text_requests[0]
    assert first["prompt"] == encoder.encode(asked(backend)[0].prompt) + text
    assert (first["echo"], first["model"], first["stream"]) == (True, "ours", False)
    assert not served.bodies, "nothing goes by a chat template"


def test_the_score_stage_says_how_its_ratios_were_got(served: Serving, tmp_path: Path) -> None:
    train, made, told = asking("next-item-text"), upstream(), Recorder()
    backend = scorer(served, train.model)
    counts = run(train, made, tmp_path / "score", backend, told)
    nothing = prompts_of(train).without_evidence
    for row, ours in zip(ratios(tmp_path / "score"), ratios_here(tmp_path), strict=True):
        for name in ("given", "alone"):
            assert row[name] == pytest.approx(ours[name], abs=1e-5 * ours["tokens"])
        assert (row["item_id"], row["tokens"]) == (ours["item_id"], ours["tokens"])
    assert counts["prompts"] == SENT_AS_TOKENS
    assert counts["log_likelihoods"] == backend.exactness() != ""
    assert any(f"log-likelihoods of the server: {backend.exactness()}" in line for line in told.lines)
    assert any("prompts of the server: sent as tokens" in line for line in told.lines)
    number = len(served.text_requests)
    again = run(train, made, tmp_path / "again", scorer(served, train.model))
    assert (again["prompts"], again["computed"], len(served.text_requests)) == ("answered before", 0, number)
    request = Request("m", nothing, (), (TITLES[0],), whole="answer")
    [theirs] = backend.complete([request])
    assert isinstance(theirs, Completion)
    assert theirs.choice_logprobs[0] == pytest.approx(plain(here(), request)[0], abs=1e-5)


def ratios_here(folder: Path) -> list[dict[str, Any]]:
    run(asking("next-item-text"), upstream(), folder / "here" / "score", here())
    return ratios(folder / "here" / "score")


def put(name: str, place: int, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda told: told[name].__setitem__(place, value)


def cut(told: dict[str, Any]) -> None:
    for values in told.values():
        del values[0:2]


def begin(told: dict[str, Any]) -> None:
    """One more token at the front, and nothing written at the end: the count is as it might be."""
    told["tokens"] = ["token_id:7", *told["tokens"][:-1]]
    told["token_logprobs"] = [None, -3.0, *told["token_logprobs"][1:-1]]


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "ignores echo": ({"echoes": False}, "tells log-probabilities of 1 token, and"),
    "leaves tokens out": ({"spoil": cut}, r"tells log-probabilities of \d+ tokens, and \d+ were sent"),
    "begins prompts with a token of its own": ({"spoil": begin}, "token 1 of a prompt is 'token_id:7' there"),
    "reads one more": ({"reads": 1, "names": False, "spoil": begin}, r"it read \d+ tokens, and \d+ were sent"),
    "has another tokenizer": ({"spoil": put("tokens", 3, "token_id:9999")}, "token 4 of a prompt is 'token_id:9999'"),
    "tells nothing": ({"spoil": lambda told: told.clear()}, "tells log-probabilities of 0 tokens"),
    "keeps one back": ({"spoil": put("token_logprobs", -2, None)}, "it tells null in place of a log-probability"),
    "tells a text": ({"spoil": put("token_logprobs", -2, "none")}, "it tells 'none' in place of a log-probability"),
    "tells logits": ({"spoil": put("token_logprobs", -2, 3.5)}, r"a log-probability is 3\.5, above 0"),
    "tells no number": ({"spoil": put("token_logprobs", -2, math.nan)}, "a log-probability is not a number"),
    "overflows": ({"spoil": put("token_logprobs", -2, -9999.0)}, "the probability is 0"),
    "has no completions": ({"echoes": 404}, "/completions is not there: status 404"),
    "refuses echo": ({"echoes": 400}, r"refuses a prompt of \d+ tokens with echo and logprobs: status 400: echo"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_server_that_tells_something_else_is_refused_once_with_the_reason(served: Serving, fault: str) -> None:
    behaviour, found = FAULTS[fault]
    for name, value in behaviour.items():
        setattr(served, name, value)
    backend = scorer(served, retries=2)
    with pytest.raises(StageError, match=found) as refused:
        backend.complete(asked(backend))
    assert refused.value.what.startswith(f"ours at {served.url}: ")
    assert refused.value.cause
    assert "serve the model by vLLM, or score with the model on this machine" in refused.value.next_step
    assert len(served.text_requests) == 1
    with pytest.raises(StageError, match=found):
        backend.exactness(asked(backend))


def test_a_fault_of_a_later_answer_ends_the_stage_too(served: Serving) -> None:
    backend = scorer(served, concurrency=1)
    backend.complete(asked(backend)[:1])
    served.spoil = put("token_logprobs", -2, 0.5)
    with pytest.raises(StageError, match="above 0"):
        backend.complete(asked(backend))


def test_a_wrong_key_and_a_busy_server_are_told_as_ever(served: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    served.key = "right"
    monkeypatch.setenv("SHOP_KEY", "canary-4711")
    backend = scorer(served, key_variable="SHOP_KEY")
    with pytest.raises(StageError, match="status 401") as refused:
        backend.complete(asked(backend))
    assert "canary" not in str(refused.value)
    served.key, served.echoes = None, 503
    answers = backend.complete(asked(backend))
    assert all(isinstance(one, Failure) and "status 503" in one.reason for one in answers)
    served.echoes = True
    assert all(isinstance(one, Completion) for one in backend.complete(asked(backend)))


def test_what_cannot_be_sent_as_tokens_is_not_sent(served: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Image(sorted((stages().data / "images").iterdir())[0], "digest")
    backend = scorer(served)
    with_image = Request(backend.identity, "<image>Who?", (shown,), ("Somebody",), whole="answer")
    for ask in (backend.complete, backend.compare, backend.exactness):
        with pytest.raises(StageError, match="where prompts show images"):
            ask([with_image])

    def absent(_: ModelConfig) -> None:
        raise StageError("the tokenizer of ours is not here")

    monkeypatch.setattr("msr_adapter.backends.reference_prompts.Encoder", absent)
    backend = scorer(served)
    with pytest.raises(StageError, match="without the trained model's tokenizer: the tokenizer of ours is not here"):
        backend.complete(asked(backend))
    assert not served.text_requests


class OnePrompt:
    """An encoder whose every prompt has 2,048 tokens of the largest numbers, and a text of 64."""

    def __init__(self, _: ModelConfig) -> None: ...

    def encode(self, *_: object) -> list[int]:
        return [200_000] * 2_048

    def scored_ids(self, _: str, *, end: bool) -> list[int]:
        return [200_000] * 64


def test_a_prompt_of_2048_tokens_is_far_from_the_largest_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """As vLLM writes it: with the likeliest alternative, and its own list of prompt_logprobs beside."""
    monkeypatch.setattr("msr_adapter.backends.reference_prompts.Encoder", OnePrompt)
    url = "http://127.0.0.1:9/v1"
    model = ModelConfig(path="ours", backend="server", server=ServerConfig(url=url))
    likelihoods = PromptLikelihoods(model, ReferencePrompts(model_ref()))
    number, value = 2_048 + 64, -12.345678901234567
    names, values = ["token_id:200000"] * (number + 1), [None, *[value] * number]
    top = [{"token_id:200000": value, "token_id:199999": value}] * (number + 1)
    known = {"logprob": value, "rank": 100_000, "decoded_token": "long " * 4}
    told = {"tokens": names, "token_logprobs": values, "text_offset": list(range(number + 1)), "top_logprobs": top}
    prompt = [None, *[{"200000": known, "199999": known}] * (number - 1)]
    content = json.dumps({"choices": [{"logprobs": told, "prompt_logprobs": prompt}]}).encode()
    request = Request("m", "a prompt", (), ("a text",), whole="answer")
    found = likelihoods.read(request, httpx.Response(200, content=content))
    assert (found.tokens_in, found.tokens_out) == (2_048, 64)
    assert found.choice_logprobs[0] == pytest.approx(64 * value)
    assert 10 * len(content) < LARGEST


@pytest.mark.parametrize("content", [
    b"", b"{}", b'{"choices": []}', b'{"choices": [{"logprobs": [1]}]}',
    b'{"choices": [{"logprobs": {"tokens": ["a"], "token_logprobs": []}}]}',
])  # fmt: skip
def test_a_broken_answer_is_asked_for_again(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("msr_adapter.backends.reference_prompts.Encoder", OnePrompt)
    model = ModelConfig(path="ours", backend="server", server=ServerConfig(url="http://127.0.0.1:9/v1"))
    likelihoods = PromptLikelihoods(model, ReferencePrompts(model_ref()))
    with pytest.raises(BrokenAnswerError):
        likelihoods.read(Request("m", "p", (), ("t",), whole="answer"), httpx.Response(200, content=content))
    huge = b'{"choices": [{"logprobs": {"tokens": %s, "token_logprobs": [%s]}}]}' % (
        json.dumps(["a"] * 2_112).encode(), b",".join([b"1" + b"0" * 400] * 2_112),
    )  # fmt: skip
    with pytest.raises((BrokenAnswerError, UnusableServerError)):
        likelihoods.read(Request("m", "p", (), ("t",), whole="answer"), httpx.Response(200, content=huge))
