"""Candidates -> p(yes): one forward pass each; the test split's for the record, the validation split's to choose by."""

from msr_adapter.score.scoring import score
from msr_adapter.score.validation import Validation

__all__ = ["Validation", "score"]
