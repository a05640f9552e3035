"""Judge scorers on the test candidates: metrics with intervals, baselines on the same candidate lists."""

from msr_adapter.evaluate.baselines import fit_baselines
from msr_adapter.evaluate.evaluation import EvaluateDirs, Evaluation, Run, evaluate

__all__ = ["EvaluateDirs", "Evaluation", "Run", "evaluate", "fit_baselines"]
