"""Scores through a server: those of the model in memory, or bounds that say so, for the trained prompts alone."""

import functools
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msr_adapter import schema
from msr_adapter.backends import make_backend, make_server_scorer
from msr_adapter.backends.http import BrokenAnswerError, GaveUpError
from msr_adapter.backends.logprobs import read_logprobs
from msr_adapter.backends.openai import ServerBackend
from msr_adapter.config.schema import ModelConfig, ServerConfig
from msr_adapter.errors import StageError
from msr_adapter.generation import CompletionCache, Request
from msr_adapter.llamafactory.model_weights import BASE
from msr_adapter.llamafactory.prompt_encoder import Encoder
from msr_adapter.progress import Reporter
from msr_adapter.prompts import Prompts
from msr_adapter.score import score
from msr_adapter.stage_arguments import Client, Job
from tests.support.scoring_server import Serving, serving
from tests.support.summaries import Lines
from tests.support.tiny_models import tiny_model
from tests.support.tiny_run import QUIET, model_ref, scratch, stages, train_config

WHOLE = 1_000
"""More alternatives than the tiny vocabulary has."""


@pytest.fixture(scope="module")
def served() -> Iterator[Serving]:
    with serving(tiny_model("qwen2_vl")) as one:
        yield one


known_encoder = functools.cache(Encoder)


@functools.cache
def here() -> dict[str, np.ndarray]:
    """Return the scores of the model in memory."""
    run(make_backend(model_ref()), folder := scratch() / "here")
    return read(folder)


