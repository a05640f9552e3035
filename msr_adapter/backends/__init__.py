"""Backends answer requests: a Hugging Face model, a server, or rules for tests. Models load at the first request."""

from collections.abc import Callable

from msr_adapter.config.schema import ModelConfig
from msr_adapter.generation.request import Backend
from msr_adapter.llamafactory.weights import BASE, Weights


def _huggingface(model: ModelConfig, weights: Weights) -> Backend:
    if weights.reward:
        from msr_adapter.backends.reward import RewardBackend

        return RewardBackend(model, weights)
    from msr_adapter.backends.huggingface import HuggingFaceBackend

    return HuggingFaceBackend(model, weights)


def _server(model: ModelConfig, weights: Weights) -> Backend:
    from msr_adapter.backends.openai import ServerBackend

    if weights != BASE:
        raise ValueError("a server cannot be handed trained weights")
    return ServerBackend(model)


def _scripted(model: ModelConfig, weights: Weights) -> Backend:
    from msr_adapter.backends.scripted import ScriptedBackend

    return ScriptedBackend(trained=weights != BASE)


BACKENDS: dict[str, Callable[[ModelConfig, Weights], Backend]] = {
    "huggingface": _huggingface,
    "server": _server,
    "scripted": _scripted,
}


def make_server_scorer(served: ModelConfig, taught: ModelConfig, weights: Weights) -> Backend:
    """Return what scores through a server that serves ``taught`` with these ``weights``, as far as they are here."""
    if served.backend != "server":
        return make_backend(served, weights)
    from msr_adapter.backends.openai import ServerBackend
    from msr_adapter.backends.reference_prompts import ServerScoring

    return ServerBackend(served, ServerScoring(served, taught, weights.stamps()))


def make_backend(model: ModelConfig, weights: Weights = BASE) -> Backend:
    """Return the backend that ``model.backend`` names, with the trained ``weights``."""
    return BACKENDS[model.backend](model, weights)
