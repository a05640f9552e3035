"""Move 3, first half: the LLaMA-Factory dataset, and the fine-tuning of the recommender.

length_estimate: how long rows will be, before a summary is written
truncation: user summaries cut where a row would be too long
shorter_summaries: one summary or history, cut step by step
dataset: candidates as rows that LLaMA-Factory reads, and the balance of their answers
text_rows: rows of a question that a text answers, without the evidence or in pairs
preflight: everything that would end a training hours later, found before it starts
training: the fine-tuning itself, alone, by hand, or beside other machines
working_dir: the folder that a training works in until it is done
checkpoint_selection: which checkpoint is kept, and when there is no use in going on
"""

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
