"""The parts of models with images, as LLaMA-Factory 0.9.5 knows them: only of these can it freeze one part alone."""

import json
from collections.abc import Mapping
from typing import Any

from msr_adapter.config.models import ModelRef
from msr_adapter.llamafactory.recognise import model_file

_PROJECTOR = ("multi_modal_projector",)
_MERGER = ("visual.merger",)

PROJECTORS: Mapping[str, tuple[str, ...]] = {
    "Keye": ("mlp_AR",), "dots_ocr": ("vision_tower.merger",), "gemma3": _PROJECTOR, "gemma3n": _PROJECTOR,
    "gemma4": ("model.embed_vision", "model.embed_audio"), "glm4v": _MERGER, "glm4v_moe": _MERGER, "glm_ocr": _MERGER,
    "interns1": _PROJECTOR, "internvl": _PROJECTOR, "kimi_vl": _PROJECTOR, "llama4": _PROJECTOR, "llava": _PROJECTOR,
    "llava_next": _PROJECTOR, "llava_next_video": _PROJECTOR, "minicpmo": ("resampler",), "minicpmv": ("resampler",),
    "minicpmv4_6": ("model.merger",), "mistral3": ("model.multi_modal_projector",), "mllama": _PROJECTOR,
    "paligemma": _PROJECTOR, "qwen2_5_omni_thinker": ("visual.merger", "audio_tower.proj"), "qwen2_5_vl": _MERGER,
    "qwen2_audio": _PROJECTOR, "qwen2_vl": _MERGER, "qwen3_5": ("model.visual.merger",),
    "qwen3_5_moe": ("model.visual.merger",), "qwen3_omni_moe_thinker": ("visual.merger", "audio_tower.proj"),
    "qwen3_vl": _MERGER, "qwen3_vl_moe": _MERGER, "video_llava": _PROJECTOR,
}  # fmt: skip
"""`model_type` -> modules that turn image features into tokens. A test compares it with LLaMA-Factory's own table."""


def model_config(model: ModelRef) -> dict[str, Any] | None:
    """Return the model's `config.json`; None when it is not on this machine."""
    path = model_file(model, "config.json")
    return None if path is None else dict(json.loads(path.read_text(encoding="utf-8")))
