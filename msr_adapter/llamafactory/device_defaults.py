"""How a training computes where the pipeline leaves it open, by what was measured on the device (docs/training.md).

- gradient checkpointing: off for small models, and on a processor whose memory holds all activations twice over. On a
  GPU it stays on, as in LLaMA-Factory: nothing else was measured there.
- logits at the answers alone (`answer_logits`), in supervised fine-tuning of answers on a processor.

What changes the numbers (`train.precision`) is left to the pipeline.
The decisions depend on the machine, the model and the longest row, never on how much memory happens to be free: a
training that goes on after a kill goes on alike.
"""

from msr_adapter.config.schema import TrainConfig
from msr_adapter.llamafactory.answer_logits import VARIABLE
from msr_adapter.llamafactory.kernels import LIGER
from msr_adapter.llamafactory.memory_estimate import estimate, model_shape
from msr_adapter.llamafactory.model_weights import is_small
from msr_adapter.system import memory_bytes

CHECKPOINTING = "disable_gradient_checkpointing"
_OTHER_LOSSES = ("use_dft_loss", "use_eaft_loss", "use_asft_loss")
"""Arguments of LLaMA-Factory with which the loss reads all logits."""
_SHARE = 0.5
"""Of the machine's memory, what a training without checkpointing may be estimated to take."""


def with_device_defaults(train: TrainConfig, longest: int, *, cuda: bool) -> TrainConfig:
    """Return ``train``, whose longest row has ``longest`` tokens, with gradient checkpointing decided."""
    if cuda or CHECKPOINTING in train.overrides or is_small(train.model):
        return train
    without = train.model_copy(update={"overrides": {**train.overrides, CHECKPOINTING: True}})
    shape = model_shape(train.model)
    if shape is None or estimate(without, shape, longest, 0).memory > _SHARE * memory_bytes()[0]:
        return train
    return without


def wants_answer_logits(train: TrainConfig, *, cuda: bool) -> bool:
    """Tell whether the trainer shall compute logits at the answers alone: it has the last word (`answer_logits`).

    Not on a GPU, where it was never run and Liger makes none, nor for small models, whose head costs nothing.
    """
    whole = train.train_on_prompt or any(train.overrides.get(key) for key in (*_OTHER_LOSSES, LIGER))
    return train.objective == "sft" and not (cuda or whole or is_small(train.model))


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
