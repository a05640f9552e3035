"""Preferences cut so that every prompt fits `train.cutoff_len`: one text an example, for training and scoring alike."""

from msr_adapter.fit.fitting import fit_preferences

__all__ = ["fit_preferences"]
