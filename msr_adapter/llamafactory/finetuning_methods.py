"""Which weights training changes: adapters or all, and of which parts."""

from typing import Any

from msr_adapter.config.schema.train import TrainConfig
from msr_adapter.errors import Problem
from msr_adapter.llamafactory.objectives import compares
from msr_adapter.llamafactory.weights import PROJECTORS, Weights, model_config

_MERGE = "make it a model of its own with `msr export`, and name that folder as train.model.path"


def method_arguments(train: TrainConfig) -> dict[str, Any]:
    """Return the LLaMA-Factory arguments that say what is trained. Of the weights only; see `objectives`."""
    full, freeze = train.method == "full", train.freeze
    config: dict[str, Any] = {
        "finetuning_type": "full" if full else "lora", "freeze_vision_tower": freeze.vision,
        "freeze_multi_modal_projector": freeze.projector, "freeze_language_model": freeze.language,
    }  # fmt: skip
    if full:
        return config
    lora = train.lora
    config |= {
        "lora_rank": lora.rank, "lora_alpha": lora.alpha or 2 * lora.rank, "lora_dropout": lora.dropout,
        "lora_target": lora.target, "use_dora": train.method == "dora", "use_rslora": train.method == "rslora",
    }  # fmt: skip
    if train.model.quantization != "none":
        config["quantization_bit"] = train.model.quantization
    if not freeze.projector and (projectors := PROJECTORS.get(_model_type(train))):
        # Adapters never reach the projector, whatever is frozen: it is trained and saved whole beside them.
        config["additional_target"] = ",".join(projectors)
    return config


def check_method(train: TrainConfig) -> list[Problem]:
    """Return a problem for every part that would be trained or left alone against what the config says."""
    freeze, problems = train.freeze, []
    if train.method == "full" and train.model.quantization != "none":
        found = f"full trains all weights, which {train.model.quantization} bits cannot hold"
        problems.append(Problem("", "train.method", found, "qlora, or train.model.quantization: none"))
    if freeze.vision and freeze.projector and freeze.language:
        problems.append(Problem("", "train.freeze", "nothing is left to train", "one part that is not frozen"))
    elif freeze.vision and freeze.language and train.method != "full":
        found = "adapters are for the language model and the vision tower, and both are frozen"
        problems.append(Problem("", "train.freeze", found, "method: full to train the projector alone"))
    return problems + _check_parts(train)


def check_start(train: TrainConfig, weights: Weights) -> list[Problem]:
    """Return a problem for every reason why LLaMA-Factory cannot go on from ``weights`` (and `model.adapter`) as asked.

    It merges adapters into the model and trains a new one on top, which makes the merged model the reference of DPO
    and KTO; in some settings it silently trains the old adapter further instead.
    """
    adapters = [*([train.model.adapter] if train.model.adapter else []), *weights.adapters]
    if not adapters:
        return []
    said = f"training goes on from the adapter {adapters[-1]}"
    problems = []
    if train.method == "full":
        found = f"{said}, but LLaMA-Factory trains all weights only of a model without adapters"
        problems.append(Problem("", "train.method", found, "an adapter method, such as lora", f"Or {_MERGE}"))
    if train.model.quantization != "none":
        found = f"{said}, which cannot be merged into weights in {train.model.quantization} bits"
        problems.append(Problem("", "train.model.quantization", found, "none", f"Or {_MERGE}"))
    if train.launch.strategy == "zero-3":
        harm = "would compare with the base model" if compares(train) else "would change that adapter, not add one"
        found = f"{said}, and under zero-3 LLaMA-Factory {harm}"
        problems.append(Problem("", "train.launch.strategy", found, "ddp, zero-2 or fsdp", f"Or {_MERGE}"))
    if odd := [folder for folder in adapters if "," in str(folder)]:
        problems.append(Problem(str(odd[0]), "", "a comma in the path, which LLaMA-Factory takes for two adapters"))
    return problems


def _check_parts(train: TrainConfig) -> list[Problem]:
    """LLaMA-Factory ignores the freeze switches of models whose parts it does not know, without a word."""
    config, freeze = model_config(train.model), train.freeze
    kind = _model_type(train)
    if config is None or kind in PROJECTORS:
        return []
    if "vision_config" not in config:
        if not freeze.language:
            return []
        found = f"{kind} is a language model alone"
        return [Problem("", "train.freeze.language", found, "false, or nothing is left to train")]
    if not (freeze.vision or freeze.projector or freeze.language):
        return []
    found = f"LLaMA-Factory 0.9.5 does not know the parts of {kind} and would train all of them"
    step = "Set train.freeze: {vision: false, projector: false, language: false} if that is what you want"
    return [Problem("", "train.freeze", found, "nothing frozen for this model", step)]


def _model_type(train: TrainConfig) -> str:
    return str((model_config(train.model) or {}).get("model_type", ""))
