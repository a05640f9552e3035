"""How much memory and disk a training will take: an estimate, from the model's files alone; nothing is loaded.

Memory of one device, in bytes, for a batch of b rows of s tokens (docs/training.md has the formulas with an example):

- weights: as loaded, 2 or 4 each. What is trained is held in float32, as LLaMA-Factory does, with its gradient and the
  two moments of AdamW: 16 each (Rajbhandari et al., ZeRO, arXiv 1910.02054, section 3.1). In 4 bits a weight takes
  0.516 with its constants, outside embeddings and head (Dettmers et al., QLoRA, arXiv 2305.14314, section 3).
  Objectives that compare with the starting model hold a second copy of it under `method: full`.
- b is twice the batch where rows are pairs or judged answers.
- activations: s b (9 h + 4 i) values a block of width h with a gated feed-forward of width i, attention without its
  score matrix; after Korthikanti et al., arXiv 2205.05198, section 4.1, whose feed-forward is 4 h wide. With gradient
  checkpointing all blocks keep their input, s b h, and one at a time the rest.
- logits: s b V values of the vocabulary V in the model's dtype, and three times in float32 for the loss.
- 10% for what an allocator cannot use, and a device's own 0.8 GB.
"""

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msr_adapter.config.schema import ModelConfig, TrainConfig
from msr_adapter.files import read_json_object
from msr_adapter.filesystem import open_file
from msr_adapter.llamafactory.family_recognition import model_file
from msr_adapter.llamafactory.finetuning_methods import method_of
from msr_adapter.llamafactory.model_files import folder_faults
from msr_adapter.llamafactory.model_weights import is_small
from msr_adapter.llamafactory.objectives import objective_of
from msr_adapter.llamafactory.parallelism import strategy_of

_VISION = ("visual", "vision", "projector", "merger", "image_newline", "connector", "aligner")
_WORDS = ("embed", "lm_head")
_NOT_ADAPTED = (*_WORDS, "norm")
_WIDTHS = {"float32": 4, "bfloat16": 2, "float16": 2}
_QUANTISED = {"4": 0.516, "8": 1.0}
_SAVED_STATE = 8
_SLACK, _CONTEXT = 1.1, 800 * 10**6
_TOKENISED = 13
"""Bytes of a token in the trainer's cache: id 4, mask 1, label 8."""
_CONTINUABLE = 2
"""Checkpoints that keep what training goes on with, and all that stay where only the last model is kept."""


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a model, read from its files."""

    parameters: int
    language: int
    """Of these, in the language model."""
    words: int
    """Of these, in the embeddings and the head, which stay as they are when weights are quantised."""
    adapted: int
    """Sum of inputs and outputs of the language model's linear layers: an adapter has rank times so many numbers."""
    width: int
    inner: int
    blocks: int
    vocabulary: int
    exact: bool
    """Whether parameters were counted in the weight files, not computed from the config."""


@dataclass(frozen=True)
class Estimate:
    """Bytes on one device, and on the disk."""

    weights: int
    trained: int
    activations: int
    logits: int
    disk: int
    exact: bool

    @property
    def memory(self) -> int:
        """All of one device's."""
        return round(_SLACK * (self.weights + self.trained + self.activations + self.logits)) + _CONTEXT

    def __str__(self) -> str:
        parts = ("weights", "trained", "activations", "logits")
        return (f"about {_size(self.memory)} on each device ("
                + ", ".join(f"{name} {_size(getattr(self, name))}" for name in parts) + ")")  # fmt: skip


def model_shape(model: ModelConfig) -> ModelShape | None:
    """Return the shape of a model, or None where its config is not on this machine or lacks a size.

    Reads the headers of the weight files; asks no network.
    """
    config_file = model_file(model, "config.json")
    if config_file is None:
        return None
    config = read_json_object(config_file)
    text = config.get("text_config") or config.get("llm_config") or config
    try:
        width, blocks = int(text["hidden_size"]), int(text["num_hidden_layers"])
        inner, vocabulary = int(text["intermediate_size"]), int(text.get("vocab_size") or config["vocab_size"])
        counted = None if folder_faults(config_file.parent) else _count(config_file.parent)
        sizes = counted or _computed(config, text)
    except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError):  # a config may say anything
        return None
    return ModelShape(*sizes, width, inner, blocks, vocabulary, counted is not None)


