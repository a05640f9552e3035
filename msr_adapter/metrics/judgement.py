"""What a ranking was found to be worth."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Judgement:
    """One model, judged on some users."""

    value: float
    """The metric; higher is better."""
    low: float
    """Lower end of its interval over users."""
    high: float
    """Upper end."""
    loss: float
    """Mean negative log-probability of the right answer, true items and others weighing the same."""
    users: int
    candidates: int
