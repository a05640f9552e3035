"""Scores from shared prefixes and images equal those of plain forward passes; savings are counted exactly."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from msr_adapter.backends.huggingface import HuggingFaceBackend
from msr_adapter.backends.prefix_cache.batches import Batches
from msr_adapter.errors import StageError
from msr_adapter.generation.request import Completion, Image, Request
from tests.support.tiny_run import model_ref, stages

FAMILIES = ("qwen2_vl", "qwen3_vl_nothink", "llava")
CHOICES = ("Yes", "No")
WITH_IMAGE = (0, 1, 2, 5, 6)


def image(number: int) -> Image:
    return Image(stages().data / "images" / f"{number:03d}.png", f"digest-{number}")


@functools.cache
def backend(template: str = "qwen2_vl") -> HuggingFaceBackend:
    """One model for all tests of a family, once it is trusted."""
    made = HuggingFaceBackend(model_ref(template, default_system=""))
    made.complete([ask("who?", "It", None), ask("who?", "It", 0)])
    return made


def ask(summary: str, title: str, shown: int | None, *, item_first: bool = False, **settings: Any) -> Request:
    item = ("<image>\n" if shown is not None else "") + f"Title: {title}\n"
    user = f"A user's preferences: {summary}\n"
    prompt = f"{item}{user}Yes or No?" if item_first else f"{user}{item}Yes or No?"
    images = () if shown is None else (image(shown),)
    return Request("m", prompt, images, **{"choices": CHOICES, **settings})


def grid(users: Sequence[str], items: Sequence[tuple[str, int | None]], **settings: Any) -> list[Request]:
    return [ask(user, *item, **settings) for user in users for item in items]


@functools.cache
def plain(template: str, request: Request) -> tuple[float, ...]:
    """The reference: the row alone, whole, through LLaMA-Factory's collator."""
    loaded = backend(template)._load()
    ids = loaded.encoder.encode(request.prompt, [shown.path for shown in request.images])
    return loaded.score([(request, ids)])[0].choice_logprobs


def assert_plain(template: str, asked: Sequence[Request], answers: Sequence[Any]) -> None:
    assert [answer.key for answer in answers] == [request.key for request in asked]
    found = np.array([answer.choice_logprobs for answer in answers])
    np.testing.assert_allclose(found, [plain(template, request) for request in asked], atol=1e-5)


words = st.integers(1, 12).map(lambda count: "bold quiet comic covers "[: 2 * count] * (1 + count % 3))
items = st.lists(st.tuples(words, st.none() | st.sampled_from(WITH_IMAGE)), min_size=1, max_size=4)


