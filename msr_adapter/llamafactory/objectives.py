"""What training teaches: LLaMA-Factory's stage, the shape of the rows, and which models it can be done with."""

from collections.abc import Mapping
from typing import Any

from msr_adapter.config.schema.model import ModelConfig
from msr_adapter.config.schema.train import Objective, TrainConfig
from msr_adapter.errors import Problem
from msr_adapter.llamafactory.dataset import Shape
from msr_adapter.llamafactory.weights import model_config

SHAPES: Mapping[Objective, Shape] = {"sft": "answers", "dpo": "pairs", "kto": "judged", "reward": "pairs"}
_STAGES: Mapping[Objective, str] = {"sft": "sft", "dpo": "dpo", "kto": "kto", "reward": "rm"}
_MROPE = ("qwen2_vl", "qwen2_omni", "qwen3_vl", "qwen3_5", "qwen3_6", "qwen3_omni", "glm4v", "glm4_5v", "glm_ocr",
          "ernie_vl", "keye_vl", "mimo_vl")  # fmt: skip
"""Templates of models with positions in time, height and width; asked where a model's config is not at hand."""


def objective_arguments(train: TrainConfig) -> dict[str, Any]:
    """Return the LLaMA-Factory arguments that say what is learned."""
    stage, preference = {"stage": _STAGES[train.objective]}, train.preference
    shared = {"pref_beta": preference.beta, "pref_ftx": preference.supervised}
    if train.objective == "dpo":
        return stage | shared | {"pref_loss": preference.loss, "dpo_label_smoothing": preference.label_smoothing,
                                 "simpo_gamma": preference.simpo_gamma}  # fmt: skip
    if train.objective == "kto":
        weights = {"kto_chosen_weight": preference.right_weight, "kto_rejected_weight": preference.wrong_weight}
        return stage | shared | weights
    return stage | ({"train_on_prompt": train.train_on_prompt} if train.objective == "sft" else {})


def compares(train: TrainConfig) -> bool:
    """Tell whether the loss compares the model with the one that training started from."""
    return train.objective == "kto" or (train.objective == "dpo" and train.preference.loss == "sigmoid")


def check_objective(train: TrainConfig) -> list[Problem]:
    """Return a problem for every setting that the objective cannot use, and for models that cannot learn by it."""
    objective, preference = train.objective, train.preference
    problems = []
    if train.train_on_prompt and objective != "sft":
        found = f"the loss of {objective} covers answers alone"
        problems.append(Problem("", "train.train_on_prompt", found, "true only with objective: sft"))
    if preference.label_smoothing and (objective, preference.loss) != ("dpo", "sigmoid"):
        found = "only loss sigmoid of objective dpo knows it"
        problems.append(Problem("", "train.preference.label_smoothing", found, "0"))
    if objective == "kto" and train.batch_size < 2:
        found = f"{train.batch_size}: kto measures in each batch how far the model went as a whole"
        problems.append(Problem("", "train.batch_size", found, "at least 2, better 8, with objective: kto"))
    if objective == "kto" and _has_mrope(train.model):
        found = (f"kto cannot train {train.model.path}: LLaMA-Factory 0.9.5 loses the positions of its image tokens, "
                 "and training ends in an error")  # fmt: skip
        problems.append(Problem("", "train.objective", found, "sft, dpo or reward for this model"))
    if objective == "reward" and _is_llava(train.model):
        found = (f"reward cannot train {train.model.path}: LLaMA-Factory 0.9.5 looks for parts of LLaVA by names that "
                 "transformers 5 no longer has")  # fmt: skip
        problems.append(Problem("", "train.objective", found, "sft, dpo or kto for this model"))
    return problems


def _has_mrope(model: ModelConfig) -> bool:
    config = model_config(model)
    if config is None:
        return model.template.startswith(_MROPE)
    parts = [config, config.get("text_config") or {}]
    ropes = [part.get(key) or {} for part in parts for key in ("rope_parameters", "rope_scaling")]
    return any("mrope_section" in rope for rope in ropes)


def _is_llava(model: ModelConfig) -> bool:
    config = model_config(model)
    return model.template == "llava" if config is None else config.get("model_type") == "llava"
