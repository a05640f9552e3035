"""`msr init`: a pipeline for one's own files, written after a look at them."""

from pathlib import Path
from typing import Annotated

import typer

from msr_adapter.cli.common import Json, Overwrite, Sets, emit, exit_codes


def init(
    log: Annotated[
        Path, typer.Argument(metavar="LOG", show_default=False,
                             help="The interactions: csv, tsv, JSON lines, Parquet, or a published data set's folder."),
    ],
    items: Annotated[
        Path | None, typer.Argument(metavar="ITEMS", show_default=False, help="A table of the items: ids and titles.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option("--images", metavar="FOLDER", help="Holds {item}.jpg, or what the items name.")
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="The pipeline to write.")
    ] = Path("my.yaml"),
    sets: Sets = None, overwrite: Overwrite = False, as_json: Json = False,
) -> None:  # fmt: skip
    """Look at your files, say what they hold, and write a pipeline that reads them.

    Example: [bold]msr init log.csv items.csv --images images/[/bold]
    """
    with exit_codes(as_json):
        from msr_adapter.config.output_paths import Output
        from msr_adapter.workflows.new_pipeline import GivenFiles, new_pipeline

        output = Output(out, overwrite, (".yaml", ".yml"))
        made = new_pipeline(GivenFiles(log, items, images, tuple(sets or ())), output)
        lines = list(made.look.lines)
        lines += [f"decided: {text}" for text in made.decided]
        lines += [f"unsure: {text}" for text in made.unsure]
        lines += [f"Wrote {made.path}. Next: msr check {made.path}, then msr run {made.path}"]
        result: dict[str, object] = {
            "file": str(made.path), "kind": made.source.kind, "told_by": made.source.why,
            "sources": [found.as_json() for found in made.look.recognised], "findings": made.look.findings,
            "decided": list(made.decided), "unsure": list(made.unsure),
        }  # fmt: skip
        emit(result, "\n".join(lines), as_json)
