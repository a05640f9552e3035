"""`msr run`: the whole experiment."""

from msr_adapter.cli.common import Force, Json, PipelineArgument, Quiet, RunDir, Sets
from msr_adapter.cli.runs import StageOptions, run_stages


def run(
    pipeline: PipelineArgument, sets: Sets = None, run_dir: RunDir = None, force: Force = None,
    quiet: Quiet = False, as_json: Json = False,
) -> None:  # fmt: skip
    """Bring every needed stage up to date, in order; end with the metrics and a report.

    Example: [bold]msr run demo --set train.epochs=2 --run-dir runs/longer[/bold]
    """
    from msr_adapter.pipeline import WHOLE

    run_stages(WHOLE, StageOptions(pipeline, sets, run_dir, force, quiet, as_json))
