"""Backends answer requests; which there are, and their facts, is `config.schema.backends.BACKENDS`.

huggingface         a model on this machine: label log-probabilities and greedy texts
loaded_model        the model in memory, and how it is asked
decoding            greedy texts of a stream of prompts, with finished rows replaced by new ones
reward_model        a reward model, which compares answers
prefix_cache/       scoring prompts with common prefixes
vllm/               a model on this machine, answered by vLLM
openai              a server with an OpenAI-compatible endpoint
openai_messages     requests and answers as such a server writes them
logprobs            label log-probabilities from such a server
label_tokens        exact ones, where it takes the numbers of tokens, and how one finds that out
prompt_likelihoods  likelihoods of whole texts from a server that tells those of its prompts
reference_prompts   the prompts and tokens of the training that such a server has to reproduce
http                bounded responses and retries
scripted            answers by rule, for tests

A model is loaded at the first request, never before.
"""

import importlib
from collections.abc import Callable, Mapping
from functools import partial

from msr_adapter.config.schema import ModelConfig
from msr_adapter.generation.request import Backend, BackendWrapper
from msr_adapter.llamafactory.model_weights import BASE, Weights


def make_backend(model: ModelConfig, weights: Weights = BASE) -> Backend:
    """Return the backend that ``model.backend`` names, with the trained ``weights``; nothing is loaded yet."""
    return _call(model.backend_row.make, model, weights)


def make_local(model: ModelConfig, weights: Weights) -> Backend:
    """Return the backend of a model on this machine: of a reward model, one that compares answers."""
    if weights.reward:
        from msr_adapter.backends.reward_model import RewardBackend

        return RewardBackend(model, weights)
    from msr_adapter.backends.huggingface import HuggingFaceBackend

    return HuggingFaceBackend(model, weights)


def make_chosen(model: ModelConfig, weights: Weights) -> Backend:
    """Return the backend that `auto` stands for on this machine; `Backend.facts` say which, and why."""
    from msr_adapter.backends.vllm.installed import choose

    chosen = choose(model)
    return make_explained(partial(make_backend, chosen.model, weights), chosen.because)


def make_explained(make: Callable[[], Backend], because: str) -> Backend:
    """Return the backend that ``make`` makes, whose `Backend.facts` say why `auto` stands for it."""
    return ChosenBackend(make(), because)


class ChosenBackend(BackendWrapper):
    """The backend that `auto` stands for."""

    def __init__(self, backend: Backend, because: str) -> None:
        super().__init__(backend)
        self._because = because

    @property
    def facts(self) -> Mapping[str, str]:
        """As `Backend.facts`, with the reason of the choice."""
        return {"name": "transformers", **self._backend.facts, "chosen": f"auto: {self._because}"}


def make_server_scorer(served: ModelConfig, trained: ModelConfig, weights: Weights) -> Backend:
    """Return what scores in place of ``trained`` with these ``weights``, as far as they are here (`evaluate.scorer`).

    Raises `ValueError` for a backend that cannot.
    """
    if served.backend_row.make_scorer is None:
        raise ValueError(f"backend {served.backend} cannot score for another model")
    return _call(served.backend_row.make_scorer, served, trained, weights)


def _call(path: str, *arguments: object) -> Backend:
    module, _, function = path.partition(":")
    made: Backend = getattr(importlib.import_module(module), function)(*arguments)
    return made
