"""What this machine has and lacks for training and scoring. Heavy libraries are imported in child processes only."""

from msr_adapter.doctor.diagnostics import Diagnosis, diagnose
from msr_adapter.doctor.finding import Finding

__all__ = ["Diagnosis", "Finding", "diagnose"]
