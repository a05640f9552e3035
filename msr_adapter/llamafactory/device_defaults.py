"""How a training computes where the pipeline leaves it open, by what was measured on the device (docs/training.md).

- precision: the model's, but bfloat16 on a processor that multiplies it natively, from `SMALL_WEIGHTS_BYTES` on.
- gradient checkpointing: off for small models, and on a processor whose memory holds all activations twice over. On a
  GPU it stays on, as in LLaMA-Factory: nothing else was measured there.
- logits at the answers alone (`answer_logits`), in supervised fine-tuning of answers.

The decisions depend on the machine, the model and the longest row, never on how much memory happens to be free: a
training that goes on after a kill goes on alike.
"""

from msr_adapter.config.schema import TrainConfig
from msr_adapter.llamafactory.answer_logits import VARIABLE
from msr_adapter.llamafactory.kernels import LIGER, liger_arguments
from msr_adapter.llamafactory.memory_estimate import estimate, model_shape
from msr_adapter.llamafactory.model_weights import is_small
from msr_adapter.system import memory_bytes, multiplies_bfloat16

CHECKPOINTING = "disable_gradient_checkpointing"
_OTHER_LOSSES = ("use_dft_loss", "use_eaft_loss", "use_asft_loss")
"""Arguments of LLaMA-Factory with which the loss reads all logits."""
_SHARE = 0.5
"""Of the machine's memory, what a training without checkpointing may be estimated to take."""


def with_device_defaults(train: TrainConfig, longest: int, *, cuda: bool) -> TrainConfig:
    """Return ``train``, whose longest row has ``longest`` tokens, with its precision and checkpointing decided."""
    precision = train.precision
    if precision == "auto" and not cuda and _computes_in_bfloat16(train):
        precision = "bfloat16"
    decided = train.model_copy(update={"precision": precision})
    if cuda or CHECKPOINTING in train.overrides or is_small(train.model):
        return decided
    kept = decided.model_copy(update={"overrides": {**train.overrides, CHECKPOINTING: True}})
    shape = model_shape(train.model)
    if shape is None or estimate(kept, shape, longest, 0).memory > _SHARE * memory_bytes()[0]:
        return decided
    return kept


def _computes_in_bfloat16(train: TrainConfig) -> bool:
    plain = train.model.dtype == "float32" and str(train.model.quantization) == "none"
    return plain and multiplies_bfloat16() and not is_small(train.model)


def wants_answer_logits(train: TrainConfig, *, cuda: bool) -> bool:
    """Tell whether the trainer shall compute logits at the answers alone: it has the last word (`answer_logits`).

    Not with Liger, which makes none, nor for small models, whose head costs nothing.
    """
    whole = train.train_on_prompt or any(train.overrides.get(key) for key in (*_OTHER_LOSSES, LIGER))
    return not (train.objective != "sft" or whole or is_small(train.model) or liger_arguments(train, cuda=cuda))


def trainer_environment(train: TrainConfig, *, cuda: bool) -> dict[str, str]:
    """Return the variables that tell the trainer's processes."""
    return {VARIABLE: "1"} if wants_answer_logits(train, cuda=cuda) else {}


def describe(train: TrainConfig, *, cuda: bool) -> str:
    """Return one line on how a training computes, ``train`` being what `with_device_defaults` returned."""
    off = train.overrides.get(CHECKPOINTING, is_small(train.model))
    logits = (
        "at the answers alone, if the model's loss allows" if wants_answer_logits(train, cuda=cuda) else "at all tokens"
    )
    return f"{train.compute_dtype}, gradient checkpointing {'off' if off else 'on'}, logits {logits}"
