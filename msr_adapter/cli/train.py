"""`msr train`, and with `--dry-run` everything that a training needs and the commands that would start it."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msr_adapter.cli.common import Force, Json, PipelineArgument, Quiet, RunDir, Sets, emit, exit_codes, interruptible
from msr_adapter.cli.runs import StageOptions, run_stages

if TYPE_CHECKING:
    from msr_adapter.config.loader import LoadedPipeline


def train(
    pipeline: PipelineArgument,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Stop after writing the YAML; show the commands that would train with it.")
    ] = False,
    sets: Sets = None, run_dir: RunDir = None, force: Force = None, quiet: Quiet = False, as_json: Json = False,
) -> None:  # fmt: skip
    """Fine-tune the recommender with LLaMA-Factory.

    Example: [bold]msr train my.yaml --dry-run[/bold]
    """
    options = StageOptions(pipeline, sets, run_dir, force, quiet, as_json)
    if not dry_run:
        run_stages(("train",), options)
        return
    with exit_codes(as_json):
        loaded = options.load()
        with interruptible(loaded.run_dir):
            result, text = _dry_run(options, loaded)
        emit(result, text, as_json)


def _dry_run(options: StageOptions, loaded: "LoadedPipeline") -> tuple[dict[str, object], str]:
    """Write the YAML and, for several machines, a Slurm script; return the result as JSON and as text."""
    from msr_adapter.files import write_text
    from msr_adapter.llamafactory.kernels import liger_note
    from msr_adapter.llamafactory.nodes import slurm_script
    from msr_adapter.pipeline import write_training_yaml
    from msr_adapter.train import commands_by_hand, first_place

    config = loaded.pipeline.train
    place = first_place(config)
    yaml = write_training_yaml(loaded, options.reporter())
    commands = commands_by_hand(config, yaml)
    liger = liger_note(config, cuda=place.gpus > 0)
    result: dict[str, object] = {"yaml": str(yaml), "commands": commands, "kernels": liger}
    where = "Train with it:" if len(commands) == 1 else "Train with it, one command on each machine:"
    lines = [str(yaml), liger, where, *commands]
    if place.nodes > 1:
        script = yaml.with_name("train.sbatch")
        command = _train_command(options, loaded.run_dir)
        write_text(script, slurm_script(place, f"msr-{loaded.pipeline.name}", command))
        result["slurm"] = str(script)
        lines += [f"Or let msr do it, under Slurm: sbatch {script}"]
    return result, "\n".join(lines)


def _train_command(options: StageOptions, run_dir: Path) -> list[str]:
    """Return the command that trains this pipeline, wherever it is started."""
    given = Path(options.pipeline)
    pipeline = str(given.resolve()) if given.exists() else options.pipeline
    # A Slurm job starts in another folder, with another PATH: everything is absolute.
    settings = [part for setting in options.sets or () for part in ("--set", setting)]
    return [sys.executable, "-m", "msr_adapter", "train", pipeline, *settings, "--run-dir", str(run_dir.resolve())]
