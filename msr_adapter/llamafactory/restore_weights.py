"""Puts a checkpoint's weights back into a fully trained model when its training goes on.

transformers 5.6 saves under the names of the published checkpoints and restores by those of the model in memory: where
the two differ, as in most vision-language models, it restores nothing, warns, and trains the base model on. Run by path
(`guard.py`) in every one of the trainer's processes; nothing of ours is imported.
"""

from typing import Any


def install() -> None:
    """Make every trainer of this process restore weights as they were saved. Imports transformers."""
    import transformers.trainer
    from transformers import TrainerCallback

    class Restores(TrainerCallback):  # type: ignore[misc]  # untyped here
        def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            # DeepSpeed and FSDP keep weights by the names in memory, PEFT its adapters by its own.
            if args.resume_from_checkpoint and not (args.deepspeed or args.fsdp or hasattr(model, "peft_config")):
                restore(model, args.resume_from_checkpoint)

    transformers.trainer.DEFAULT_CALLBACKS.append(Restores)


def restore(model: Any, checkpoint: str) -> None:
    """Copy the weights saved in ``checkpoint`` into ``model``, in place; raises if one is missing or left over."""
    import torch

    # In float32, whatever dtype the configuration names: trained weights are saved so.
    saved = type(model).from_pretrained(checkpoint, dtype=torch.float32)
    model.load_state_dict(saved.state_dict(), strict=True)
