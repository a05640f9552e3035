"""How tables are printed: for a terminal, as Markdown, as LaTeX."""

import io
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from msr_adapter.evaluate.typeset import TextTable

_PIPE_WIDTH = 200

MarkdownFlag = Annotated[bool, typer.Option("--markdown", help="Tables in Markdown.")]
LatexFlag = Annotated[bool, typer.Option("--latex", help="Tables in LaTeX (package booktabs).")]


def render(tables: Sequence["TextTable"], markdown: bool = False, latex: bool = False) -> str:
    """Return the tables as one text."""
    from msr_adapter.evaluate.typeset import to_latex, to_markdown, to_rich

    if markdown or latex:
        return "\n\n".join(to_markdown(table) if markdown else to_latex(table) for table in tables)
    from rich.console import Console

    target = io.StringIO()
    console = Console(file=target, highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)
    for table in tables:
        console.print(to_rich(table))
    return target.getvalue().rstrip()
