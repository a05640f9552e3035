"""Log-odds by the numbers of tokens, where a server takes them; bounds where it ignores or refuses them."""

import functools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msr_adapter.backends import make_backend, make_server_scorer
from msr_adapter.backends.http import BrokenAnswerError, GaveUpError
from msr_adapter.backends.label_tokens import completion, read_scores
from msr_adapter.backends.logprobs import named, read_logprobs
from msr_adapter.backends.openai import ServerBackend
from msr_adapter.config.schema import ModelConfig, ServerConfig
from msr_adapter.errors import StageError
from msr_adapter.generation import Backend, Completion, CompletionCache, Failure, Image, Request
from msr_adapter.llamafactory.model_weights import BASE
from msr_adapter.llamafactory.prompt_encoder import Encoder
from msr_adapter.prompts import Prompts
from msr_adapter.score import score
from msr_adapter.stage_arguments import Client, Job
from tests.support.scoring_server import Serving, serving
from tests.support.summaries import Lines
from tests.support.tiny_models import tiny_model
from tests.support.tiny_run import model_ref, stages, train_config

EXACT = "exact: the server takes logprob_token_ids"
LABELS = {"choices": ("Yes", "No"), "also": (("yes",), ("no", " never"))}
known_encoder = functools.cache(Encoder)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Serving]:
    with serving(tiny_model("qwen2_vl")) as one:
        yield one


@functools.cache
def here() -> Backend:
    return make_backend(model_ref())


@pytest.fixture
def served(endpoint: Serving, monkeypatch: pytest.MonkeyPatch) -> Serving:
    monkeypatch.setattr("msr_adapter.backends.reference_prompts.Encoder", known_encoder)  # half a second each
    endpoint.takes_tokens, endpoint.scores, endpoint.delimiter, endpoint.drops = False, False, None, None
    endpoint.top, endpoint.system, endpoint.scored = None, "You are a helpful assistant.", 0
    for seen in (endpoint.bodies, endpoint.orders, endpoint.token_requests, endpoint.score_requests):
        seen.clear()
    return endpoint


def scorer(served: Serving, **server: Any) -> ServerBackend:
    settings = {"url": served.url, "top_logprobs": 2, "retries": 0, "first_wait": 0.01, **server}
    model = ModelConfig(path="ours", backend="server", server=ServerConfig.model_validate(settings))
    made = make_server_scorer(model, model_ref(), BASE)
    assert isinstance(made, ServerBackend)
    return made


def asked(backend: Backend, images: bool = True, count: int = 4) -> list[Request]:
    """Return requests whose label words are far from the likeliest tokens of a model made from nothing."""
    shown = sorted((stages().data / "images").iterdir())[0]
    with_image = {"images": (Image(shown, "digest"),)} if images else {}
    text = [Request(backend.identity, f"Will they take {n}?", **LABELS) for n in range(count - 1)]
    return [Request(backend.identity, "<image>And this?" if images else "And this?", **with_image, **LABELS), *text]


def logprobs(backend: Backend, images: bool = True) -> list[tuple[float, ...]]:
    answers = backend.complete(asked(backend, images))
    assert all(isinstance(one, Completion) for one in answers)
    return [one.choice_logprobs for one in answers if isinstance(one, Completion)]


def same(theirs: list[tuple[float, ...]], ours: list[tuple[float, ...]]) -> bool:
    return all(one == pytest.approx(other, abs=1e-4) for one, other in zip(theirs, ours, strict=True))


def test_a_server_that_takes_numbers_of_tokens_bounds_nothing(served: Serving) -> None:
    served.takes_tokens = True
    backend = scorer(served)
    assert backend.exactness() == ""
    answers = backend.complete(asked(backend))
    assert backend.exactness() == EXACT
    assert all(isinstance(one, Completion) and not one.bounded for one in answers)
    assert same([one.choice_logprobs for one in answers if isinstance(one, Completion)], logprobs(here()))
    tried, *scored = served.token_requests
    assert len(scored) == 4
    assert not served.score_requests
    tokens = [
        t for words in known_encoder(model_ref()).side_tokens([("Yes", "yes"), ("No", "no", " never")]) for t in words
    ]
    assert all(body["logprob_token_ids"] == tokens and body["max_tokens"] == 1 for body in scored)
    assert set(tokens) | {0, 1, 2, 3} == set(tried["logprob_token_ids"])
    backend.complete(asked(backend))
    assert len(served.token_requests) == 9  # the server is tried once


