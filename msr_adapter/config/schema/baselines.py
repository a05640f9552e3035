"""The fitted baselines: their settings, and what tuning tries."""

from typing import Annotated

from pydantic import Field

from msr_adapter.config.schema.base import Count, StrictModel, Weight

_Factors = Annotated[int, Field(ge=1, le=65_536)]
_Dropout = Annotated[float, Field(ge=0, lt=1)]


class ItemKNNConfig(StrictModel):
    """Item-kNN: cosines of items over the training users."""

    neighbours: Count = 200
    """Nearest items that an item keeps."""
    damping: Weight = 0.0
    """Added to the users of both items under the root: the more, the less do items that few users have stand near."""


class FactorsConfig(StrictModel):
    """Matrix factorisation by alternating least squares."""

    factors: _Factors = 32
    """Width of its vectors."""
    confidence: Weight = 10.0
    """Weight of a pair that was seen, above 1 for one that was not."""
    iterations: Count = 15
    """Rounds of least squares."""


class SASRecConfig(StrictModel):
    """SASRec, trained on whole training logs by one CPU thread."""

    dim: _Factors = 64
    """Width of its vectors."""
    length: Count | None = None
    """Items it reads at most, which has nothing to do with `split.max_history`; longer training logs are learned from
    in several pieces. null: 50, or what holds 95% of the training logs where that is less."""
    negatives: Count | None = None
    """1: one negative a position and binary cross-entropy, as published. More: a softmax over so many. null: a softmax
    over the catalogue, over 256 of it where it has more than 4,000 items."""
    dropout: _Dropout = 0.2
    """Share of the activations dropped in training."""
    learning_rate: float = Field(1e-3, gt=0, le=1_000)
    """Of Adam."""
    epochs: Count = 100
    """Passes over the training logs; where it is tuned, at most so many."""
    patience: Count = 10
    """Where it is tuned: passes without a better validation value after which a fit ends; the best pass is kept."""
    seeds: Count = 3
    """Where it is tuned: trainings of the best setting, each from its own seed; the best is kept, all are told."""


class ItemKNNGridConfig(StrictModel):
    """What is tried for `item-knn`."""

    neighbours: tuple[Count, ...] = Field((20, 50, 200, 1000), min_length=1)
    """As in `evaluate.item_knn`."""
    damping: tuple[Weight, ...] = Field((0.0, 3.0, 30.0), min_length=1)
    """As there."""


class FactorsGridConfig(StrictModel):
    """What is tried for `mf`."""

    factors: tuple[_Factors, ...] = Field((16, 32, 64, 128), min_length=1)
    """As in `evaluate.mf`."""
    confidence: tuple[Weight, ...] = Field((1.0, 10.0, 40.0), min_length=1)
    """As there."""


class SASRecGridConfig(StrictModel):
    """What is tried for `sasrec`."""

    length: tuple[Count | None, ...] = Field((10, None), min_length=1)
    """As in `evaluate.sasrec`; lengths that come to the same are tried once."""
    negatives: tuple[Count | None, ...] = Field((1, None), min_length=1)
    """As there: as published, and as is best known today."""
    dropout: tuple[_Dropout, ...] = Field((0.2, 0.5), min_length=1)
    """As there: the published values for dense and for sparse logs."""


class GridConfig(StrictModel):
    """What `tune` tries: every combination, in this order; of equals the first is kept."""

    item_knn: ItemKNNGridConfig = ItemKNNGridConfig()
    """For `item-knn`."""
    mf: FactorsGridConfig = FactorsGridConfig()
    """For `mf`."""
    sasrec: SASRecGridConfig = SASRecGridConfig()
    """For `sasrec`."""
