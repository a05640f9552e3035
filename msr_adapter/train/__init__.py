"""Move 3, first half: the LLaMA-Factory data set, and the fine-tuning of the recommender."""

from msr_adapter.train.dataset import build_dataset
from msr_adapter.train.length_estimate import estimate_lengths
from msr_adapter.train.preflight import preflight
from msr_adapter.train.training import (
    commands_by_hand,
    first_place,
    join_training,
    train,
    training_place,
    write_training_yaml,
)
from msr_adapter.train.truncation import UserTexts, truncate_summaries

__all__ = [
    "UserTexts",
    "build_dataset",
    "commands_by_hand",
    "estimate_lengths",
    "first_place",
    "join_training",
    "preflight",
    "train",
    "training_place",
    "truncate_summaries",
    "write_training_yaml",
]
