"""`msr sweep`: settings searched for on validation users."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msr_adapter.cli.common import (
    Json,
    MarkdownFlag,
    PipelineArgument,
    Quiet,
    RunDir,
    Sets,
    emit,
    exit_codes,
    interruptible,
    render,
)

if TYPE_CHECKING:
    from msr_adapter.workflows.sweep.outcome import Outcome


def sweep(
    pipeline: PipelineArgument,
    space: Annotated[
        Path, typer.Option("--space", metavar="FILE", help="A YAML file of keys and the values they may take.")
    ],
    trials: Annotated[
        int, typer.Option("--trials", min=1, max=100_000, help="Total number of trials, earlier calls included.")
    ] = 20,
    final: Annotated[
        bool, typer.Option("--final", help="Evaluate the best trial on the test users once the search has ended.")
    ] = False,
    sets: Sets = None, run_dir: RunDir = None, markdown: MarkdownFlag = False, quiet: Quiet = False,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Search settings by Optuna: each trial is trained, and its best checkpoint judged on the validation users.

    Test users are not looked at before --final. A second call goes on where the first one stopped; stages that come out
    equal are done once. The table, a plot and the best trial as a pipeline are in RUN/sweeps/SPACE/.

    Example: [bold]msr sweep my.yaml --space space.yaml --trials 20[/bold]
    """
    with exit_codes(as_json):
        from msr_adapter.config.loader import load_pipeline
        from msr_adapter.pipeline.runner import run
        from msr_adapter.pipeline.stages import STAGE_NAMES
        from msr_adapter.progress import Reporter
        from msr_adapter.workflows.sweep.outcome import Outcome
        from msr_adapter.workflows.sweep.search import plan_sweep, search
        from msr_adapter.workflows.sweep.space import read_space

        reporter = Reporter(quiet=quiet)
        planned = plan_sweep(pipeline, sets or (), run_dir, read_space(space), trials)
        with interruptible(planned.full.run_dir):
            found = Outcome(planned, search(planned, reporter))
            found.write()
            if final:
                run(load_pipeline(str(found.pipeline)), STAGE_NAMES, reporter=reporter, retrain="refuse")
        emit(found.as_dict(), "" if as_json else _text(found, markdown, final), as_json)


def _text(found: "Outcome", markdown: bool, final: bool) -> str:
    after = f"report: {found.best.run_dir / 'evaluate' / 'report.html'}"
    step = after if final else f"Next: msr run {found.pipeline}, which looks at the test users"
    return f"{render([found.table()], markdown)}\nwrote {found.pipeline}\n{step}"
