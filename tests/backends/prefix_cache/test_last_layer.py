"""Scoring asks the last decoder layer for what is read of it alone, and only where the answers stay what they are."""

from typing import Any

import pytest
import torch

from msr_adapter.backends.huggingface import HuggingFaceBackend
from msr_adapter.backends.prefix_cache.last_layer import LastLayer
from msr_adapter.generation.request import Completion, Request
from tests.backends.prefix_cache.test_prefix_cache import FAMILIES, grid
from tests.support.tiny_run import model_ref


def opened(template: str = "qwen2_vl") -> tuple[HuggingFaceBackend, Any, Any]:
    model = HuggingFaceBackend(model_ref(template, default_system=""))
    network = model._load().network
    return model, network, network.get_decoder().layers[-1]


def assert_plain(model: HuggingFaceBackend, asked: list[Request]) -> None:
    """Compare with whole rows, one by one, of the same network."""
    loaded = model._load()
    for request, answer in zip(asked, model.complete(asked), strict=True):
        ids = loaded.encoder.encode(request.prompt, [shown.path for shown in request.images])
        assert isinstance(answer, Completion)
        assert answer.choice_logprobs == pytest.approx(loaded.score([(request, ids)])[0].choice_logprobs, abs=1e-5)


SHOWN = [("The Blue Harbour", 0), ("Night", 5), ("Comic", None)]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("template", FAMILIES)
def test_the_last_layer_works_for_one_token_a_row(template: str, attention: str) -> None:
    model, network, _ = opened(template)
    network.set_attn_implementation(attention)
    asked = [*grid(["bold covers and dogs", "quiet ships"], SHOWN), *grid(["ink"], [("Alone", 1)])]
    model.complete(asked[:3])  # the comparison with plain passes is over
    tokens: dict[str, list[tuple[int, int]]] = {"first": [], "last": []}
    layers = network.get_decoder().layers
    for name, layer in (("first", layers[0]), ("last", layers[-1])):
        layer.mlp.register_forward_hook(lambda _, given, __, seen=tokens[name]: seen.append(given[0].shape[:2]))
    before = model.stats.passes
    model.complete(asked)
    passes = model.stats.passes - before
    assert len(tokens["first"]) == passes == len(tokens["last"]) + 1, "one pass is over prefixes"
    assert {length for _, length in tokens["last"]} == {1}
    assert sum(rows for rows, _ in tokens["last"]) == len(asked)
    assert_plain(model, asked)
    assert not model.stats.reasons


def test_a_last_layer_that_looks_at_its_neighbours_works_as_ever() -> None:
    model, _, last = opened()
    last.mlp.register_forward_hook(lambda _, given, made: made + given[0].roll(1, dims=1))
    asked = grid(["bold covers and dogs", "quiet ships"], SHOWN)
    assert_plain(model, asked)
    assert not model._load().prefix_cache._runner.last_layer.trusted
    assert model.stats.unshared_rows == 0, "what prompts begin with is shared all the same"


class Layer(torch.nn.Module):
    """Adds to each token the sum of all keys so far: the tokens themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def forward(self, hidden: torch.Tensor, *_: Any, past_key_values: Any = None, **__: Any) -> torch.Tensor:
        keys = hidden[:, None]
        if past_key_values is not None:
            keys, _ = past_key_values.update(keys, keys, 0)
        self.seen.append(hidden.shape[1])
        return hidden + keys[:, 0].cumsum(1)[:, -hidden.shape[1] :]


class Network(torch.nn.Module):
    """A decoder of one layer that is handed whatever a test hands it."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList([Layer()])

    def get_decoder(self) -> torch.nn.Module:
        return self


TOKENS = torch.arange(12.0).reshape(2, 3, 2)


def test_other_tokens_leave_the_layer_as_they_came() -> None:
    network = Network()
    last, layer = LastLayer(network), network.layers[0]
    whole = layer(TOKENS, past_key_values=None)
    with last.only("last"):
        made = layer(TOKENS, past_key_values=None, attention_mask=torch.zeros(2, 1, 3, 3), use_cache=False)
    torch.testing.assert_close(made[:, -1], whole[:, -1])
    assert torch.equal(made[:, :-1], TOKENS[:, :-1])
    with last.only("state"):
        assert layer(TOKENS, past_key_values=None) is TOKENS
    assert torch.equal(layer(TOKENS, past_key_values=None), whole)
    assert layer.seen == [3, 1, 3], "whole, the last token, whole: nothing for the state"


@pytest.mark.parametrize(
    "named",
    [
        {},
        {"past_key_values": None, "cu_seq_lens_q": torch.zeros(3)},
        {"past_key_values": None, "attention_mask": object()},
        {"past_key_values": None, "position_embeddings": (torch.zeros(2, 3, 2), None)},
    ],
)
def test_what_is_not_understood_is_left_alone(named: dict[str, Any]) -> None:
    network = Network()
    last, layer = LastLayer(network), network.layers[0]
    with last.only("last"):
        layer(TOKENS, **named)
        layer(TOKENS, None, past_key_values=None)
        layer(TOKENS[None], past_key_values=None)
    assert layer.seen == [3, 3, 2], "whole each time; (1, 2, 3, 2) has more axes than tokens in rows have"


def test_a_layer_whose_weights_are_moved_about_is_left_alone() -> None:
    network = Network()
    network.layers[0]._hf_hook = object()
    assert not LastLayer(network).trusted
    assert not LastLayer(torch.nn.Linear(1, 1)).trusted
