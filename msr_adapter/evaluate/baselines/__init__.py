"""Scorers that every trained model must be seen beside; each scores the very same candidates."""

from msr_adapter.evaluate.baselines.fitting import FITTED, fit_baselines, read_fitted
from msr_adapter.evaluate.baselines.simple import SIMPLE, oracle_scores

__all__ = ["FITTED", "SIMPLE", "fit_baselines", "oracle_scores", "read_fitted"]