@pytest.fixture(autouse=True)
def behave(served: Serving, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("msr_adapter.backends.reference_prompts.Encoder", known_encoder)  # half a second each
    usual = {name: getattr(served, name) for name in ("system", "tokenise", "top", "key", "numbers")}
    served.scored = served.tokenised = 0
    served.bodies.clear()
    served.orders.clear()
    yield
    for name, value in usual.items():
        setattr(served, name, value)


def scorer(served: Serving, base: ModelConfig | None = None, **server: Any) -> ServerBackend:
    settings = {"url": served.url, "top_logprobs": WHOLE, "retries": 0, "first_wait": 0.01, **server}
    model = ModelConfig(path="ours", backend="server", server=ServerConfig.model_validate(settings))
    made = make_server_scorer(model, base or model_ref(), BASE)
    assert isinstance(made, ServerBackend)
    return made


def run(backend: Any, out: Path, reporter: Reporter = QUIET, share: float = 0.05) -> dict[str, Any]:
    out.mkdir()
    made = stages()
    with CompletionCache(out / "c.sqlite") as cache:
        return score(train_config(), made, Client(Prompts(), backend, cache), Job(out, reporter), share)


def read(out: Path) -> dict[str, np.ndarray]:
    table = schema.read_table(out / "scores.parquet", schema.SCORES)
    return {name: np.array(table[name]) for name in ("score", "logit", "answer_mass", "bounded")}


def test_a_server_gives_the_scores_of_the_model_loaded_here(served: Serving, tmp_path: Path) -> None:
    lines = Lines()
    counts = run(scorer(served), tmp_path / "server", lines)
    theirs, ours = read(tmp_path / "server"), here()
    for name in ("score", "logit", "answer_mass"):
        assert theirs[name] == pytest.approx(ours[name], abs=1e-4)
    assert not theirs["bounded"].any()
    assert counts["bounded"] == 0
    assert (served.scored, served.tokenised) == (16, 7)
    with_images = sum(isinstance(body["messages"][-1]["content"], list) for body in served.bodies)
    assert 0 < with_images < 16
    assert (
        counts["prompts"]
        == "verified: 7 prompts with the same tokens as in training, 4 of them apart from their images"
    )
    assert counts["prompts"] in lines.text
    assert counts["tokens_in"] > 0
    assert {(body["max_tokens"], body["temperature"], body["logprobs"]) for body in served.bodies} == {(1, 0, True)}


def test_numbers_of_tokens_will_do_where_a_server_gives_them(served: Serving, tmp_path: Path) -> None:
    served.numbers = True
    run(scorer(served), tmp_path / "numbers")
    assert read(tmp_path / "numbers")["logit"] == pytest.approx(here()["logit"], abs=1e-4)


def test_several_label_words_count_together(served: Serving) -> None:
    remote, here = scorer(served), make_backend(model_ref())
    pooled = {"choices": ("Yes", "No"), "also": (("yes", " Yes"), ("no",))}
    [theirs] = remote.complete([Request(remote.identity, "Will the user choose it?", **pooled)])
    [ours] = here.complete([Request(here.identity, "Will the user choose it?", **pooled)])
    assert theirs.choice_logprobs == pytest.approx(ours.choice_logprobs, abs=1e-4)


def test_answers_that_are_kept_back_are_bounded_counted_and_marked(served: Serving, tmp_path: Path) -> None:
    ours = here()
    run(scorer(served), tmp_path / "whole")
    tokens = known_encoder(model_ref()).answer_tokens(("Yes", "No"))
    # So few alternatives that some answers are kept back, and so many that no candidate lacks both.
    served.top = max(min(ids.index(token) for token in tokens) for ids in served.orders) + 1
    lines = Lines()
    counts = run(scorer(served), tmp_path / "bounded", lines, share=1.0)
    theirs = read(tmp_path / "bounded")
    marked = theirs["bounded"]
    assert counts["bounded"] == marked.sum() > 0
    assert theirs["logit"][~marked] == pytest.approx(ours["logit"][~marked], abs=1e-4)
    # A bound is an upper one on the answer that is kept back, so the mass of both is at least the true one.
    assert (theirs["answer_mass"][marked] >= ours["answer_mass"][marked] - 1e-6).all()
    assert "the server kept one answer back for" in lines.text
    with pytest.raises(StageError, match=r"kept one answer back for \d+ of 16 candidates (.|\n)*top_logprobs"):
        run(scorer(served), tmp_path / "refused", share=0.0)


def test_candidates_without_either_answer_end_the_stage(served: Serving, tmp_path: Path) -> None:
    served.top = 2
    with pytest.raises(StageError, match=r"gave neither answer for \d+ of 16 candidates"):
        run(scorer(served), tmp_path / "out", share=1.0)
    assert not (tmp_path / "out" / "scores.parquet").exists()


def test_another_chat_template_is_refused_with_the_first_difference(served: Serving, tmp_path: Path) -> None:
    served.system = "You are a recommender."
    with pytest.raises(StageError, match="not the trained one: token") as caught:
        run(scorer(served), tmp_path / "out")
    assert "trained: " in str(caught.value)
    assert "server:  " in str(caught.value)
    assert served.scored == 0
    # What is set on purpose is scored on purpose.
    counts = run(scorer(served, compare_prompts=False), tmp_path / "on-purpose")
    assert counts["prompts"] == "not verified (server.compare_prompts is false)"


def test_the_trained_system_text_is_sent(served: Serving, tmp_path: Path) -> None:
    base = model_ref(default_system="Be brief.")
    counts = run(scorer(served, base), tmp_path / "out")
    assert counts["prompts"].startswith("verified")
    assert all(body["messages"][0] == {"role": "system", "content": "Be brief."} for body in served.bodies)


@pytest.mark.parametrize(("status", "said"), [
    (404, "not verified (no tokenise endpoint)"),
    (422, "not verified (/tokenize does not take messages: status 422: prompt: field required)"),
])  # fmt: skip
def test_without_a_tokenise_endpoint_nobody_knows_and_that_is_said(
    served: Serving, tmp_path: Path, status: int, said: str
) -> None:
    served.tokenise = status
    lines = Lines()
    assert run(scorer(served), tmp_path / "out", lines)["prompts"] == said
    assert f"prompts of the server: {said}" in lines.text
    assert served.scored == 16


def test_a_second_run_asks_nothing(served: Serving, tmp_path: Path) -> None:
    run(scorer(served), tmp_path / "out")
    asked = served.scored, served.tokenised
    with CompletionCache(tmp_path / "out" / "c.sqlite") as cache:
        made, again = stages(), scorer(served)
        counts = score(train_config(), made, Client(Prompts(), again, cache), Job(tmp_path / "out", QUIET))
    assert (counts["computed"], counts["cached"], counts["prompts"]) == (0, 16, "answered before")
    assert (served.scored, served.tokenised) == asked


def test_a_wrong_key_is_never_shown(served: Serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served.key = "right"
    monkeypatch.setenv("SHOP_KEY", "canary-4711")
    for number, compared in enumerate((True, False)):
        with pytest.raises(StageError, match="status 401") as caught:
            run(scorer(served, key_variable="SHOP_KEY", compare_prompts=compared), tmp_path / f"out-{number}")
        assert "canary" not in str(caught.value)
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"canary" not in written
    served.key = "canary-4711"
    counts = run(scorer(served, key_variable="SHOP_KEY"), tmp_path / "right")
    assert counts["computed"] == 16
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"canary" not in written


def test_a_server_that_is_handed_other_weights_is_another_scorer(served: Serving, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"weights")

    def identity(**changes: Any) -> str:
        base = changes.pop("base", None)
        return scorer(served, base, **changes).identity

    assert identity() == identity(concurrency=3, retries=4, bounded_share=0.5, compare_prompts=False)
    others = [
        identity(),
        identity(top_logprobs=5),
        identity(base=model_ref(default_system="x")),
        identity(url="http://else"),
        identity(base=model_ref(image_max_pixels=56 * 56)),
        identity(base=model_ref(image_min_pixels=28 * 28 * 4)),
        identity(base=model_ref(adapter=tmp_path)),
    ]
    assert len(set(others)) == 7


def answer(*alternatives: tuple[str, float]) -> httpx.Response:
    given = [{"token": token, "logprob": math.log(p)} for token, p in alternatives]
    content = [{**given[0], "top_logprobs": given}] if given else []
    return httpx.Response(200, json={"choices": [{"message": {"content": "x"}, "logprobs": {"content": content}}]})


ASKED = Request("m", "p", choices=("Yes", "No"))
NAMES = [[frozenset({"Yes"})], [frozenset({"No"})]]


@pytest.mark.parametrize(("alternatives", "expected", "bounded"), [
    ([("Yes", 0.6), ("No", 0.3)], (0.6, 0.3), ()),
    ([("Yes", 0.6), ("Maybe", 0.3)], (0.6, 0.1), (1,)),  # at most the mass that is left
    ([("Yes", 0.5), ("Maybe", 0.01)], (0.5, 0.01), (1,)),  # at most the least that was returned
    ([("Well", 0.5), ("Maybe", 0.2)], (0.2, 0.2), (0, 1)),
    ([("Yes", 0.7), ("No", 0.1), ("Yes", 0.1)], (0.8, 0.1), ()),  # one text for two tokens: they count together
])  # fmt: skip
def test_label_logprobs_by_hand(
    alternatives: Sequence[tuple[str, float]], expected: tuple[float, ...], bounded: tuple[int, ...]
) -> None:
    found = read_logprobs(ASKED, answer(*alternatives), NAMES)
    assert [math.exp(value) for value in found.choice_logprobs] == pytest.approx(expected, abs=1e-5)
    assert found.bounded == bounded


def test_a_rare_label_word_that_is_kept_back_changes_nothing_that_shows() -> None:
    names = [[frozenset({"Yes"}), frozenset({"yes"})], [frozenset({"No"})]]
    tight = read_logprobs(ASKED, answer(("Yes", 0.6), ("No", 0.3), ("x", 1e-5)), names)
    assert tight.bounded == ()
    wide = read_logprobs(ASKED, answer(("Yes", 0.6), ("No", 0.3), ("x", 0.05)), names)
    assert wide.bounded == (0,)
    assert math.exp(wide.choice_logprobs[0]) == pytest.approx(0.65, abs=1e-5)


@given(st.lists(st.floats(1e-6, 1), min_size=3, max_size=12), st.integers(1, 12))
def test_a_bound_is_never_below_the_truth(weights: list[float], top: int) -> None:
    masses = sorted((weight / sum(weights) for weight in weights), reverse=True)
    tokens = [("Yes", masses[-1]), ("No", masses[-2]), *((f"t{n}", mass) for n, mass in enumerate(masses[:-2]))]
    shown = sorted(tokens, key=lambda pair: -pair[1])[:top]
    found = read_logprobs(ASKED, answer(*shown), NAMES)
    for place, (name, mass) in enumerate(tokens[:2]):
        exact = name in dict(shown)
        assert (place in found.bounded) == (not exact)
        assert math.exp(found.choice_logprobs[place]) >= mass * (1 - 1e-9)
        if exact:
            assert math.exp(found.choice_logprobs[place]) == pytest.approx(mass)


def test_an_answer_without_alternatives_is_told() -> None:
    with pytest.raises(GaveUpError, match="no top_logprobs"):
        read_logprobs(ASKED, httpx.Response(200, json={"choices": [{"message": {"content": "Yes"}}]}), NAMES)
    with pytest.raises(BrokenAnswerError):
        read_logprobs(ASKED, httpx.Response(200, content=json.dumps({"choices": []}).encode()), NAMES)
