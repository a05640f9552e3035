"""The model families that msr is tested with, and all that each needs or cannot do: one table, read from top to bottom.

Each one is trained, scored, asked for texts and compared token by token in the tests, as a tiny random model of its
architecture. `docs/models.md` is written from this table. Importing it imports neither torch nor llamafactory;
`family_recognition` tells which family a model is of.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

MROPE_LIMITS = {"kto": "LLaMA-Factory 0.9.5 drops the M-RoPE positions of image tokens before its KTO loss, so "
                       "training ends in an error"}  # fmt: skip
_LLAVA_LIMITS = {"reward": "LLaMA-Factory 0.9.5 looks for parts of LLaVA by names that transformers 5 no longer has"}
_GEMMA3_LIMITS = {"float16": "activations of Gemma 3 exceed the range of float16 and turn into NaN"}


@dataclass(frozen=True)
class Family:
    """Models of one architecture that speak one chat format."""

    name: str
    example: str
    """A hub id."""
    model_type: str
    """What `config.json` says."""
    template: str
    """The LLaMA-Factory template."""
    answer: tuple[str, str]
    """First tokens of Yes and No, which training teaches and scoring reads."""
    text_type: str = ""
    """`text_config.model_type`, where one model type has several chat formats."""
    vision_type: str = ""
    """`vision_config.model_type`, where it matters."""
    mark: str = ""
    """What the chat template must hold (without one: the tokenizer's settings), where types do not tell."""
    token_side: int = 0
    """Pixels along the side of one image token: the number of tokens follows from the pixel budget."""
    image_tokens: int = 0
    """Tokens of an image whatever the pixel budget; `exact` says whether all of them or at most."""
    exact: bool = True
    mrope: bool = False
    """Positions of image tokens are three-dimensional."""
    lora_target: str = "all"
    """Every linear layer of the language model; vision tower and projector stay as they are."""
    dtype: str = "bfloat16"
    """The precision to run it in on a GPU."""
    limits: Mapping[str, str] = field(default_factory=dict)
    """Objective or dtype that does not work with these models -> why."""
    note: str = ""

    @property
    def sees_images(self) -> bool:
        """Tell whether images can be shown to it."""
        return bool(self.token_side or self.image_tokens)


FAMILIES: tuple[Family, ...] = (
    Family(
        "qwen2-vl", "Qwen/Qwen2-VL-2B-Instruct", "qwen2_vl", "qwen2_vl", ("Yes", "No"),
        token_side=28, mrope=True, limits=MROPE_LIMITS,
    ),
    Family(
        "qwen2.5-vl", "Qwen/Qwen2.5-VL-3B-Instruct", "qwen2_5_vl", "qwen2_vl", ("Yes", "No"),
        token_side=28, mrope=True, limits=MROPE_LIMITS,
    ),
    Family(
        "qwen3-vl", "Qwen/Qwen3-VL-2B-Instruct", "qwen3_vl", "qwen3_vl_nothink", ("Yes", "No"),
        token_side=32, mrope=True, limits=MROPE_LIMITS,
    ),
    Family(
        "llava-1.5", "llava-hf/llava-1.5-7b-hf", "llava", "llava", ("▁Yes", "▁No"),
        text_type="llama", vision_type="clip_vision_model", image_tokens=576, limits=_LLAVA_LIMITS,
    ),
    Family(
        "llava-next", "llava-hf/llava-v1.6-mistral-7b-hf", "llava_next", "llava_next_mistral", ("▁Yes", "▁No"),
        text_type="mistral", image_tokens=2_928, exact=False, note="the paper's model",
    ),
    Family(
        "llava-next-llama3", "llava-hf/llama3-llava-next-8b-hf", "llava_next", "llava_next_llama3", ("Yes", "No"),
        text_type="llama", mark="<|start_header_id|>", image_tokens=2_928, exact=False,
    ),
    Family(
        "llava-next-vicuna", "llava-hf/llava-v1.6-vicuna-7b-hf", "llava_next", "llava_next", ("▁Yes", "▁No"),
        text_type="llama", mark="ASSISTANT:", image_tokens=2_928, exact=False,
    ),
    Family(
        "llava-next-qwen", "llava-hf/llava-next-72b-hf", "llava_next", "llava_next_qwen", ("Yes", "No"),
        text_type="qwen2", image_tokens=2_928, exact=False,
    ),
    Family(
        "internvl", "OpenGVLab/InternVL3-1B-hf", "internvl", "intern_vl", ("Yes", "No"), image_tokens=256,
        note="`*-hf` checkpoints only; one tile per image; the template's system text is Chinese",
    ),
    Family(
        "gemma3", "google/gemma-3-4b-it", "gemma3", "gemma3", ("Yes", "No"), image_tokens=256, limits=_GEMMA3_LIMITS,
        note="no pan and scan",
    ),
    Family("qwen2.5", "Qwen/Qwen2.5-0.5B-Instruct", "qwen2", "qwen", ("Yes", "No"), mark="<|im_start|>"),
    Family("qwen3", "Qwen/Qwen3-0.6B", "qwen3", "qwen3_nothink", ("Yes", "No"), mark="<|im_start|>"),
    Family("llama3", "meta-llama/Llama-3.2-1B-Instruct", "llama", "llama3", ("Yes", "No"), mark="<|start_header_id|>"),
    Family(
        "smollm2", "HuggingFaceTB/SmolLM2-135M-Instruct", "llama", "smollm2", ("Yes", "No"), mark="named SmolLM",
        note="`msr get-model smollm2`; the template's system text ends in a full stop that the model's own lacks",
    ),
)  # fmt: skip


def family_of_template(template: str) -> Family | None:
    """Return a family that uses ``template``, thinking or not; those that share one encode images alike."""
    name = template.removesuffix("_nothink")
    return next((family for family in FAMILIES if family.template.removesuffix("_nothink") == name), None)


UNSUPPORTED: Mapping[str, str] = {
    "InternVLChatModel": "LLaMA-Factory needs InternVL in the transformers format: a repository whose name ends in -hf",
    "LlavaLlamaForCausalLM": "LLaMA-Factory needs LLaVA in the transformers format: a repository of llava-hf",
    "LlavaMistralForCausalLM": "LLaMA-Factory needs LLaVA in the transformers format: a repository of llava-hf",
}
"""Architecture -> why a model of it cannot be used."""

REASONING = frozenset({
    "aeva", "deepseekr1", "ernie_vl", "gemma4", "gemma4n", "glm4_5v", "glm4_7", "glm4_moe", "glm4v", "glmz1", "gpt_oss",
    "hy3", "keye_vl", "kimi_vl", "mimo", "mimo_v2", "mimo_vl", "minimax2", "qwen3", "qwen3_5", "qwen3_6", "qwen3_omni",
    "qwen3_vl", "seed_oss", "youtu",
})  # fmt: skip
"""Templates of LLaMA-Factory that put a thought before every answer, so that Yes or No never comes first."""

MROPE_TEMPLATES = ("qwen2_vl", "qwen2_omni", "qwen3_vl", "qwen3_5", "qwen3_6", "qwen3_omni", "glm4v", "glm4_5v",
                   "glm_ocr", "ernie_vl", "keye_vl", "mimo_vl")  # fmt: skip
"""How the names of the templates begin whose models have M-RoPE, tested families or not: all that there is to go by
where a model's files are not on this machine."""

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
"""`model_type` -> modules that turn image features into tokens: only of these models can LLaMA-Factory 0.9.5 freeze one
part alone. A test compares it with LLaMA-Factory's own table."""