@pytest.mark.parametrize("template", FAMILIES)
def test_shared_scores_equal_plain_ones(template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = backend(template)
    sizer, runner = model._load().batch_sizer, model._load().prefix_cache._runner

    @settings(deadline=None, max_examples=10, derandomize=True)
    @given(
        users=st.lists(words, min_size=1, max_size=4), shown=items, item_first=st.booleans(), data=st.data(),
        rows=st.integers(1, 9), tokens=st.none() | st.integers(1, 400), budget=st.sampled_from((1, 20_000, 10**9)),
    )  # fmt: skip
    def holds(
        users: list[str], shown: list[Any], item_first: bool, data: st.DataObject, rows: int, tokens: int, budget: int
    ) -> None:
        asked = grid(users, shown, item_first=item_first)
        asked = [request for request in asked if data.draw(st.integers(0, 3))] + grid(users[:1], shown[:1])
        monkeypatch.setattr(sizer, "rows", rows)
        monkeypatch.setattr(sizer, "tokens", tokens)
        monkeypatch.setattr(runner, "_budget", budget)
        assert_plain(template, asked, model.complete(asked))

    holds()
    assert not model.stats.reasons


@pytest.mark.parametrize("template", FAMILIES)
@pytest.mark.parametrize("item_first", [False, True])
def test_tokens_and_images_are_counted_exactly(template: str, item_first: bool) -> None:
    model = HuggingFaceBackend(model_ref(template, default_system=""))
    shown = [("The Blue Harbour", 0), ("Night", 5), ("Comic", None)]
    users = [f"bold covers {'and dogs ' * 4}{user}" for user in "abcd"]
    asked = grid(users, shown, item_first=item_first)
    model.complete(asked)
    encode = model._load().encoder.encode
    rows = [encode(request.prompt, [shown.path for shown in request.images]) for request in asked]
    # The tokens of an image are its own, as the planner does.
    keyed = [
        tuple(
            (token, request.images) if token == model._load().network.config.image_token_id else token for token in row
        )
        for row, request in zip(rows, asked, strict=True)
    ]
    stats = model.stats
    assert (stats.rows, stats.unshared_rows) == (12, 0)
    assert stats.tokens_flat == sum(map(len, rows))
    assert stats.tokens_least == len({row[:end] for row in keyed for end in range(1, len(row) + 1)})
    assert stats.tokens_least <= stats.tokens_planned <= 0.75 * stats.tokens_flat
    assert (stats.images_shown, stats.images_distinct, stats.images_encoded) == (8, 2, 2)
    model.complete(asked)
    assert stats.images_encoded == 2, "kept from call to call"


def test_what_is_processed_is_what_is_planned_where_lengths_are_alike() -> None:
    model = HuggingFaceBackend(model_ref(default_system=""))
    asked = grid(["7 ships and dogs", "8 ships and dogs"], [(title, 0) for title in "12345"])
    model.complete(asked)
    assert model.stats.passes == 3, "both prefixes in one pass, then eight rows and two"
    assert model.stats.tokens_processed == model.stats.tokens_planned


def test_equal_prompts_are_computed_once() -> None:
    model = backend()
    rows, processed = model.stats.rows, model.stats.tokens_processed
    first, second = (ask("dogs", "T", 0), ask("dogs", "T", 0, max_new_tokens=1))
    answers = model.complete([first, second])
    assert answers[0].key != answers[1].key  # other requests
    assert isinstance(answers[0], Completion)
    assert isinstance(answers[1], Completion)
    assert answers[0].choice_logprobs == answers[1].choice_logprobs
    assert (model.stats.rows - rows, model.stats.tokens_processed - processed) == (2, answers[0].tokens_in)


def test_memory_that_runs_out_makes_passes_and_waves_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulated device holds 240 tokens of a pass, old and new: first rows, then waves, then sharing give way."""
    model = HuggingFaceBackend(model_ref(default_system=""))
    asked = grid([f"{word} comic covers" for word in ("red", "blue", "green")], [("A" * n, n) for n in WITH_IMAGE])
    model.complete([ask("who?", "It", None), ask("who?", "It", 0)])
    network = model._load().network
    forward, failed = network.forward, []

    def small(**inputs: Any) -> Any:
        if inputs["attention_mask"].numel() > 240:
            failed.append(inputs["attention_mask"].shape)
            raise torch.OutOfMemoryError
        return forward(**inputs)

    monkeypatch.setattr(network, "forward", small)
    assert_plain("qwen2_vl", asked, model.complete(asked))
    assert failed
    assert model._load().batch_sizer.rows < 8


def test_without_memory_beside_a_prefix_rows_are_computed_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    model = HuggingFaceBackend(model_ref(default_system=""))
    asked = grid(["red comic covers"], [("A" * n, None) for n in range(1, 6)])
    model.complete(asked[:1])
    network = model._load().network
    forward = network.forward

    def no_cache(**inputs: Any) -> Any:
        if "past_key_values" in inputs and inputs["past_key_values"].get_seq_length():
            raise torch.OutOfMemoryError
        return forward(**inputs)

    monkeypatch.setattr(network, "forward", no_cache)
    assert_plain("qwen2_vl", asked, model.complete(asked))


@pytest.mark.parametrize("template", FAMILIES)
def test_a_model_that_answers_otherwise_in_pieces_is_not_trusted(
    template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = HuggingFaceBackend(model_ref(template, default_system=""))
    monkeypatch.setattr(Batches, "_positions", lambda _, prompt, __: np.zeros((1, len(prompt)), np.int64))
    asked = grid(["dogs", "cats"], [("A", 0), ("B", 5)])
    assert_plain(template, asked, model.complete(asked))
    assert model.stats.unshared_rows == 4
    [reason] = model.stats.reasons
    assert reason.startswith("prompts in pieces get different answers")


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ({"sliding_window": 8}, "not all of its layers attend"),
        ({"layer_types": ["sliding_attention"] * 2}, "not all of its layers attend"),
    ],
)
def test_a_model_that_forgets_is_scored_prompt_by_prompt(
    setting: dict[str, Any], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from msr_adapter.backends.prefix_cache import compatibility

    real = compatibility.attends_to_all

    def forgetful(network: Any) -> bool:
        config = network.config.get_text_config()
        monkeypatch.setattr(config, "layer_types", setting.get("layer_types"), raising=False)
        monkeypatch.setattr(config, "sliding_window", setting.get("sliding_window"), raising=False)
        told = real(network)
        monkeypatch.undo()
        return told

    monkeypatch.setattr(compatibility, "attends_to_all", forgetful)
    model = HuggingFaceBackend(model_ref(default_system=""))
    asked = grid(["dogs", "cats"], [("A", 0), ("B", None)])
    assert_plain("qwen2_vl", asked, model.complete(asked))
    assert model.stats.unshared_rows == 4
    assert reason in min(model.stats.reasons)


def test_images_that_do_not_fit_the_budget_are_encoded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    model = HuggingFaceBackend(model_ref(default_system=""))
    asked = grid(["dogs", "cats"], [("A", 0), ("B", 5)])
    model.complete(asked[:1])
    store = model._load().prefix_cache._store
    monkeypatch.setattr(store, "_budget", 1)
    before = model.stats.images_encoded
    assert_plain("qwen2_vl", asked, model.complete(asked))
    assert_plain("qwen2_vl", asked, model.complete(asked))
    assert model.stats.images_encoded - before == 1 + 2
    assert store._held == 0


@pytest.mark.parametrize("template", FAMILIES)
def test_texts_too_encode_each_image_once(template: str) -> None:
    model = HuggingFaceBackend(model_ref(template, batch_size=2))
    asked = [
        Request("m", f"<image>\n{word} this.", (image(number),), max_new_tokens=3)
        for word in ("Tell", "Describe", "What is") for number in (0, 1)
    ]  # fmt: skip
    answers = model.complete(asked)
    assert model.stats.images_encoded == 2
    assert [answer.key for answer in answers] == [request.key for request in asked]


def test_half_precision_shares_too() -> None:
    model = HuggingFaceBackend(model_ref(default_system="", dtype="bfloat16"))
    asked = grid(["dogs", "cats"], [("A", 0), ("B", 5), ("C", None)])
    answers = model.complete(asked)
    assert model.stats.unshared_rows == 0
    for request, answer in zip(asked, answers, strict=True):
        assert isinstance(answer, Completion)
        assert answer.choice_logprobs == pytest.approx(plain("qwen2_vl", request), abs=0.5)


def test_label_words_are_pooled() -> None:
    model = backend()
    one = ask("dogs", "T", 0)
    apart = [ask("dogs", "T", 0, choices=pair) for pair in (("Yes", "No"), ("yes", "no"))]
    pooled = ask("dogs", "T", 0, also=(("yes", "Yes"), ("no",)))
    logprobs = [answer.choice_logprobs for answer in model.complete([*apart, pooled]) if isinstance(answer, Completion)]
    expected = [
        math.log(math.exp(first) + math.exp(second)) for first, second in zip(logprobs[0], logprobs[1], strict=True)
    ]
    assert logprobs[2] == pytest.approx(expected, abs=1e-5)
    assert one.key == apart[0].key != pooled.key
    assert one.key == ask("dogs", "T", 0, also=((), ())).key


def test_label_words_of_both_answers_that_begin_alike_are_refused() -> None:
    with pytest.raises(StageError, match="begin with the same token"):
        backend().complete([ask("dogs", "T", 0, also=((), ("Yes!",)))])
