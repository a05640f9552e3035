"""Weights fit the model that they are loaded into: no tensor is missing, and none is left over.

PEFT and transformers load what fits and warn of the rest: an adapter that fits no layer changes nothing, and a model
without half of its tensors answers from random ones.
"""

import contextlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from msr_adapter.config.schema import ModelConfig
from msr_adapter.errors import Problem, UserError, plural
from msr_adapter.llamafactory.claimed_sizes import rank_fault, sized_like
from msr_adapter.llamafactory.model_files import loading

_NAMED = 3
_QUOTED = 300
_SIGNS = ("Target modules", "size mismatch")
"""In what PEFT says of adapters for other layers, and for layers of other sizes."""
_STEP = "Give the complete weights that were trained on top of exactly this model"


@contextlib.contextmanager
def fitting_only(full: Path | None = None) -> Iterator[None]:
    """Within, `UserError` for every adapter, and for every model's weights, that do not fit.

    What is left over in the folder of a published model is its publisher's affair; in ``full``, which a training here
    left, it is a fault.
    """
    from peft import PeftModel
    from transformers import PreTrainedModel

    load_adapter, load_model = PeftModel.load_adapter, PreTrainedModel.__dict__["from_pretrained"]

    def checked_adapter(self: Any, model_id: Any, *args: Any, **kwargs: Any) -> Any:
        found = load_adapter(self, model_id, *args, **kwargs)
        require_fit(str(model_id), found.missing_keys, found.unexpected_keys)
        return found

    def checked_model(cls: Any, path: Any, *args: Any, **kwargs: Any) -> Any:
        told = kwargs.pop("output_loading_info", False)
        with sized_like(Path(str(path))):
            model, info = load_model.__func__(cls, path, *args, output_loading_info=True, **kwargs)
        trained = full is not None and str(path) == str(full.resolve())
        require_fit(str(path), info["missing_keys"], info["unexpected_keys"] if trained else ())
        return (model, info) if told else model

    PeftModel.load_adapter = checked_adapter
    PreTrainedModel.from_pretrained = classmethod(checked_model)
    try:
        yield
    except (ValueError, RuntimeError) as error:
        if not any(sign in str(error) for sign in _SIGNS):
            raise
        said = " ".join(str(error).split())[:_QUOTED]
        raise UserError(Problem("", "", f"these weights do not fit the model: {said}", "", _STEP)) from error
    finally:
        PeftModel.load_adapter = load_adapter
        PreTrainedModel.from_pretrained = load_model


def require_fit(where: str, missing: Collection[str], unexpected: Collection[str]) -> None:
    """Raise `UserError` with counts and the first names if tensors are missing or left over in ``where``."""
    parts = [
        f"{plural(len(names), 'tensor')} {what} ({', '.join(sorted(names)[:_NAMED])}"
        f"{', ...' if len(names) > _NAMED else ''})"
        for what, names in (("missing", missing), ("matching nothing in the model", unexpected))
        if names
    ]
    if parts:
        raise UserError(Problem(where, "", f"these weights do not fit the model: {' and '.join(parts)}", "", _STEP))


def require_ranks(adapters: Sequence[Path]) -> None:
    """Raise `UserError` for adapters whose config has a rank that their weights have not: PEFT makes room first."""
    step = "Restore the adapter_config.json that came with the weights"
    if problems := [Problem(str(one), "", fault, "", step) for one in adapters if (fault := rank_fault(one))]:
        raise UserError(problems)


def require_fitting_adapters(model: ModelConfig, full: Path | None, adapters: Sequence[Path]) -> None:
    """Raise `UserError` if one of ``adapters`` fits no model of this kind, or the model's config not its weights.

    For whoever hands weights to another process; loads no weights of the model, which is laid out without memory.
    O(its layers).
    """
    import torch
    from peft import PeftModel
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    from msr_adapter.llamafactory.model_weights import resolve_model

    require_ranks(adapters)
    base = str(full or resolve_model(model.path))
    with loading("Config", base):
        config = AutoConfig.from_pretrained(base, revision=model.revision)
        shown = type(config) in AutoModelForImageTextToText._model_mapping
        if not shown and type(config) not in AutoModelForCausalLM._model_mapping:
            return  # whoever scores with it will tell
        with sized_like(Path(base)), torch.device("meta"):
            network = (AutoModelForImageTextToText if shown else AutoModelForCausalLM).from_config(config)
    with fitting_only():
        for folder in adapters:
            network = PeftModel.from_pretrained(network, str(folder.resolve()), low_cpu_mem_usage=True).unload()
            if hasattr(network, "peft_config"):  # else the next adapter counts as one beside it
                del network.peft_config
