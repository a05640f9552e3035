"""Which weights training changes: one table of methods, adapters or all weights, and of which parts of the model."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from msr_adapter.config.schema.train import Method, TrainConfig
from msr_adapter.errors import Problem
from msr_adapter.llamafactory.families import PROJECTORS
from msr_adapter.llamafactory.family_recognition import model_config
from msr_adapter.llamafactory.model_weights import Weights
from msr_adapter.llamafactory.objectives import objective_of
from msr_adapter.llamafactory.parallelism import strategy_of

_ADAPTER_FILES, _MODEL_FILES = "adapter_model*.safetensors", "model*.safetensors"
_MERGE = "make it a model of its own with `msr export`, and give that folder as train.model.path"


@dataclass(frozen=True)
class FinetuningMethod:
    """One value of `train.method`, with all that depends on it."""

    name: Method
    adapters: bool = True
    """Low-rank adapters are trained beside the weights; else the weights themselves are."""
    saved: str = _ADAPTER_FILES
    """Pattern of the files that hold what was trained."""
    arguments: Mapping[str, bool] = field(default_factory=dict)
    """LLaMA-Factory arguments that differ from plain LoRA's."""


METHODS: tuple[FinetuningMethod, ...] = (
    FinetuningMethod("lora"),
    FinetuningMethod("qlora"),  # LoRA on weights in few bits, which `train.model.quantization` says
    FinetuningMethod("dora", arguments={"use_dora": True}),
    FinetuningMethod("rslora", arguments={"use_rslora": True}),
    FinetuningMethod("full", adapters=False, saved=_MODEL_FILES),
)


def method_of(train: TrainConfig) -> FinetuningMethod:
    """Return the row of `train.method`."""
    return next(row for row in METHODS if row.name == train.method)


def method_arguments(train: TrainConfig) -> dict[str, object]:
    """Return the LLaMA-Factory arguments that say which weights are trained; `objectives` says what they learn."""
    method, freeze, lora = method_of(train), train.freeze, train.lora
    config: dict[str, object] = {
        "finetuning_type": "lora" if method.adapters else "full", "freeze_vision_tower": freeze.vision,
        "freeze_multi_modal_projector": freeze.projector, "freeze_language_model": freeze.language,
    }  # fmt: skip
    if not method.adapters:
        return config
    config |= {
        "lora_rank": lora.rank, "lora_alpha": lora.alpha or 2 * lora.rank, "lora_dropout": lora.dropout,
        "lora_target": lora.target, "use_dora": False, "use_rslora": False, **method.arguments,
    }  # fmt: skip
    if train.model.quantization != "none":
        config["quantization_bit"] = train.model.quantization
    if not freeze.projector and (projectors := PROJECTORS.get(_model_type(train))):
        # Adapters never reach the projector, whatever is frozen: it is trained and saved whole beside them.
        config["additional_target"] = ",".join(projectors)
    return config


def check_method(train: TrainConfig) -> list[Problem]:
    """Return a problem for every part that would be trained or left alone against what the config says."""
    adapters, freeze, problems = method_of(train).adapters, train.freeze, []
    if not adapters and train.model.quantization != "none":
        found = f"{train.method} trains all weights, which cannot be done in {train.model.quantization} bits"
        problems.append(Problem("", "train.method", found, "qlora, or train.model.quantization: none"))
    if freeze.vision and freeze.projector and freeze.language:
        problems.append(Problem("", "train.freeze", "nothing is left to train", "one part that is not frozen"))
    elif freeze.vision and freeze.language and adapters:
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
    said = f"training continues from the adapter {adapters[-1]}"
    problems = []
    if not method_of(train).adapters:
        found = f"{said}, but LLaMA-Factory can train all weights only of a model without adapters"
        problems.append(Problem("", "train.method", found, "an adapter method, such as lora", f"Or {_MERGE}"))
    if train.model.quantization != "none":
        found = f"{said}, which cannot be merged into weights in {train.model.quantization} bits"
        problems.append(Problem("", "train.model.quantization", found, "none", f"Or {_MERGE}"))
    if not strategy_of(train.launch).merges_adapters:
        compares = objective_of(train).compares(train)
        harm = "would compare with the base model" if compares else "would change that adapter, not add one"
        found = f"{said}, and under {train.launch.strategy} LLaMA-Factory {harm}"
        problems.append(Problem("", "train.launch.strategy", found, "ddp, zero-2 or fsdp", f"Or {_MERGE}"))
    if odd := [folder for folder in adapters if "," in str(folder)]:
        problems.append(Problem(str(odd[0]), "", "a comma in the path, which LLaMA-Factory would read as two adapters"))
    return problems


def _check_parts(train: TrainConfig) -> list[Problem]:
    """Return a problem where the freeze switches would have no effect.

    LLaMA-Factory ignores them, without a word, for models whose parts it does not know.
    """
    config, freeze = model_config(train.model), train.freeze
    kind = _model_type(train)
    if config is None or kind in PROJECTORS:
        return []
    if "vision_config" not in config:
        if not freeze.language:
            return []
        found = f"{kind} has only a language model"
        return [Problem("", "train.freeze.language", found, "false, or nothing is left to train")]
    if not (freeze.vision or freeze.projector or freeze.language):
        return []
    found = f"LLaMA-Factory 0.9.5 does not know the parts of {kind} and would train all of them"
    step = "Set train.freeze: {vision: false, projector: false, language: false} if that is what you want"
    return [Problem("", "train.freeze", found, "nothing frozen for this model", step)]


def _model_type(train: TrainConfig) -> str:
    return str((model_config(train.model) or {}).get("model_type", ""))
