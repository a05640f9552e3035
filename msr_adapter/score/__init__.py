"""Move 3, second half: how likely is Yes, for every test candidate."""

from msr_adapter.score.scoring import score

__all__ = ["score"]
