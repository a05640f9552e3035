"""The model families that msr is tested with, and what each needs: one table, read from top to bottom.

Each one is trained, scored, asked for texts and compared token by token in the tests, as a tiny random model of its
architecture. `docs/models.md` is written from this table. Importing it imports neither torch nor llamafactory.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msr_adapter.config.schema import AUTO, ModelConfig
from msr_adapter.errors import Problem, UserError
from msr_adapter.files import bundled_model, read_json_object

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

# Which family is this model of, and which template is its own? Read from the model's files; no weight, no torch.

_CHAT_FILES = ("chat_template.jinja", "chat_template.json")
_TOKENIZER_FILES = ("tokenizer_config.json", "tokenizer.json")
_DOCS = "docs/models.md lists the families that msr is tested with"


@dataclass(frozen=True)
class ModelFacts:
    """What a model's files say of it."""

    model_type: str
    text_type: str
    vision_type: str
    architectures: tuple[str, ...]
    chat: str
    """Its chat template; where it has none, the settings of its tokenizer."""


def model_file(model: ModelConfig, name: str) -> Path | None:
    """Find a file of the model in its folder or in the cache of the hub, without asking the network."""
    folder = bundled_model(model.path) or Path(model.path).expanduser()
    if folder.is_dir():
        return folder / name if (folder / name).is_file() else None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(model.path, name, revision=model.revision or "main")
    except HFValidationError:  # no hub id either: a path that does not exist is reported by `msr check`
        return None
    return Path(cached) if isinstance(cached, str) else None


def facts(model: ModelConfig) -> ModelFacts | None:
    """Read the model's files; None when its `config.json` is not on this machine or is no JSON object."""
    config = read_json_object(model_file(model, "config.json"))
    if not config.get("model_type") and not config.get("architectures"):
        return None
    return ModelFacts(
        str(config.get("model_type", "")),
        _part(config, "text_config", "llama"),
        _part(config, "vision_config", "clip_vision_model"),
        tuple(config.get("architectures") or ()),
        _chat(model),
    )


def family_of(model: ModelConfig) -> Family | None:
    """Return the tested family that the model is of, or None: another one, or its files are not on this machine."""
    found = facts(model)
    return None if found is None else _family(found)


def resolve_template(model: ModelConfig, where: str = "", role: str = "model", *, download: bool = True) -> ModelConfig:
    """Return ``model`` with its template spelled out; as it is when it is not loaded here and nothing is known of it.

    Raises `UserError`, naming ``where`` and ``role``, for a template that is not the model's own, for one that cannot
    be inferred, and for what is known not to work. ``download`` fetches the few small files of a hub model that tell;
    without it, a model that is not on this machine stays `auto`.
    """
    if model.template == AUTO and download and model.backend_row.local:
        _fetch(model)
    if problems := template_problems(model, where, role):
        raise UserError(problems)
    family = family_of(model)
    if model.template != AUTO:
        return model
    if family is not None:
        return model.model_copy(update={"template": family.template})
    if not download or not model.backend_row.local:
        return model
    here = bundled_model(model.path) or Path(model.path).expanduser()
    reason = "names no model_type" if here.is_dir() else "is not on this machine and cannot be downloaded"
    found = f"cannot be inferred: the config.json of {model.path} {reason}"
    raise UserError(Problem(where, f"{role}.template", found, "a LLaMA-Factory template", _DOCS))


def template_problems(model: ModelConfig, where: str = "", role: str = "model") -> list[Problem]:
    """Return what is wrong with the template, as far as the files on this machine tell."""
    if not model.backend_row.local:
        return []
    found, field = facts(model), f"{role}.template"
    family = _family(found) if found else None
    if found and (reasons := [UNSUPPORTED[name] for name in found.architectures if name in UNSUPPORTED]):
        return [Problem(where, f"{role}.path", f"{model.path} cannot be used: {reasons[0]}")]
    if family is not None:
        return _against(family, model, where, role)
    if model.template in REASONING:
        words = f"{model.template} puts a thought before every answer, so Yes or No never comes first"
        return [Problem(where, field, words, "a template without reasoning", _plain(model.template))]
    if found and model.template == AUTO:
        words = f"cannot be inferred: {_described(found)} is not among the tested families"
        return [Problem(where, field, words, "the model's LLaMA-Factory template", f"Write it there. {_DOCS}")]
    return []


def _against(family: Family, model: ModelConfig, where: str, role: str) -> list[Problem]:
    problems = []
    if model.template not in (AUTO, family.template):
        words = f"`{model.template}` is not the template of {model.path}, a {family.name}"
        if model.template in REASONING:
            words += ", and it puts a thought before every answer"
        step = "Correct or remove the line: the template is found by itself"
        problems.append(Problem(where, f"{role}.template", words, family.template, step))
    if reason := family.limits.get(model.dtype):
        problems.append(Problem(where, f"{role}.dtype", f"{model.dtype} on a {family.name}: {reason}", family.dtype))
    return problems


def _family(found: ModelFacts) -> Family | None:
    return next((family for family in FAMILIES if _fits(family, found)), None)


def _fits(family: Family, found: ModelFacts) -> bool:
    return (
        family.model_type == found.model_type
        and family.text_type in ("", found.text_type)
        and family.vision_type in ("", found.vision_type)
        and family.mark in found.chat
    )


def _plain(template: str) -> str:
    known = {family.template for family in FAMILIES}
    plain = f"{template}_nothink"
    return f"Use {plain}" if plain in known else "Use the template of a model that does not reason"


def _described(found: ModelFacts) -> str:
    kind = f"model_type {found.model_type}" if found.model_type else ", ".join(found.architectures)
    if any(family.model_type == found.model_type for family in FAMILIES):
        parts = " and ".join(part for part in (found.text_type, found.vision_type) if part)
        return f"{kind}{f' with {parts}' if parts else ''} under this chat template"
    return kind


def _part(config: dict[str, Any], name: str, default: str) -> str:
    """Return the type of a part; older LLaVA files leave out ``default``, which transformers then assumes."""
    part = config.get(name)
    return str(part.get("model_type", default)) if isinstance(part, dict) else ""


def _chat(model: ModelConfig) -> str:
    """Return the chat template, or without one all that the tokenizer's files say."""
    texts = [
        path.read_text(encoding="utf-8", errors="replace") for name in _CHAT_FILES if (path := model_file(model, name))
    ]
    template = read_json_object(model_file(model, "tokenizer_config.json")).get("chat_template")
    texts += [json.dumps(template, ensure_ascii=False)] if template else []
    if not texts:
        paths = [path for name in _TOKENIZER_FILES if (path := model_file(model, name))]
        texts = [path.read_text(encoding="utf-8", errors="replace") for path in paths]
    return "\n".join(texts)


def _fetch(model: ModelConfig) -> None:
    """Download the small files that tell a hub model's family into the hub's cache; whatever fails is left out."""
    if facts(model) is not None or bundled_model(model.path) or Path(model.path).expanduser().exists():
        return
    from huggingface_hub import hf_hub_download

    for name in ("config.json", *_CHAT_FILES, "tokenizer_config.json"):
        try:
            hf_hub_download(model.path, name, revision=model.revision)
        except (OSError, ValueError):
            if name == "config.json":
                return
