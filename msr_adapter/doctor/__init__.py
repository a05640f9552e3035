"""What this machine has and lacks for training and scoring. Heavy libraries are imported in child processes only."""

from msr_adapter.doctor.diagnostics import Examined, examine
from msr_adapter.doctor.finding import Finding

__all__ = ["Examined", "Finding", "examine"]
