"""Which run folder a word means: a folder, a pipeline's, or a name in `runs/`."""

from pathlib import Path

from msr_adapter.config.bundled import find_yaml, not_found
from msr_adapter.config.loader import load_pipeline
from msr_adapter.errors import Problem, UserError, did_you_mean
from msr_adapter.filesystem import near_path, real
from msr_adapter.run_folder_mark import is_run

RUNS = Path("runs")
"""Where runs are kept unless a pipeline or `--run-dir` says otherwise."""
_LISTED = 10


def run_folder(argument: str) -> Path:
    """Return the run folder that RUN means: a folder, a pipeline's own run folder, or the run of that name in `runs/`.

    In this order. Raises `UserError` when it is none of these.
    """
    folder = real(Path(argument))
    if folder.is_dir():
        inside = folder.name == "evaluate" and (folder / "metrics.json").exists()
        return real(folder).parent if inside else real(folder)
    if find_yaml(argument, "pipelines", Path.cwd()) is None:
        named = real(RUNS / argument)
        if Path(argument).name == argument and is_run(named):
            return named
        problem = not_found(argument, "pipelines", Path.cwd())
        found = f"`{argument}` is neither a run folder nor a pipeline"
        near = near_path(folder, folder=True)
        guess = f"Did you mean `{Path(argument).with_name(near) if '/' not in near else near}`?" if near else ""
        runs = sorted(path.name for path in RUNS.glob("*") if is_run(path))
        guess = guess or did_you_mean(argument, runs) or problem.next_step
        more = f" and {len(runs) - _LISTED:,} more" if len(runs) > _LISTED else ""
        allowed = f"runs here: {', '.join(runs[:_LISTED])}{more}" if runs else f"there are no runs in {RUNS}/ here"
        raise UserError(Problem("", "RUN", found, allowed, guess or "`msr run PIPELINE` makes one"))
    return load_pipeline(argument).run_dir
