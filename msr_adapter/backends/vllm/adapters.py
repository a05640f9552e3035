"""Trained adapters for an engine: vLLM's own LoRA where it can apply them, else merged once into a kept folder."""

import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msr_adapter.backends.vllm.installed import sees_gpu
from msr_adapter.config.schema import ModelConfig
from msr_adapter.llamafactory.model_weights import Weights, own_adapters, resolve_model

_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Room for the ranks of adapters that vLLM offers."""
_LANGUAGE = ("lm_head", "embed_tokens")
"""Parts of the language model whose adapters vLLM's versions treat differently."""
_SEEING = ("visual", "vision", "projector", "merger")
"""In the names of the layers that see: vLLM applies adapters to the language model alone."""
_PLACE = "MSR_MERGED_MODELS"


@dataclass(frozen=True)
class EngineWeights:
    """What an engine loads."""

    folder: str
    """A model's folder, or its hub id."""
    lora: Path | None = None
    """An adapter that vLLM applies itself."""
    lora_rank: int = 0
    """Room for its rank."""


def engine_weights(model: ModelConfig, weights: Weights, identity: str) -> EngineWeights:
    """Return what an engine loads for ``model`` with ``weights``; ``identity`` names the folder of a merged model.

    Merges adapters where vLLM cannot apply them: on the CPU, as scoring does, once. Raises as the loading of a model.
    """
    base = str(weights.full.resolve()) if weights.full else resolve_model(model.path)
    adapters = own_adapters(model) + weights.adapters
    if not adapters:
        return EngineWeights(base)
    if why_merged(adapters):
        return EngineWeights(str(merged_folder(model, weights, identity)))
    rank = int(_settings(adapters[0])["r"])
    return EngineWeights(base, adapters[0], next(room for room in _RANKS if room >= rank))


def how_applied(model: ModelConfig, weights: Weights) -> str:
    """Return how an engine applies the adapters of ``model`` and ``weights``; empty where there are none."""
    adapters = own_adapters(model) + weights.adapters
    if not adapters:
        return ""
    why = why_merged(adapters)
    return f"merged into the model, because {why}" if why else "applied by vLLM"


def why_merged(adapters: tuple[Path, ...]) -> str:
    """Return why vLLM cannot apply these adapters by itself; empty where it can."""
    if len(adapters) > 1:
        return "vLLM applies one adapter to a prompt, and these are trained on top of each other"
    settings = _settings(adapters[0])
    rank = settings.get("r")
    if not isinstance(rank, int) or rank > _RANKS[-1]:
        return f"vLLM has no room for rank {rank}"
    if settings.get("rank_pattern") or settings.get("alpha_pattern"):
        return "its layers have different ranks"
    named = ("use_dora", "modules_to_save", "layer_replication", "lora_bias", "trainable_token_indices")
    if given := [name for name in named if settings.get(name)]:
        return f"vLLM does not know {given[0]}"
    if settings.get("bias", "none") != "none":
        return "vLLM does not know adapters with biases"
    if not (layers := _layers(adapters[0])):
        return "its tensors are not in safetensors"
    if seeing := next((name for name in layers if any(sign in name for sign in _SEEING)), ""):
        return f"it changes vision layers ({seeing})"
    if odd := next((name for name in layers if any(sign in name for sign in _LANGUAGE)), ""):
        return f"it changes {odd}"
    return "" if sees_gpu() else "vLLM applies adapters only on a GPU"


def merged_folder(model: ModelConfig, weights: Weights, identity: str) -> Path:
    """Return the folder of the merged model, written where it is not there yet, by a rename."""
    from msr_adapter.llamafactory.merged_model import write_merged_model

    place = merged_models()
    folder = place / identity[:32]
    if folder.is_dir():
        return folder
    place.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=place))
    try:
        write_merged_model(model, weights, made, model.dtype)
        try:
            made.replace(folder)
        except OSError:
            # Another worker was faster: what it wrote is the same.
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return folder


def merged_models() -> Path:
    """Return where merged models are kept: `MSR_MERGED_MODELS`, else below the user's cache; each can be deleted."""
    if named := os.environ.get(_PLACE):
        return Path(named).expanduser()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return cache / "msr-adapter" / "merged"


def _settings(adapter: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    return found


def _layers(adapter: Path) -> list[str]:
    """Return the names of an adapter's tensors; none where they are not in safetensors."""
    from safetensors import safe_open

    path = adapter / "adapter_model.safetensors"
    if not path.is_file():
        return []
    with safe_open(path, framework="numpy") as tensors:
        return sorted(tensors.keys())
