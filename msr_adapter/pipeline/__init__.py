"""The order of the stages, their fingerprints, and the run folder."""

from msr_adapter.pipeline.checks import check, look_deep, notes
from msr_adapter.pipeline.runner import RunResult, StageOutcome, State, join, plan, run, write_training_yaml
from msr_adapter.pipeline.stages import STAGE_NAMES, WHOLE

__all__ = [
    "STAGE_NAMES",
    "WHOLE",
    "RunResult",
    "StageOutcome",
    "State",
    "check",
    "join",
    "look_deep",
    "notes",
    "plan",
    "run",
    "write_training_yaml",
]
