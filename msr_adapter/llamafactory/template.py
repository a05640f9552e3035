"""LLaMA-Factory's template, tokenizer and image processor of a model, set up as it does for training."""

import copy
import logging
import warnings
from dataclasses import dataclass
from typing import Any

from msr_adapter.config.schema import ModelConfig
from msr_adapter.errors import Problem, UserError, closest
from msr_adapter.generation.request import IMAGE_PLACEHOLDER
from msr_adapter.llamafactory.family_recognition import resolve_template
from msr_adapter.llamafactory.model_files import loading
from msr_adapter.llamafactory.model_weights import resolve_model
from msr_adapter.llamafactory.versions import require_versions


@dataclass(frozen=True)
class LoadedTemplate:
    """All that turns prompts of one model into tokens, and the arguments to load its weights with."""

    model: ModelConfig
    """With its template spelled out."""
    template: Any
    """A copy that belongs to this model alone."""
    tokenizer: Any
    processor: Any
    """None for a model without images."""
    model_args: Any
    finetuning_args: Any


def load_template(model: ModelConfig) -> LoadedTemplate:
    """Load tokenizer and processor of the base model and its template (seconds; no weights).

    Raises `UserError` for a missing or different LLaMA-Factory, and for a template that is unknown, not the
    model's own, or puts a thought before every answer; `StageError` if the model's files are incomplete.
    """
    require_versions()
    model = resolve_template(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # import-time deprecations of third parties; nobody here can act on them
        from llamafactory.data.template import TEMPLATES
        from llamafactory.extras import constants
        from llamafactory.hparams import get_infer_args
        from llamafactory.model import load_tokenizer
        from transformers.utils import logging as transformers_logging
    # Read from the environment at import: another one in training or scoring would be plain text to the other.
    if constants.IMAGE_PLACEHOLDER != IMAGE_PLACEHOLDER:
        found = f"set to {constants.IMAGE_PLACEHOLDER!r}"
        raise UserError(Problem("environment", "IMAGE_PLACEHOLDER", found, "must be unset"))
    if model.template not in TEMPLATES:
        raise _unknown_template(model.template, sorted(TEMPLATES))
    # LLaMA-Factory logs to standard output, which belongs to our results.
    logging.getLogger("llamafactory").setLevel(logging.ERROR)
    arguments = _arguments(model)
    with loading("Tokenizer or processor", str(arguments["model_name_or_path"])):
        model_args, data_args, finetuning_args, _ = get_infer_args(arguments)
        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()
        module = load_tokenizer(model_args)
        template = _private_template(module["tokenizer"], data_args)
        if template.mm_plugin.image_token is not None and module["processor"] is None:  # whose failure it only logs
            raise ValueError("there is no image processor, or its config is damaged")
    _refuse_thinking(template, model.template)
    return LoadedTemplate(model, template, module["tokenizer"], module["processor"], model_args, finetuning_args)


def _arguments(model: ModelConfig) -> dict[str, object]:
    """Return LLaMA-Factory's arguments for inference with the base model."""
    arguments: dict[str, object] = {
        "model_name_or_path": resolve_model(model.path), "template": model.template, "infer_dtype": model.dtype,
        "image_max_pixels": model.image_max_pixels, "image_min_pixels": model.image_min_pixels,
        "finetuning_type": "lora", "default_system": model.default_system,
    }  # fmt: skip
    bits = None if model.quantization == "none" else model.quantization
    optional = {"model_revision": model.revision, "quantization_bit": bits}
    return arguments | {key: value for key, value in optional.items() if value is not None}


def _private_template(tokenizer: Any, data_args: Any) -> Any:
    """Return a copy of the template, set up with ``tokenizer``, that no other encoder shares."""
    # LLaMA-Factory's templates are module globals and `default_system` is written into them: give each encoder a copy.
    from llamafactory.data import get_template_and_fix_tokenizer
    from llamafactory.data.template import TEMPLATES

    shared = TEMPLATES[data_args.template]
    TEMPLATES[data_args.template] = copy.deepcopy(shared)
    try:
        return get_template_and_fix_tokenizer(tokenizer, data_args)
    finally:
        TEMPLATES[data_args.template] = shared


def _refuse_thinking(template: Any, name: str) -> None:
    from llamafactory.data.template import TEMPLATES, ReasoningTemplate

    if isinstance(template, ReasoningTemplate):
        plain = f"{name}_nothink"
        step = f"Use {plain}" if plain in TEMPLATES else "Use the template of a model that does not reason"
        found = f"{name} puts {template.thought_words[0].strip()} before every answer, so Yes or No never comes first"
        raise UserError(Problem("", "model.template", found, "a template without reasoning", step))


def _unknown_template(name: str, known: list[str]) -> UserError:
    """Return the error for a template name LLaMA-Factory does not have, with the nearest names."""
    near = closest(name, known, 3)
    return UserError(
        Problem("", "model.template", f"unknown template {name!r}", f"did you mean {' or '.join(near)}" if near else "")
    )
