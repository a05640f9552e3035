"""The commands of ``msr``."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msr_adapter import __version__
from msr_adapter.cli import (
    ablate,
    bundled,
    cache,
    candidates,
    common,
    compare,
    doctor,
    fetch_images,
    previews,
    recommend,
)
from msr_adapter.cli import export as export_module
from msr_adapter.cli import results as results_module
from msr_adapter.cli.common import (
    Force,
    Json,
    Overwrite,
    PipelineArgument,
    Quiet,
    RunDir,
    Sets,
    emit,
    exit_codes,
    interruptible,
)
from msr_adapter.errors import Problem, UserError, did_you_mean
from msr_adapter.files import atomic_folder

if TYPE_CHECKING:
    from msr_adapter.config.loader import LoadedPipeline
    from msr_adapter.progress import Reporter

app = typer.Typer(
    name="msr",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


app.add_typer(cache.app)


def main() -> None:
    """Run the command line."""
    app()


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"msr {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """A declarative multimodal sequential recommender on top of LLaMA-Factory.

    Start with [bold]msr run demo[/bold].
    """


@app.command()
def run(
    pipeline: PipelineArgument, sets: Sets = None, run_dir: RunDir = None, force: Force = None,
    quiet: Quiet = False, as_json: Json = False,
) -> None:  # fmt: skip
    """Bring every needed stage up to date, in order; end with the metrics and a report.

    Example: [bold]msr run demo --set train.epochs=2 --run-dir runs/longer[/bold]
    """
    from msr_adapter.pipeline import WHOLE

    _bring_up_to_date(pipeline, WHOLE, sets, run_dir, force, quiet, as_json)


@app.command("build-data")
def build_data(
    pipeline: PipelineArgument, sets: Sets = None, run_dir: RunDir = None, force: Force = None,
    quiet: Quiet = False, as_json: Json = False,
) -> None:  # fmt: skip
    """Turn logs into splits, frozen candidates, summaries and the LLaMA-Factory dataset.

    Example: [bold]msr build-data my.yaml --set data.limit.users=1000[/bold]
    """
    _bring_up_to_date(pipeline, ("data", "items", "users", "dataset"), sets, run_dir, force, quiet, as_json)


class Summary(StrEnum):
    """What `msr summarize --only` takes."""

    ITEMS = "items"
    USERS = "users"


@app.command()
def summarize(
    pipeline: PipelineArgument,
    only: Annotated[Summary | None, typer.Option("--only", help="Stop after this summariser.")] = None,
    preview: Annotated[
        int | None, typer.Option("--preview", min=1, metavar="N", help="Print the prompts of N items and of N users.")
    ] = None,
    ask: Annotated[bool, typer.Option("--run", help="With --preview: the answers too; they are kept.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say how many calls and tokens are left to ask.")] = False,
    sets: Sets = None, run_dir: RunDir = None, force: Force = None, quiet: Quiet = False, as_json: Json = False,
) -> None:  # fmt: skip
    """Write item summaries (image and title to text) and user summaries (history to preferences).

    Example: [bold]msr summarize demo --preview 3[/bold]
    """
    targets = (only.value,) if only else ("items", "users")
    if preview is None and not dry_run and not ask:
        _bring_up_to_date(pipeline, targets, sets, run_dir, force, quiet, as_json)
        return
    with exit_codes(as_json):
        if ask and preview is None:
            raise UserError(Problem("--run", "", "nothing says what to ask", "", "Give --preview N too"))
        loaded = _load(pipeline, sets, run_dir, force)
        with interruptible(loaded.run_dir):
            if preview is None:
                previews.print_cost(loaded, targets, _reporter(quiet), as_json)
            else:
                previews.print_preview(loaded, targets, preview, ask, _reporter(quiet), as_json)


@app.command()
def train(
    pipeline: PipelineArgument,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Stop after writing the YAML; show the commands that train it.")
    ] = False,
    sets: Sets = None, run_dir: RunDir = None, force: Force = None, quiet: Quiet = False, as_json: Json = False,
) -> None:  # fmt: skip
    """Fine-tune the recommender with LLaMA-Factory.

    Example: [bold]msr train my.yaml --dry-run[/bold]
    """
    if not dry_run:
        _bring_up_to_date(pipeline, ("train",), sets, run_dir, force, quiet, as_json)
        return
    with exit_codes(as_json):
        from msr_adapter.cli.dry_run import dry_run as describe

        loaded = _load(pipeline, sets, run_dir, force)
        with interruptible(loaded.run_dir):
            result, text = describe(pipeline, sets or (), loaded, _reporter(quiet))
        emit(result, text, as_json)


@app.command()
def evaluate(
    pipeline: PipelineArgument, sets: Sets = None, run_dir: RunDir = None, force: Force = None,
    quiet: Quiet = False, as_json: Json = False,
) -> None:  # fmt: skip
    """Score the frozen candidates, compute the metrics, write the report.

    Example: [bold]msr evaluate demo --set evaluate.protocol.confidence.samples=5000[/bold]
    """
    _bring_up_to_date(pipeline, ("evaluate",), sets, run_dir, force, quiet, as_json)


app.command()(ablate.ablate)
app.command()(compare.compare)
app.command()(results_module.results)
app.command()(recommend.recommend)
app.command()(export_module.export)
app.add_typer(candidates.app, name="candidates")
app.command("fetch-images")(fetch_images.fetch_images)


@app.command()
def check(
    pipeline: PipelineArgument,
    deep: Annotated[
        bool, typer.Option("--deep", help="Measure every row and read every image too, as before a training.")
    ] = False,
    sets: Sets = None, run_dir: RunDir = None, quiet: Quiet = False, as_json: Json = False,
) -> None:  # fmt: skip
    """Find every problem that can be known before a model is loaded; say what would run.

    Example: [bold]msr check my.yaml --deep[/bold]
    """
    with exit_codes(as_json):
        from msr_adapter.pipeline import check as find_problems
        from msr_adapter.pipeline import look_deep, notes, plan

        loaded = _load(pipeline, sets, run_dir)
        if problems := find_problems(loaded):
            raise UserError(problems)
        stages = plan(loaded)
        known = notes(loaded, stages)
        looked = look_deep(loaded, stages, _reporter(quiet)) if deep else {}
        lines = [
            *(f"  {name:<11} {_would(state)}" for name, state in stages.items()),
            *(f"note: {one}" for one in known),
        ]
        text = "\n".join([f"{loaded.pipeline.name}: no problems found. In {loaded.run_dir}:", *lines])
        result = {"pipeline": loaded.pipeline.name, "run_dir": str(loaded.run_dir), "stages": stages, "notes": known}
        if deep:
            result["rows"] = looked
            text += "\n" + looked["said"]
        emit(result, text, as_json)


app.command()(doctor.doctor)


@app.command("ls")
def list_bundled(as_json: Json = False) -> None:
    """List the bundled pipelines, protocols and templates.

    Example: [bold]msr ls[/bold]
    """
    files = [{"kind": file.kind, "name": file.name, "description": file.description} for file in bundled.all_files()]
    emit({"files": files}, bundled.listing(), as_json)


@app.command("cp")
def copy_bundled(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name from `msr ls`.", show_default=False)],
    target: Annotated[Path, typer.Argument(metavar="FILE", help="A new file, or a folder.", show_default=False)],
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Copy a bundled pipeline, protocol or template, to make it your own.

    Example: [bold]msr cp demo my.yaml[/bold]
    """
    with exit_codes(as_json):
        file, written = bundled.copy(name, target, overwrite)
        result = {"kind": file.kind, "name": file.name, "file": str(written)}
        emit(result, bundled.advice(file, written), as_json)


