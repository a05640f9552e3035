"""`msr evaluate`: scores, metrics and the report."""

from msr_adapter.cli.common import Force, Json, PipelineArgument, Quiet, Retraining, RunDir, Sets
from msr_adapter.cli.runs import StageOptions, run_stages


def evaluate(
    pipeline: PipelineArgument, sets: Sets = None, run_dir: RunDir = None, force: Force = None,
    train: Retraining = False, quiet: Quiet = False, as_json: Json = False,
) -> None:  # fmt: skip
    """Score the candidate lists, compute the metrics, write the report.

    A model that was trained under other settings is not trained again, unless by --train: this says what changed.

    Example: [bold]msr evaluate demo --set evaluate.protocol.confidence.samples=5000[/bold]
    """
    run_stages(("evaluate",), StageOptions(pipeline, sets, run_dir, force, quiet, as_json, train))
