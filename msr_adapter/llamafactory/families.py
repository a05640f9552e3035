"""The model families that msr is tested with, and what each needs: one table, read from top to bottom.

Each one is trained, scored, asked for texts and compared token by token in the tests, as a tiny random model of its
architecture. `docs/models.md` is written from this table. Importing it imports neither torch nor llamafactory.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

_NO_KTO = {
    "kto": "LLaMA-Factory 0.9.5 drops the M-RoPE positions on the way to its KTO loss, and the model ends in an error"
}
_NO_FLOAT16 = {"float16": "activations of Gemma 3 exceed the range of float16 and turn into NaN"}


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
    """Pixels along the side of one image token: a picture's tokens follow from the pixel budget."""
    image_tokens: int = 0
    """Tokens of a picture whatever the pixel budget; `exact` says whether all of them or at most."""
    exact: bool = True
    mrope: bool = False
    """Positions are three-dimensional."""
    lora_target: str = "all"
    """Every linear layer of the language model; vision tower and projector stay as they are."""
    dtype: str = "bfloat16"
    """The precision to run it in on a GPU."""
    limits: Mapping[str, str] = field(default_factory=dict)
    """Objective (`kto`) or dtype that does not work -> why."""
    note: str = ""

    @property
    def sees_images(self) -> bool:
        """Tell whether pictures can be shown to it."""
        return bool(self.token_side or self.image_tokens)


FAMILIES: tuple[Family, ...] = (
    Family(
        "qwen2-vl", "Qwen/Qwen2-VL-2B-Instruct", "qwen2_vl", "qwen2_vl", ("Yes", "No"),
        token_side=28, mrope=True, limits=_NO_KTO,
    ),
    Family(
        "qwen2.5-vl", "Qwen/Qwen2.5-VL-3B-Instruct", "qwen2_5_vl", "qwen2_vl", ("Yes", "No"),
        token_side=28, mrope=True, limits=_NO_KTO,
    ),
    Family(
        "qwen3-vl", "Qwen/Qwen3-VL-2B-Instruct", "qwen3_vl", "qwen3_vl_nothink", ("Yes", "No"),
        token_side=32, mrope=True, limits=_NO_KTO,
    ),
    Family(
        "llava-1.5", "llava-hf/llava-1.5-7b-hf", "llava", "llava", ("▁Yes", "▁No"),
        text_type="llama", vision_type="clip_vision_model", image_tokens=576,
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
        note="`*-hf` checkpoints only; one tile a picture; the template's system text is Chinese",
    ),
    Family(
        "gemma3", "google/gemma-3-4b-it", "gemma3", "gemma3", ("Yes", "No"), image_tokens=256, limits=_NO_FLOAT16,
        note="no pan and scan",
    ),
    Family("qwen2.5", "Qwen/Qwen2.5-0.5B-Instruct", "qwen2", "qwen", ("Yes", "No"), mark="<|im_start|>"),
    Family("qwen3", "Qwen/Qwen3-0.6B", "qwen3", "qwen3_nothink", ("Yes", "No"), mark="<|im_start|>"),
    Family("llama3", "meta-llama/Llama-3.2-1B-Instruct", "llama", "llama3", ("Yes", "No"), mark="<|start_header_id|>"),
)  # fmt: skip


def of_template(template: str) -> Family | None:
    """Return a family that uses ``template``, thinking or not; those that share one see pictures alike."""
    name = template.removesuffix("_nothink")
    return next((family for family in FAMILIES if family.template.removesuffix("_nothink") == name), None)


UNSUPPORTED: Mapping[str, str] = {
    "InternVLChatModel": "LLaMA-Factory takes InternVL in the transformers format: a repository whose name ends in -hf",
    "LlavaLlamaForCausalLM": "LLaMA-Factory takes LLaVA in the transformers format: a repository of llava-hf",
    "LlavaMistralForCausalLM": "LLaMA-Factory takes LLaVA in the transformers format: a repository of llava-hf",
}
"""Architecture -> why a model of it cannot be used."""

REASONING = frozenset({
    "aeva", "deepseekr1", "ernie_vl", "gemma4", "gemma4n", "glm4_5v", "glm4_7", "glm4_moe", "glm4v", "glmz1", "gpt_oss",
    "hy3", "keye_vl", "kimi_vl", "mimo", "mimo_v2", "mimo_vl", "minimax2", "qwen3", "qwen3_5", "qwen3_6", "qwen3_omni",
    "qwen3_vl", "seed_oss", "youtu",
})  # fmt: skip
"""Templates of LLaMA-Factory that put a thought before every answer, so that Yes or No never comes first."""