def estimate(
    train: TrainConfig, shape: ModelShape, longest: int, tokens: int, world: int = 1, steps: int | None = None
) -> Estimate:
    """Return what training takes: rows of ``longest`` tokens at most, ``tokens`` in all, in ``world`` processes.

    ``steps`` tells how many checkpoints `checkpoint_steps` makes; without, the disk is that of the last ones.
    """
    loaded, full, trained = _WIDTHS[train.compute_dtype], not method_of(train).adapters, _trained(train, shape)
    objective, strategy = objective_of(train), strategy_of(train.launch)
    weights_in, states_in = world if strategy.shares_weights else 1, world if strategy.shares_optimizer else 1
    # Quantised weights are loaded in few bits, but for embeddings and head.
    each = _QUANTISED.get(str(train.model.quantization), loaded)
    beneath = math.ceil((shape.parameters - shape.words) * each + shape.words * loaded)
    frozen = (shape.parameters - trained) * loaded if full else beneath
    reference = shape.parameters * loaded if full and objective.compares(train) else 0
    # Of 16 bytes, 4 are the float32 weight; 12 are gradient and moments, which are shared separately.
    state = trained * (4 / weights_in + 12 / states_in)
    batch = train.batch_size * longest * objective.sequences
    checkpointing = not train.overrides.get("disable_gradient_checkpointing", is_small(train.model))
    block = 9 * shape.width + 4 * shape.inner
    values = shape.blocks * shape.width + block if checkpointing else shape.blocks * block
    # Logits in float32 are neither copied nor converted: three arrays in all. Else one of the model's dtype more.
    logits = batch * shape.vocabulary * (12 if loaded == 4 else loaded + 12)
    saved = trained * 4 + (frozen if full else 0)
    made = _checkpoints(train, steps)
    continuable = min(made, _CONTINUABLE)
    states, kept = continuable * trained * _SAVED_STATE, made if train.keep == "best" else continuable
    disk = saved + kept * saved + states + tokens * _TOKENISED
    return Estimate(
        weights=math.ceil((frozen + reference) / weights_in), trained=math.ceil(state),
        activations=batch * values * loaded, logits=logits, disk=disk, exact=shape.exact,
    )  # fmt: skip


def _checkpoints(train: TrainConfig, steps: int | None) -> int:
    """Return how many checkpoints a training of ``steps`` makes."""
    if train.checkpoint_steps is None:
        return train.checkpoints if steps is None else min(train.checkpoints, steps)
    return _CONTINUABLE if steps is None else math.ceil(steps / train.checkpoint_steps)


def _trained(train: TrainConfig, shape: ModelShape) -> int:
    """Return the number of parameters that are trained."""
    if method_of(train).adapters:
        return train.lora.rank * shape.adapted
    parts = ((shape.language, train.freeze.language), (shape.parameters - shape.language, train.freeze.vision))
    return sum(size for size, frozen in parts if not frozen)


def _count(folder: Path) -> tuple[int, int, int, int] | None:
    """Return the first four fields of `ModelShape`, counted in the headers of the weight files; None without any."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        return None
    parameters = language = words = adapted = 0
    for path in files:
        with open_file(path) as file:  # safetensors: 8 bytes of length, a header in JSON, then the weights
            (length,) = struct.unpack("<Q", file.read(8))
            header: dict[str, Any] = json.loads(file.read(length))
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            shape = entry["shape"]
            parameters += math.prod(shape)
            if any(part in name for part in _VISION):
                continue
            language += math.prod(shape)
            if any(part in name for part in _WORDS):
                words += math.prod(shape)
            if len(shape) == 2 and not any(part in name for part in _NOT_ADAPTED):
                adapted += sum(shape)
    return parameters, language, words, adapted


def _computed(config: Mapping[str, Any], text: Mapping[str, Any]) -> tuple[int, int, int, int]:
    """Return what `_count` returns, computed for a decoder with gated feed-forwards and a plain vision transformer."""
    width, inner, blocks = text["hidden_size"], text["intermediate_size"], text["num_hidden_layers"]
    heads = text.get("num_attention_heads", 1)
    head = text.get("head_dim") or width // heads
    keys = head * text.get("num_key_value_heads", heads)
    matrices = [(width, head * heads), (width, keys), (width, keys), (head * heads, width), *[(width, inner)] * 3]
    tied = config.get("tie_word_embeddings", text.get("tie_word_embeddings", False))
    words = (text.get("vocab_size") or config["vocab_size"]) * width * (1 if tied else 2)
    language = blocks * sum(math.prod(matrix) for matrix in matrices) + words
    return language + _vision(config.get("vision_config") or {}), language, words, blocks * sum(map(sum, matrices))


def _vision(vision: Mapping[str, int]) -> int:
    width = vision.get("embed_dim") or vision.get("hidden_size") or 0
    depth = vision.get("depth") or vision.get("num_hidden_layers") or 0
    inner = vision.get("intermediate_size") or vision.get("mlp_ratio", 4) * width
    return int(depth * (4 * width**2 + 2 * width * inner))


def _size(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 10**8 else f"{size / 1e6:.0f} MB"
