"""`msr check`: everything that can be known of a pipeline before a model is loaded."""

from typing import Annotated

import typer

from msr_adapter.cli.common import Json, PipelineArgument, Quiet, RunDir, Sets, emit, exit_codes
from msr_adapter.cli.runs import StageOptions
from msr_adapter.errors import UserError


def check(
    pipeline: PipelineArgument,
    deep: Annotated[
        bool, typer.Option("--deep", help="Also measure every row and read every image, as before a training.")
    ] = False,
    sets: Sets = None, run_dir: RunDir = None, quiet: Quiet = False, as_json: Json = False,
) -> None:  # fmt: skip
    """Find every problem that can be known before a model is loaded; say what would run and how long it takes.

    Example: [bold]msr check my.yaml --deep[/bold]
    """
    with exit_codes(as_json):
        from msr_adapter.data import look_through
        from msr_adapter.pipeline import check as find_problems
        from msr_adapter.pipeline import check_made, look_deep, notes, plan
        from msr_adapter.pipeline.planning import FOUND_AGAIN

        options = StageOptions(pipeline, sets, run_dir, quiet=quiet, as_json=as_json)
        loaded = options.load()
        look = look_through(loaded.pipeline.data, loaded.pipeline.split)
        if problems := [*find_problems(loaded, look.found), *look.problems]:
            raise UserError(problems)
        stages = plan(loaded)
        if problems := check_made(loaded, stages):
            raise UserError(problems)
        noted = notes(loaded, stages)
        lines = [f"{loaded.pipeline.name}: no problems found. In {loaded.run_dir}:"]
        for name, state in stages.items():
            settled = state == "up to date" or state.startswith(FOUND_AGAIN)
            lines.append(f"  {name:<11} {state if settled else f'would run ({state})'}")
        lines += look.lines
        lines += [note if note.startswith("warning: ") else f"note: {note}" for note in noted]
        result: dict[str, object] = {
            "pipeline": loaded.pipeline.name, "run_dir": str(loaded.run_dir), "stages": stages, "notes": noted,
            "sources": [found.as_json() for found in look.recognised], "findings": look.findings,
        }  # fmt: skip
        if deep:
            rows = look_deep(loaded, stages, options.reporter())
            result["rows"] = rows
            lines.append(rows["said"])
        emit(result, "\n".join(lines), as_json)
