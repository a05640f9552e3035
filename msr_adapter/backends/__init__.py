"""Backends answer requests: a Hugging Face model, a server, or rules for tests. Models load at the first request."""

from collections.abc import Callable
from pathlib import Path

from msr_adapter.config.models import ModelRef
from msr_adapter.generation.request import Backend


def _huggingface(model: ModelRef, adapter: Path | None, full_model: Path | None) -> Backend:
    from msr_adapter.backends.huggingface import HuggingFaceBackend

    return HuggingFaceBackend(model, adapter, full_model)


def _server(model: ModelRef, adapter: Path | None, full_model: Path | None) -> Backend:
    from msr_adapter.backends.server import ServerBackend

    if adapter is not None or full_model is not None:
        raise ValueError("a server cannot be handed trained weights")
    return ServerBackend(model)


def _scripted(model: ModelRef, adapter: Path | None, full_model: Path | None) -> Backend:
    from msr_adapter.backends.scripted import ScriptedBackend

    return ScriptedBackend(trained=(adapter or full_model) is not None)


BACKENDS: dict[str, Callable[[ModelRef, Path | None, Path | None], Backend]] = {
    "huggingface": _huggingface,
    "server": _server,
    "scripted": _scripted,
}


def make_backend(model: ModelRef, adapter: Path | None = None, full_model: Path | None = None) -> Backend:
    """Return the backend that ``model.backend`` names, with a LoRA ``adapter`` or the weights of a ``full_model``."""
    if adapter is not None and full_model is not None:
        raise ValueError("an adapter and a full model exclude each other")
    return BACKENDS[model.backend](model, adapter, full_model)
