"""Logits at the trained answers alone, in the trainer's processes: run by path, nothing of ours is imported.

A step of supervised fine-tuning computes logits of the whole vocabulary at every token of a row, and the loss reads the
few of the answer. For 200 tokens and 49,152 words they are the largest tensor of a step, and the head that makes them
is a fifth of the work of a model of 135 million parameters. Models of transformers take the positions that are wanted
(`logits_to_keep`); the trainers of transformers and LLaMA-Factory do not say them.

The loss is the same sum over the same tokens. It is not taken on trust: the first batch is computed both ways, without
gradients, and unless the losses agree the model is left as it is.
"""

import functools
import inspect
import re
from pathlib import Path
from typing import Any

VARIABLE = "MSR_ANSWER_LOGITS"
"""Set in the trainer's environment: `install` adds the callback."""
ON, OFF = "msr: logits at the answers alone", "msr: logits at all tokens"
"""What the trainer's log says; OFF with the reason."""

_IGNORED = -100
_WORTH = 0.75
"""Share of the positions above which nothing is gained by leaving the others out."""
_TOLERANCE = 1e-4
"""Of the loss in float32, relative; below 16 bits of mantissa, `_COARSE`."""
_COARSE = 5e-3


def install() -> None:
    """Add the callback to every trainer of this process. Imports transformers."""
    import transformers.trainer
    from transformers import TrainerCallback

    class KeepAnswers(TrainerCallback):  # type: ignore[misc]  # untyped here
        def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            keep_answers(model, say=state.is_world_process_zero)

    transformers.trainer.DEFAULT_CALLBACKS.append(KeepAnswers)


def keep_answers(model: Any, *, say: bool = True) -> None:
    """Have ``model`` (or the model beneath its adapters) compute logits where a batch has labels, while it trains."""
    beneath = model.get_base_model() if hasattr(model, "peft_config") else model
    # Not a hook: PEFT calls the `forward` of what is beneath its adapters, and no hook of it.
    plain, checked = beneath.forward, False
    if "logits_to_keep" not in inspect.signature(plain).parameters:
        _say(f"{OFF}: {type(beneath).__name__} cannot be told which positions are needed", say)
        return

    @functools.wraps(plain)
    def narrowed(*args: Any, **kwargs: Any) -> Any:
        nonlocal checked
        fewer = fewer_positions(kwargs) if beneath.training and not args else None
        if fewer is None:
            return plain(*args, **kwargs)
        if not checked:
            checked = True
            whole, part = _losses(plain, kwargs, fewer)
            if not agree(whole, part, coarse=_coarse(beneath)):
                beneath.forward = plain
                _say(f"{OFF}: the loss of the first batch would be {part:.6g} instead of {whole:.6g}", say)
                return plain(**kwargs)
            _say(f"{ON} ({fewer['labels'].shape[1] - 1} of {kwargs['labels'].shape[1]} positions of the first batch; "
                 f"its loss is {part:.6g}, and {whole:.6g} with all)", say)  # fmt: skip
        return plain(**fewer)

    beneath.forward = narrowed


def said(log: Path) -> str:
    """Return what a trainer said of its logits in ``log``; nothing where it was not asked."""
    # A progress bar may stand before it on its line.
    found = re.search(r"msr: (logits at [^\r\n]*)", log.read_text(encoding="utf-8", errors="replace"))
    return found[1] if found else ""


def fewer_positions(kwargs: dict[str, Any]) -> dict[str, Any] | None:
    """Return a forward pass's arguments, narrowed to the positions at which some row of the batch has a label.

    None where little is left out, where no label stands, or where positions were chosen already.
    """
    import torch

    labels = kwargs.get("labels")
    if labels is None or kwargs.get("shift_labels") is not None or not _unset(kwargs.get("logits_to_keep")):
        return None
    # A position predicts the next one's label: models shift them, and not all take labels that are shifted already. So
    # the labels get one in front that counts for nothing, and the positions one at the end.
    following = torch.nn.functional.pad(labels, (0, 1), value=_IGNORED)[:, 1:]
    kept = (following != _IGNORED).any(dim=0).nonzero()[:, 0]
    if not 0 < len(kept) <= _WORTH * labels.shape[1]:
        return None
    narrow = torch.nn.functional.pad(following[:, kept], (1, 0), value=_IGNORED)
    return {**kwargs, "logits_to_keep": torch.cat([kept, kept[-1:]]), "labels": narrow}


def agree(whole: float, part: float, *, coarse: bool = False) -> bool:
    """Tell whether two losses of a batch are one, but for rounding; two that are no numbers are not."""
    return abs(whole - part) <= (_COARSE if coarse else _TOLERANCE) * max(1.0, abs(whole))


def _unset(logits_to_keep: Any) -> bool:
    return logits_to_keep is None or (isinstance(logits_to_keep, int) and logits_to_keep == 0)


def _losses(forward: Any, *ways: dict[str, Any]) -> list[float]:
    """Return the loss by each way, without gradients; random numbers (dropout) are the same, and not used up."""
    import torch

    losses = []
    for kwargs in ways:
        with torch.no_grad(), torch.random.fork_rng():
            losses.append(float(forward(**kwargs).loss))
    return losses


def _coarse(module: Any) -> bool:
    import torch

    return torch.is_autocast_enabled(_device(module)) or any(
        parameter.dtype in (torch.bfloat16, torch.float16) for parameter in module.parameters()
    )


def _device(module: Any) -> str:
    return str(next(module.parameters()).device.type)


def _say(what: str, say: bool) -> None:
    if say:
        print(what, flush=True)
