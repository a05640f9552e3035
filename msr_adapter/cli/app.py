"""The commands of ``msr``: each stands in a file named like it and is registered here, in the order of ``--help``."""

import sys
from typing import Annotated

import typer

from msr_adapter import __version__
from msr_adapter.cli import cache, candidates
from msr_adapter.cli.ablate import ablate
from msr_adapter.cli.build_data import build_data
from msr_adapter.cli.check import check
from msr_adapter.cli.common import require_text
from msr_adapter.cli.compare import compare
from msr_adapter.cli.cp import copy_bundled
from msr_adapter.cli.demo_model import demo_model
from msr_adapter.cli.doctor import doctor
from msr_adapter.cli.evaluate import evaluate
from msr_adapter.cli.export import export
from msr_adapter.cli.fetch_images import fetch_images
from msr_adapter.cli.get_model import get_model
from msr_adapter.cli.init import init
from msr_adapter.cli.ls import list_bundled
from msr_adapter.cli.prune import prune
from msr_adapter.cli.recommend import recommend
from msr_adapter.cli.results import results
from msr_adapter.cli.run import run
from msr_adapter.cli.schema import schema
from msr_adapter.cli.streams import forgiving_streams
from msr_adapter.cli.summarize import summarize
from msr_adapter.cli.train import train

# Commands import what they need when they run: `msr --help` has to answer at once, and torch alone takes seconds.
app = typer.Typer(
    name="msr",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # what is no MsrError is a bug: its traceback is wanted whole
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line."""
    with forgiving_streams():
        require_text(sys.argv[1:])
        app()


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"msr {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        # Eager: it answers before Typer misses a command.
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """A declarative multimodal sequential recommender on top of LLaMA-Factory.

    Start with [bold]msr run demo[/bold].
    """


app.command("init")(init)
app.command("run")(run)
app.command("build-data")(build_data)
app.command("summarize")(summarize)
app.command("train")(train)
app.command("evaluate")(evaluate)
app.command("ablate")(ablate)
app.command("compare")(compare)
app.command("results")(results)
app.command("recommend")(recommend)
app.command("export")(export)
app.command("fetch-images")(fetch_images)
app.command("check")(check)
app.command("doctor")(doctor)
app.command("prune")(prune)
app.command("ls")(list_bundled)
app.command("cp")(copy_bundled)
app.command("schema")(schema)
app.command("demo-model")(demo_model)
app.command("get-model")(get_model)
app.add_typer(cache.app, name="cache")
app.add_typer(candidates.app, name="candidates")
