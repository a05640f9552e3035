"""Move 3, first half: the LLaMA-Factory data set, and the fine-tuning of the recommender."""

from msr_adapter.train.dataset import build_dataset
from msr_adapter.train.forecast import forecast
from msr_adapter.train.preflight import preflight
from msr_adapter.train.training import train, write_training_yaml

__all__ = ["build_dataset", "forecast", "preflight", "train", "write_training_yaml"]
