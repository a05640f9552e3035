"""Fine-tuning the recommender."""

from typing import Any, Literal

from pydantic import Field

from msr_adapter.config.models.base import Model, allowed
from msr_adapter.config.models.launch import Launch
from msr_adapter.config.models.model import ModelRef
from msr_adapter.config.models.negatives import TrainNegatives


class Lora(Model):
    """Low-rank adapters."""

    rank: int = Field(8, ge=1)
    """Rank of the adapter matrices."""
    alpha: int | None = Field(None, ge=1)
    """Default: twice the rank."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of adapter inputs dropped in training."""
    target: str = "all"
    """Modules that get an adapter, comma-separated; `all` = every linear layer."""


class Train(Model):
    """Move 3: LLaMA-Factory supervised fine-tuning of the recommender."""

    model: ModelRef
    """The recommender before fine-tuning."""
    method: Literal["lora", "full"] = "lora"
    """Train adapters, or all weights."""
    lora: Lora = Lora()
    """Read when `method` is `lora`."""
    images: bool = True
    """False: the candidate's image is left out of training and scoring prompts (an ablation)."""
    prompt: Literal["recommend", "recommend-image-first"] = "recommend"
    """Template of the question, in training and scoring. recommend: the user's text comes first, and is computed once
    for all candidates. recommend-image-first: the candidate does, and is computed once for all users who meet it; worth
    it for large pictures. `msr check` says which one saves more; docs/scoring.md says why."""
    rows: Literal["parquet", "jsonl"] = "parquet"
    """Format of the training rows: Parquet is about 15 times smaller and written faster."""
    negatives: TrainNegatives = Field(
        TrainNegatives(count=1), json_schema_extra=allowed("a count, or a mapping as `evaluate.protocol.negatives`")
    )
    """Negatives of the training lists: 1 uniform one unless told otherwise."""
    epochs: float = Field(1.0, gt=0)
    """Passes over the training rows."""
    max_steps: int | None = Field(None, ge=1)
    """Overrides `epochs`."""
    batch_size: int = Field(1, ge=1)
    """Rows per device and step."""
    gradient_accumulation: int = Field(8, ge=1)
    """Steps per update of the weights."""
    learning_rate: float = Field(1e-4, gt=0)
    """Peak learning rate of AdamW."""
    scheduler: Literal["cosine", "linear", "constant", "constant_with_warmup"] = "cosine"
    """Course of the learning rate."""
    warmup_ratio: float = Field(0.0, ge=0, lt=1)
    """Share of the steps in which the learning rate rises."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay."""
    cutoff_len: int = Field(2048, ge=16)
    """Longest prompt plus answer in tokens; longer rows stop the stage before training starts."""
    train_on_prompt: bool = False
    """True: the loss covers the prompt too (the paper's Eq. 2)."""
    launch: Launch = Launch()
    """On how many devices it trains."""
    overrides: dict[str, Any] = Field({})
    """Further LLaMA-Factory keys, written to the YAML as they are; keys that msr itself sets are refused."""
