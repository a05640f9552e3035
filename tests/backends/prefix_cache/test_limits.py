"""What the prefix cache keeps in memory, which models it refuses, and images that disappear."""

import gc
import shutil
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MambaConfig, MambaForCausalLM, MptConfig, MptForCausalLM
from transformers.modeling_outputs import BaseModelOutput

from msr_adapter.backends.huggingface import HuggingFaceBackend
from msr_adapter.backends.prefix_cache.batch_sizer import BatchSizer
from msr_adapter.backends.prefix_cache.batches import Batches, Prompt
from msr_adapter.backends.prefix_cache.compatibility import stable_positions
from msr_adapter.backends.prefix_cache.image_features import Features, FeatureStore, ImageFeatures, UnsharableError
from msr_adapter.backends.prefix_cache.prefix_cache import PrefixCache
from msr_adapter.backends.prefix_cache.prompt_grouping import Group
from msr_adapter.generation.request import Completion, Failure, Image, Request
from msr_adapter.generation.scoring_stats import ScoringStats
from tests.backends.prefix_cache.test_prefix_cache import FAMILIES, ask, assert_plain, backend, grid, image
from tests.support.tiny_run import model_ref


@pytest.mark.parametrize("template", FAMILIES)
@pytest.mark.parametrize("summary", ["bold", "bold and quiet comic covers with ships and dogs"])
def test_no_more_images_are_held_than_a_pass_shows(
    template: str, summary: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows of the first summary share too little, those of the second share a prefix."""
    model = HuggingFaceBackend(model_ref(template, default_system=""))
    asked = grid([summary], [(f"Title {number}" * (number % 3 + 1), number) for number in (0, 1, 2, 5, 6, 8, 9)])
    model.complete([ask("who?", "It", None), ask("who?", "It", 0)])
    model._load().prefix_cache.forget()
    alive: weakref.WeakSet[_Hashed] = weakref.WeakSet()
    most = []
    split = FeatureStore._split

    def watched(self: FeatureStore, *arguments: Any) -> list[Features]:
        made = [_Hashed(**vars(one)) for one in split(self, *arguments)]
        alive.update(made)
        gc.collect()
        most.append(len(alive))
        return made

    monkeypatch.setattr(FeatureStore, "_split", watched)
    monkeypatch.setattr(model._load().prefix_cache._store, "_budget", 1)
    monkeypatch.setattr(model._load().batch_sizer, "rows", 2)
    assert_plain(template, asked, model.complete(asked))
    assert max(most) <= 2 < len(asked)


class _Hashed(Features):
    __hash__ = object.__hash__
    __eq__ = object.__eq__  # type: ignore[assignment]


@pytest.mark.parametrize("template", FAMILIES)
def test_a_kept_image_keeps_no_other_one(template: str) -> None:
    store = backend(template)._load().prefix_cache._store
    for features in store.find([image(number) for number in (0, 1, 2)]).values():
        for part in (features.main, *features.deeper):
            assert part.untyped_storage().nbytes() == part.nbytes


def test_prefixes_fit_their_budget_with_their_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = backend()._load().prefix_cache._runner
    monkeypatch.setattr(runner, "_budget", 100 * runner._token_bytes)
    groups = [Group(size, (row,)) for row, size in enumerate((10, 60, 50, 10, 10, 0, 120))]
    waves = [[group.shared for group in wave] for wave in runner._waves(groups)]
    assert waves == [[120], [60], [50, 10], [10, 10, 0]]


def alone(network: Any, refused: str = "") -> PrefixCache:
    def collate(prompt: Prompt) -> dict[str, torch.Tensor]:
        return {"input_ids": torch.from_numpy(prompt.ids)[None], "attention_mask": torch.ones(1, len(prompt)).long()}

    return PrefixCache(network.eval(), lambda _: {}, collate, 0, BatchSizer(8), refused)


SIZES: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 64}
WORDS = Prompt(np.arange(1, 41), ())


def test_a_model_to_which_padding_is_distance_is_refused() -> None:
    """ALiBi counts columns: with padding between a prefix and its rest they are further apart."""
    torch.manual_seed(0)
    alibi = alone(MptForCausalLM(MptConfig(d_model=32, n_heads=4, n_layers=2, vocab_size=64, expansion_ratio=2)))
    assert alibi.refusal([WORDS]).startswith("prompts in pieces get different answers")
    llama = LlamaForCausalLM(LlamaConfig(**SIZES, num_attention_heads=2, intermediate_size=64))
    assert alone(llama).refusal([WORDS]) == ""


def test_positions_that_change_with_the_length_are_shared_up_to_there() -> None:
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10_000.0}
    sizes = {**SIZES, "num_attention_heads": 2, "intermediate_size": 64, "max_position_embeddings": 32}
    prefix_cache = alone(LlamaForCausalLM(LlamaConfig(**sizes, rope_parameters=rope)))
    assert prefix_cache.refusal([Prompt(np.arange(1, 33), ())]) == ""
    assert prefix_cache.refusal([WORDS]) == "its positions change with prompts of more than 32 tokens, and one has 40"
    long = SimpleNamespace(rope_parameters={"rope_type": "longrope", "original_max_position_embeddings": 7})
    assert stable_positions(SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: long))) == 7


def test_a_model_without_attention_is_refused_not_measured() -> None:
    network = MambaForCausalLM(MambaConfig(**SIZES, state_size=4))
    assert alone(network, "it remembers").refusal([WORDS]) == "it remembers"


def test_a_refusal_of_images_says_nothing_of_text(monkeypatch: pytest.MonkeyPatch) -> None:
    model = HuggingFaceBackend(model_ref(default_system=""))
    prefix_cache = model._load().prefix_cache
    monkeypatch.setattr(FeatureStore, "_encode", raising(UnsharableError("its images come with a mask")))
    asked = grid(["dogs", "cats"], [("A", None), ("B", None)])
    assert_plain("qwen2_vl", [*asked, ask("dogs", "A", 0)], model.complete([*asked, ask("dogs", "A", 0)]))
    assert model.stats.reasons == {"its images come with a mask"}
    assert prefix_cache._runner.last_layer.trusted
    unshared = model.stats.unshared_rows
    assert_plain("qwen2_vl", asked, model.complete(asked))
    assert model.stats.unshared_rows == unshared


def raising(error: Exception) -> Any:
    def raises(*_: Any) -> None:
        raise error

    return raises


def test_a_model_that_is_not_trusted_writes_as_generate_does(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [Request("m", f"Say {word}.", max_new_tokens=4) for word in ("red and blue", "dogs", "a")]
    model = HuggingFaceBackend(model_ref(default_system=""))
    expected = model._load().write([(request, model._load().encoder.encode(request.prompt)) for request in asked])
    monkeypatch.setattr(Batches, "_positions", lambda _, prompt, __: np.zeros((1, len(prompt)), np.int64))
    assert model._load().decoder(model._load().encoder.encode("Say it."), lambda _: ()) is None
    assert model.complete(asked) == expected


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # what LLaMA-Factory had open already
@pytest.mark.parametrize("scored", [True, False])
def test_a_image_that_disappears_fails_alone(scored: bool, tmp_path: Path) -> None:
    shutil.copy(image(0).path, tmp_path / "0.png")
    going = Image(tmp_path / "0.png", "going")
    how: dict[str, Any] = {"choices": ("Yes", "No")} if scored else {"max_new_tokens": 2}
    model = HuggingFaceBackend(model_ref(default_system=""))
    model.complete([Request("m", "<image>\nA?", (going,), **how)])
    model._load().prefix_cache.forget()
    going.path.unlink()
    rows = [Request("m", "<image>\nB?", (going,), **how), Request("m", "<image>\nC?", (image(5),), **how)]
    lost, found = model.complete([*rows])
    assert isinstance(found, Completion)
    assert isinstance(lost, Failure)
    assert lost.reason == "image 0.png cannot be read (readable before, but not now)"


@pytest.mark.parametrize("deeper", [(), (torch.ones(3, 4),)])
def test_features_are_handed_over_in_the_form_that_the_family_uses(deeper: tuple[torch.Tensor, ...]) -> None:
    """Pixtral, Mistral 3 and SmolVLM add the images to an output that has no field for them."""
    tower = SimpleNamespace(get_image_features=lambda **_: later(BaseModelOutput()))

    def later(made: Any) -> Any:
        made.pooler_output = [torch.ones(3, 4)]
        made.deepstack_features = list(deeper)
        return made

    network = SimpleNamespace(model=tower, device=torch.device("cpu"))
    store = FeatureStore(network, lambda _: {"pixel_values": torch.ones(1)}, BatchSizer(4), 10**6, ScoringStats())
    store.install()
    [features] = store.find([image(0)]).values()
    handed = tower.get_image_features(pixel_values=ImageFeatures([features], [slice(1, 3)]))
    assert isinstance(handed, BaseModelOutput)
    assert torch.equal(handed.pooler_output[0], torch.ones(2, 4))
    assert ImageFeatures([features] * 2, [slice(0, 3)] * 2).stacked().shape == (2, 3, 4)
    assert [level.shape for level in getattr(handed, "deepstack_features", [])] == [(2, 4)] * len(deeper)


@pytest.mark.parametrize(
    ("ids", "cuts"),
    [("wwwwwwwwww", (6, 5)), ("wwwPPPwwww", (6, 3)), ("wwPPPPPPPw", (9, 2)), ("wwwwwPPPPP", (5, 5)), ("PPww", (2, 1)),
     ("ww", (1, 1))],
)  # fmt: skip
def test_a_trial_cuts_no_image_in_two(ids: str, cuts: tuple[int, int]) -> None:
    batches = backend()._load().prefix_cache.batches
    assert batches.cuts(Prompt(np.array([batches._image_token if one == "P" else 99 for one in ids]), ())) == cuts
