"""`msr build-data`: everything that a training reads."""

from msr_adapter.cli.common import Force, Json, PipelineArgument, Quiet, RunDir, Sets
from msr_adapter.cli.runs import StageOptions, run_stages

_STAGES = ("data", "items", "users", "dataset")


def build_data(
    pipeline: PipelineArgument, sets: Sets = None, run_dir: RunDir = None, force: Force = None,
    quiet: Quiet = False, as_json: Json = False,
) -> None:  # fmt: skip
    """Turn logs into splits, candidate lists, summaries and the LLaMA-Factory dataset.

    Example: [bold]msr build-data my.yaml --set data.limit.users=1000[/bold]
    """
    run_stages(_STAGES, StageOptions(pipeline, sets, run_dir, force, quiet, as_json))
