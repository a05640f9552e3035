"""Prompts with several images: shared scores equal plain ones, and each image is known, and shared, by itself."""

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msr_adapter.backends.huggingface import HuggingFaceBackend
from msr_adapter.generation.request import Request
from tests.backends.prefix_cache.test_prefix_cache import CHOICES, FAMILIES, WITH_IMAGE, assert_plain, backend, image
from tests.support.tiny_run import model_ref

Shown = tuple[int, ...]


def ask(history: Shown, shown: Shown, *, item_first: bool = False) -> Request:
    """Return a request about a candidate with the images ``shown`` and a user who chose ``history``."""
    user = "".join(f"- chosen {place}: <image>\n" for place in range(len(history)))
    item = "Candidate:\n" + "<image>\n" * len(shown) + f"Title: {sum(shown)}\n"
    images = tuple(map(image, (*shown, *history) if item_first else (*history, *shown)))
    return Request("m", f"{item}{user}Yes?" if item_first else f"{user}{item}Yes?", images, CHOICES)


several = st.lists(st.sampled_from(WITH_IMAGE), max_size=3).map(tuple)


@pytest.mark.parametrize("template", FAMILIES)
def test_shared_scores_equal_plain_ones(template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = backend(template)
    sizer, runner = model._load().batch_sizer, model._load().prefix_cache._runner

    @settings(deadline=None, max_examples=6, derandomize=True)
    @given(
        users=st.lists(several, min_size=1, max_size=3), shown=st.lists(several, min_size=1, max_size=3),
        item_first=st.booleans(), rows=st.integers(1, 9), budget=st.sampled_from((1, 20_000, 10**9)),
    )  # fmt: skip
    def holds(users: list[Any], shown: list[Any], item_first: bool, rows: int, budget: int) -> None:
        asked = [ask(*pair, item_first=item_first) for pair in itertools.product(users, shown)]
        monkeypatch.setattr(sizer, "rows", rows)
        monkeypatch.setattr(runner, "_budget", budget)
        assert_plain(template, asked, model.complete(asked))

    holds()
    assert not model.stats.reasons


@pytest.mark.parametrize("template", FAMILIES)
def test_the_images_of_a_history_are_computed_once_for_all_candidates(template: str) -> None:
    model = HuggingFaceBackend(model_ref(template, default_system=""))
    candidates = [(0, 1), (2,), (5, 6), (1, 0), ()]
    asked = [ask((0, 5), shown) for shown in candidates]
    model.complete(asked)
    encode = model._load().encoder.encode
    rows = [encode(request.prompt, [one.path for one in request.images]) for request in asked]
    prefix = len(encode(asked[0].prompt.split("Candidate")[0], [one.path for one in asked[0].images[:2]]))
    stats = model.stats
    assert stats.tokens_flat == sum(map(len, rows))
    # The frame around a prompt ends the history alone, and nothing of the candidates that follow it.
    assert stats.tokens_planned < stats.tokens_flat - (len(asked) - 1) * (prefix - 12)
    assert (stats.images_shown, stats.images_distinct, stats.images_encoded) == (17, 5, 5)
