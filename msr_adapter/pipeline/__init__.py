"""The order of the stages, their fingerprints, and the run folder."""

from msr_adapter.pipeline.check import check
from msr_adapter.pipeline.run import RunResult, StageOutcome, plan, run, write_training_yaml
from msr_adapter.pipeline.stages import STAGE_NAMES

__all__ = ["STAGE_NAMES", "RunResult", "StageOutcome", "check", "plan", "run", "write_training_yaml"]
