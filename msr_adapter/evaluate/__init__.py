"""Judge scorers on the frozen test candidates: metrics with intervals, baselines on the same lists, a report."""

from msr_adapter.evaluate.baselines import fit_baselines
from msr_adapter.evaluate.evaluation import evaluate
from msr_adapter.report.context import ReportContext

__all__ = ["ReportContext", "evaluate", "fit_baselines"]
