"""Judge scorers on the frozen test candidates: metrics with intervals, baselines on the same lists, a report."""

from msr_adapter.evaluate.baselines import fit_baselines
from msr_adapter.evaluate.context import ReportContext
from msr_adapter.evaluate.stage import evaluate

__all__ = ["ReportContext", "evaluate", "fit_baselines"]
