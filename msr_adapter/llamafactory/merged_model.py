"""The trained model as one folder that needs neither msr nor LLaMA-Factory: adapters merged, in a chosen dtype."""

from pathlib import Path
from typing import Any

from msr_adapter.config.schema import ModelConfig
from msr_adapter.errors import StageError
from msr_adapter.llamafactory.model_weights import Weights
from msr_adapter.llamafactory.prompt_encoder import Encoder

SHARD = "5GB"
"""Largest file of weights."""


def write_merged_model(model: ModelConfig, weights: Weights, out: Path, dtype: str) -> int:
    """Write the model that is scored, with tokenizer and processor, into ``out``; return its number of parameters.

    It is loaded as for scoring, on the CPU and never quantised, so that adapters are merged in the order and the
    precision in which they are scored; then it is cast. Memory: the weights, once. Raises `StageError` where this
    version of transformers cannot write the architecture back.
    """
    import torch

    plain = model.model_copy(update={"quantization": "none"})
    encoder = Encoder(plain, weights, device="cpu")
    network = encoder.load_model().to(getattr(torch, dtype))
    network.config.dtype = getattr(torch, dtype)
    for part in filter(None, (network, network.config, encoder.tokenizer, encoder.processor)):
        _without_code(part)
    try:
        network.save_pretrained(out, max_shard_size=SHARD)
    except NotImplementedError as error:
        raise StageError(
            f"{type(network).__name__} cannot be saved under the names of its published weights",
            "this version of transformers renames them when it loads them and cannot undo it for this architecture",
            "share the adapter instead: it is in the run folder, train/model",
        ) from error
    encoder.tokenizer.save_pretrained(out)
    if encoder.processor is not None:
        encoder.processor.save_pretrained(out)
    return sum(parameter.numel() for parameter in network.parameters())


def _without_code(part: Any) -> None:
    """Have a model, config, tokenizer or processor be saved as the class of transformers that it is.

    A folder may name code of its own for its classes (`auto_map`), which is never run here. LLaMA-Factory marks the
    classes that stand in for it as such code all the same, for the whole process: their own files would be copied.
    """
    type(part)._auto_class = None
    if getattr(part, "auto_map", None):
        del part.auto_map
    getattr(part, "init_kwargs", {}).pop("auto_map", None)
