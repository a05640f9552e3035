"""Which family is a model of, and which template is its own? Read from the model's files: no weight, no torch."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msr_adapter.config.schema import AUTO, ModelConfig
from msr_adapter.errors import Problem, UserError, closest
from msr_adapter.files import bundled_model, read_json_object
from msr_adapter.llamafactory.families import (
    FAMILIES,
    MROPE_LIMITS,
    MROPE_TEMPLATES,
    REASONING,
    UNSUPPORTED,
    Family,
    family_of_template,
)
from msr_adapter.llamafactory.installed import installed_templates

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
        _names(config.get("architectures")),
        _chat(model),
    )


def family_of(model: ModelConfig) -> Family | None:
    """Return the tested family that the model is of, or None: another one, or its files are not on this machine."""
    found = facts(model)
    return None if found is None else _family(found)


def model_config(model: ModelConfig) -> dict[str, Any] | None:
    """Return the model's `config.json`; None when it is not on this machine, empty when it is no JSON object."""
    path = model_file(model, "config.json")
    return None if path is None else read_json_object(path)


def limits_of(model: ModelConfig) -> Mapping[str, str]:
    """Return what cannot be done with the model: objective or dtype -> why.

    Untested models share the limits of their architecture: those of a tested family of the same `model_type`, and
    those of M-RoPE wherever the config names its sections.
    """
    config = model_config(model)
    if config is None:
        if family := family_of_template(model.template):
            return family.limits
        return MROPE_LIMITS if model.template.startswith(MROPE_TEMPLATES) else {}
    kin = family_of(model) or next((each for each in FAMILIES if each.model_type == config.get("model_type")), None)
    if kin is not None:
        return kin.limits
    parts = [config, _mapping(config.get("text_config"))]
    ropes = [_mapping(part.get(key)) for part in parts for key in ("rope_parameters", "rope_scaling")]
    return MROPE_LIMITS if any("mrope_section" in rope for rope in ropes) else {}


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
        words = f"{model.template} reasons before every answer, so Yes or No never comes first"
        plain = f"{model.template}_nothink"
        known = any(family.template == plain for family in FAMILIES)
        step = f"Use {plain}" if known else "Use the template of a model that does not reason"
        return [Problem(where, field, words, "a template without reasoning", step)]
    if problem := _unusable(model.template, where, field):
        return [problem]
    if found and model.template == AUTO:
        words = f"cannot be inferred: {_described(found)} is not among the tested families"
        return [Problem(where, field, words, "the model's LLaMA-Factory template", f"Set it yourself. {_DOCS}")]
    return []


def takes_images(model: ModelConfig) -> bool | None:
    """Say whether a model can be shown images, by its files and its template; None where nothing here tells."""
    if not model.backend_row.local:
        return None
    if family := family_of(model):
        return family.sees_images
    config = model_config(model)
    if config and not any(word in key for key in config for word in _SEEING) and not _processes_images(model):
        return False
    template = installed_templates().get(model.template)
    return None if template is None or template.takes_images else False


_SEEING = ("vision", "visual", "image", "mm_", "vit_")
"""In the keys of a config, these tell of a part that sees."""


def _processes_images(model: ModelConfig) -> bool:
    return any(model_file(model, name) for name in ("preprocessor_config.json", "processor_config.json"))


def _unusable(name: str, where: str, field: str) -> Problem | None:
    """Return the problem of a template that the installed LLaMA-Factory does not have, or that thinks aloud."""
    known = installed_templates()
    if name == AUTO or not known:
        return None
    if name not in known:
        near = closest(name, known, 3)
        guess = f"did you mean {' or '.join(near)}" if near else "a LLaMA-Factory template"
        return Problem(where, field, f"unknown template {name!r}", guess, _DOCS)
    if known[name].thinks:
        words = f"{name} reasons before every answer, so Yes or No never comes first"
        plain = f"{name}_nothink"
        step = f"Use {plain}" if plain in known else "Use the template of a model that does not reason"
        return Problem(where, field, words, "a template without reasoning", step)
    return None


def _against(family: Family, model: ModelConfig, where: str, role: str) -> list[Problem]:
    """Return a problem for a template that is not the family's, and for a dtype that does not work with it."""
    problems = []
    if model.template not in (AUTO, family.template):
        words = f"`{model.template}` is not the template of {model.path}, a {family.name}"
        if model.template in REASONING:
            words += ", and it reasons before every answer"
        step = "Correct or remove the line: the template is found automatically"
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


def _described(found: ModelFacts) -> str:
    kind = f"model_type {found.model_type}" if found.model_type else ", ".join(found.architectures)
    if any(family.model_type == found.model_type for family in FAMILIES):
        parts = " and ".join(part for part in (found.text_type, found.vision_type) if part)
        return f"{kind}{f' with {parts}' if parts else ''} with this chat template"
    return kind


def _names(found: object) -> tuple[str, ...]:
    return tuple(map(str, found)) if isinstance(found, list) else ()


def _mapping(found: object) -> dict[str, Any]:
    return found if isinstance(found, dict) else {}


def _part(config: Mapping[str, object], name: str, default: str) -> str:
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