@pytest.mark.parametrize(("status", "why"), [(False, "is ignored"), (400, "refused (status 400"), (422, "status 422"),
                                              (500, "status 500")])  # fmt: skip
def test_a_server_that_ignores_or_refuses_them_gives_bounds_as_before(
    served: Serving, status: bool | int, why: str
) -> None:
    served.takes_tokens = status
    backend = scorer(served, top_logprobs=1_000)
    assert same(logprobs(backend), logprobs(here()))
    assert backend.exactness().startswith("from the 1000 likeliest alternatives")
    assert why in backend.exactness()
    assert "/v1/score is not served" in backend.exactness()
    assert len(served.token_requests) == len(served.score_requests) == 1
    assert not any("logprob_token_ids" in body or "return_tokens_as_token_ids" in body for body in served.bodies)
    few = scorer(served, top_logprobs=2)
    assert all(isinstance(one, Completion) and one.bounded for one in few.complete(asked(few)))


def test_a_key_that_a_refusal_repeats_is_told_nowhere(served: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSR_TEST_KEY", "canary-4711")
    served.takes_tokens, served.scores = 400, 400
    backend = scorer(served, top_logprobs=1_000, key_variable="MSR_TEST_KEY")
    backend.complete(asked(backend))
    assert "Unrecognized argument" in backend.exactness()
    assert "canary" not in backend.exactness()


def test_scores_of_prompts_without_an_image_are_exact_where_the_endpoint_is_served(served: Serving) -> None:
    served.scores = True
    backend = scorer(served, top_logprobs=1_000)
    assert same(logprobs(backend, images=False), logprobs(here(), images=False))
    assert backend.exactness().startswith("exact for prompts without an image")
    assert len(served.score_requests) == 5
    assert served.scored == 1  # the chat answer that they are compared with
    prompts = [[*body["query"], *body["items"][0]] for body in served.score_requests]
    assert known_encoder(model_ref()).encode("Will they take 2?", []) in prompts
    assert same(logprobs(backend), logprobs(here()))
    assert len(served.score_requests) == 8
    assert served.scored == 2


@pytest.mark.parametrize(("behaviour", "why"), [
    ({"scores": 400}, "/v1/score is refused (status 400"), ({"scores": 500}, "is refused (status 500"),
    ({"delimiter": 7}, "/v1/score disagrees with the chat answers"), ({"top": 1}, "no label word is among"),
])  # fmt: skip
def test_scores_that_cannot_be_trusted_are_not_used(served: Serving, behaviour: dict[str, Any], why: str) -> None:
    served.scores = True
    for name, value in behaviour.items():
        setattr(served, name, value)
    backend = scorer(served, top_logprobs=1_000)
    backend.complete(asked(backend, images=False))
    assert why in backend.exactness()
    assert backend.exactness().startswith("from the 1000 likeliest alternatives")
    assert len(served.score_requests) == 1


def test_what_a_server_leaves_out_of_what_it_was_asked_for_is_a_fault_and_no_bound(served: Serving) -> None:
    served.takes_tokens = True
    served.drops = known_encoder(model_ref()).answer_tokens(("Yes", "No"))[1]
    backend = scorer(served)
    answers = backend.complete(asked(backend))
    assert all(isinstance(one, Failure) and f"token_id:{served.drops}" in one.reason for one in answers)


def test_a_server_that_is_not_there_is_tried_once(served: Serving) -> None:
    backend = scorer(served, url="http://127.0.0.1:9/v1")
    with pytest.raises(StageError, match="the server is down") as caught:
        backend.complete(asked(backend))
    assert "(1 attempt)" in str(caught.value)


def test_a_busy_server_is_tried_again(served: Serving) -> None:
    served.takes_tokens = 503
    backend = scorer(served, top_logprobs=1_000)
    assert same(logprobs(backend), logprobs(here()))
    assert backend.exactness() == ""
    served.takes_tokens = True
    assert same(logprobs(backend), logprobs(here()))
    assert backend.exactness() == EXACT


def test_a_tokenizer_that_is_not_here_leaves_the_numbers_unknown(
    served: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(_: ModelConfig) -> Encoder:
        raise StageError("the tokenizer is not on this machine")

    monkeypatch.setattr("msr_adapter.backends.reference_prompts.Encoder", absent)
    served.takes_tokens = True
    backend = scorer(served)
    backend.complete(asked(backend, images=False))
    assert "the tokenizer is not on this machine" in backend.exactness()
    assert not served.token_requests


def test_the_stage_says_how_it_knows_and_so_does_its_manifest(served: Serving, tmp_path: Path) -> None:
    served.takes_tokens = True
    lines, made = Lines(), stages()
    with CompletionCache(tmp_path / "c.sqlite") as cache:
        client = Client(Prompts(), scorer(served), cache)
        counts = score(train_config(), made, client, Job(tmp_path, lines))
        again = score(train_config(), made, Client(Prompts(), scorer(served), cache), Job(tmp_path, Lines()))
    assert counts["log_odds"] == EXACT
    assert f"log-odds of the server: {EXACT}" in lines.text
    assert counts["bounded"] == 0
    assert "log_odds" not in again  # nothing was asked


def scored(*rows: Any, **more: Any) -> httpx.Response:
    return httpx.Response(200, json={"scores": list(rows), **more})


@given(st.lists(st.floats(0, 1), min_size=2, max_size=5))
def test_probabilities_become_log_probabilities(weights: list[float]) -> None:
    total = sum(weights) or 1.0
    values = [weight / total for weight in weights]
    found = read_scores(scored(values), len(values))
    assert [math.exp(one) for one in found] == pytest.approx(values, abs=1e-9)
    joined = completion(Request("m", "p", choices=("Yes", "No")), [(5,), tuple(range(len(values) - 1))], found, 7)
    assert [math.exp(one) for one in joined.choice_logprobs] == pytest.approx([values[0], sum(values[1:])], abs=1e-9)
    assert (joined.bounded, joined.tokens_in) == ((), 7)


@pytest.mark.parametrize("response", [
    scored([0.5]), scored([0.5, 0.1, 0.1]), scored(), scored([0.5, 0.1], [0.1, 0.1]), scored([0.5, "much"]),
    scored([0.5, None]), httpx.Response(200, content=b"no"), httpx.Response(200, json={"data": [{"score": 0.5}]}),
])  # fmt: skip
def test_what_is_no_answer_of_the_score_endpoint(response: httpx.Response) -> None:
    with pytest.raises(BrokenAnswerError):
        read_scores(response, 2)


@pytest.mark.parametrize("row", ["[0.9, 0.9]", "[-0.1, 0.5]", "[NaN, 0.5]", "[Infinity, 0.1]", "[1.5, 0.1]"])
def test_numbers_that_are_no_probabilities(row: str) -> None:
    with pytest.raises(GaveUpError, match="impossible probabilities"):
        read_scores(httpx.Response(200, content=f'{{"scores": [{row}]}}'.encode()), 2)


def test_a_token_that_is_told_twice_counts_once_and_one_with_two_values_is_refused() -> None:
    def answer(*given: tuple[str, float]) -> httpx.Response:
        top = [{"token": token, "logprob": value} for token, value in given]
        return httpx.Response(200, json={"choices": [{"logprobs": {"content": [{"top_logprobs": top}]}}]})

    request, names = Request("m", "p", choices=("Yes", "No")), [[named(5)], [named(6)]]
    told = (("token_id:5", -0.1), ("token_id:5", -0.1), ("token_id:6", -3.0))
    assert read_logprobs(request, answer(*told), names, every=True).choice_logprobs == pytest.approx((-0.1, -3.0))
    with pytest.raises(GaveUpError, match="'token_id:5' has several"):
        read_logprobs(request, answer(*told, ("token_id:5", -0.2)), names, every=True)
    with pytest.raises(GaveUpError, match="left out what it was asked for: token_id:6"):
        read_logprobs(request, answer(*told[:2]), names, every=True)


def test_probing_alone_asks_for_no_answers(served: Serving) -> None:
    served.takes_tokens = True
    backend = scorer(served)
    assert backend.exactness(asked(backend)) == EXACT
    assert len(served.token_requests) == 1
