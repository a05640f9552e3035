"""What this machine has and lacks for training and scoring. Heavy libraries are imported in child processes only."""

from msr_adapter.machine.examination import Examined, examine
from msr_adapter.machine.finding import Finding

__all__ = ["Examined", "Finding", "examine"]
