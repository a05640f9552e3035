"""`msr train --dry-run`: everything that a training needs, and the commands that would start it."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msr_adapter.files import write_text

if TYPE_CHECKING:
    from msr_adapter.config.loader import LoadedPipeline
    from msr_adapter.progress import Reporter


def dry_run(
    argument: str, sets: Sequence[str], loaded: "LoadedPipeline", reporter: "Reporter"
) -> tuple[dict[str, Any], str]:
    """Write the YAML and, for several machines, a Slurm script; return the result as JSON and as text."""
    from msr_adapter.llamafactory.nodes import slurm_script
    from msr_adapter.pipeline import write_training_yaml
    from msr_adapter.train import commands_by_hand, first_place

    train = loaded.pipeline.train
    place = first_place(train)
    yaml = write_training_yaml(loaded, reporter)
    commands = commands_by_hand(train, yaml)
    result: dict[str, Any] = {"yaml": str(yaml), "commands": commands}
    where = "Train with it:" if len(commands) == 1 else "Train with it, one command on each machine:"
    lines = [str(yaml), where, *commands]
    if place.nodes > 1:
        script = yaml.with_name("train.sbatch")
        write_text(script, slurm_script(place, f"msr-{loaded.pipeline.name}", _msr(argument, sets, loaded.run_dir)))
        result["slurm"] = str(script)
        lines += [f"Or let msr do it, under Slurm: sbatch {script}"]
    return result, "\n".join(lines)


def _msr(argument: str, sets: Sequence[str], run_dir: Path) -> list[str]:
    """Return the command that trains this pipeline, wherever it is started."""
    pipeline = str(Path(argument).resolve()) if Path(argument).exists() else argument
    settings = [part for setting in sets for part in ("--set", setting)]
    return [sys.executable, "-m", "msr_adapter", "train", pipeline, *settings, "--run-dir", str(run_dir.resolve())]