@app.command("demo-model")
def demo_model(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A folder that is new or empty.", show_default=False)],
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="Training steps; those of the bundled model unless given.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Same seed, same model.")] = 0,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Make the demo's tiny vision-language model from nothing: it learns to describe covers and sum up tastes.

    Example: [bold]msr demo-model my-tiny --seed 1[/bold]
    """
    with exit_codes(as_json):
        from msr_adapter.config.outputs import require_folder

        require_folder(out, {}, "OUT")
        from msr_adapter.demo.build import STEPS, build_base

        with atomic_folder(out) as partial:
            summary = build_base(partial, steps or STEPS, seed, _reporter(quiet))
        model = out.resolve()
        emit({"model": str(model), **summary}, f"{model}\nUse it: --set train.model.path={model}", as_json)


def _bring_up_to_date(
    pipeline: str, targets: tuple[str, ...], sets: Sequence[str] | None, run_dir: Path | None,
    force: Sequence[str] | None, quiet: bool, as_json: bool,
) -> None:  # fmt: skip
    with exit_codes(as_json):
        from msr_adapter.pipeline import join
        from msr_adapter.pipeline import run as run_stages

        loaded = _load(pipeline, sets, run_dir, force)
        with interruptible(loaded.run_dir):
            if join(loaded, targets, force=force or (), reporter=_reporter(quiet)):
                joined = {"pipeline": loaded.pipeline.name, "run_dir": str(loaded.run_dir), "joined": True}
                emit(joined, f"the first machine has the model: {loaded.run_dir}", as_json)
                return
            result = run_stages(loaded, targets, force=tuple(force or ()), reporter=_reporter(quiet))
        if not as_json:
            common.print_metrics(result, quiet)
        what, path = common.made(result)
        emit(common.as_dict(loaded.pipeline.name, result), f"{what}: {path}", as_json)


def _load(
    pipeline: str, sets: Sequence[str] | None, run_dir: Path | None, force: Sequence[str] | None = None
) -> "LoadedPipeline":
    """Load the pipeline; raises `UserError` for it and for unknown stages in ``force``."""
    from msr_adapter.config.loader import load_pipeline
    from msr_adapter.pipeline import STAGE_NAMES

    expected = f"expected one of {', '.join(STAGE_NAMES)}"
    unknown = [
        Problem("--force", "", f"the text {name!r}", expected, did_you_mean(name, STAGE_NAMES))
        for name in force or ()
        if name not in STAGE_NAMES
    ]
    if unknown:
        raise UserError(unknown)
    return load_pipeline(pipeline, sets or (), run_dir)


def _reporter(quiet: bool) -> "Reporter":
    from msr_adapter.progress import Reporter

    return Reporter(quiet=quiet)


def _would(state: str) -> str:
    return state if state == "up to date" else f"would run ({state})"
