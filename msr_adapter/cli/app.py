"""The commands of ``msr``: each stands in a file named like it and is registered here, in the order of ``--help``."""

import sys
from typing import Annotated

import typer

from msr_adapter.cli import cache, candidates
from msr_adapter.cli.ablate import ablate
from msr_adapter.cli.build_data import build_data
from msr_adapter.cli.check import check
from msr_adapter.cli.common import require_text
from msr_adapter.cli.compare import compare
from msr_adapter.cli.constraints import constraints
from msr_adapter.cli.cp import copy_bundled
from msr_adapter.cli.demo_model import demo_model
from msr_adapter.cli.doctor import doctor
from msr_adapter.cli.embed import embed
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
from msr_adapter.cli.run_list import runs
from msr_adapter.cli.schema import schema
from msr_adapter.cli.score import score
from msr_adapter.cli.serve import serve
from msr_adapter.cli.streams import forgiving_streams
from msr_adapter.cli.summarize import summarize
from msr_adapter.cli.sweep import sweep
from msr_adapter.cli.track import track
from msr_adapter.cli.train import train
from msr_adapter.version import __version__

# Commands import what they need when they run: `msr --help` has to answer at once, and torch alone takes seconds.
app = typer.Typer(
    name="msr",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # what is no MsrError is a bug: its traceback is wanted whole
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

BEGIN, RUN, JUDGE, USE, TOOLS = "Begin and look", "Run", "Judge", "Use the trained model", "Tools"
"""Groups of commands in `--help`."""


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


app.command("init", rich_help_panel=BEGIN)(init)
app.command("run", rich_help_panel=RUN)(run)
app.command("build-data", rich_help_panel=RUN)(build_data)
app.command("summarize", rich_help_panel=RUN)(summarize)
app.command("train", rich_help_panel=RUN)(train)
app.command("evaluate", rich_help_panel=RUN)(evaluate)
app.command("ablate", rich_help_panel=RUN)(ablate)
app.command("sweep", rich_help_panel=RUN)(sweep)
app.command("compare", rich_help_panel=JUDGE)(compare)
app.command("results", rich_help_panel=JUDGE)(results)
app.command("runs", rich_help_panel=JUDGE)(runs)
app.command("recommend", rich_help_panel=USE)(recommend)
app.command("score", rich_help_panel=USE)(score)
app.command("serve", rich_help_panel=USE)(serve)
app.command("embed", rich_help_panel=USE)(embed)
app.command("export", rich_help_panel=USE)(export)
app.command("fetch-images", rich_help_panel=TOOLS)(fetch_images)
app.command("check", rich_help_panel=BEGIN)(check)
app.command("doctor", rich_help_panel=BEGIN)(doctor)
app.command("prune", rich_help_panel=TOOLS)(prune)
app.command("track", rich_help_panel=TOOLS)(track)
app.command("ls", rich_help_panel=BEGIN)(list_bundled)
app.command("cp", rich_help_panel=BEGIN)(copy_bundled)
app.command("schema", rich_help_panel=BEGIN)(schema)
app.command("constraints", rich_help_panel=TOOLS)(constraints)
app.command("demo-model", rich_help_panel=TOOLS)(demo_model)
app.command("get-model", rich_help_panel=TOOLS)(get_model)
app.add_typer(cache.app, name="cache", rich_help_panel=TOOLS)
app.add_typer(candidates.app, name="candidates", rich_help_panel=USE)
