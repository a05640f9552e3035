"""`msr candidates export`: the candidate lists, for other tools and for other runs."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from msr_adapter.cli.common import (
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
from msr_adapter.errors import plural

app = typer.Typer(name="candidates", no_args_is_help=True, rich_markup_mode="rich")


class CandidatesFormat(StrEnum):
    """What `msr candidates export --format` takes."""

    PARQUET = "parquet"
    CSV = "csv"
    ELLIOT = "elliot"
    RECBOLE = "recbole"


class HeldOutSplit(StrEnum):
    """What `msr candidates export --split` takes."""

    TEST = "test"
    VALIDATION = "validation"


# Without a callback, Typer makes the only command the group itself: `msr candidates`, not `msr candidates export`.
@app.callback()
def _root() -> None:
    """Export the candidate lists that every model ranks.

    Example: [bold]msr candidates export demo --out demo.parquet[/bold]
    """


@app.command()
def export(
    pipeline: PipelineArgument,
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", show_default=False,
                           help="The file; its suffix (.parquet, .csv, .inter, .tsv) says its format."),
    ],
    kind: Annotated[
        CandidatesFormat | None, typer.Option("--format", show_default="as the file's suffix says",
                                    help="parquet, csv: user_id, item_id, label. recbole: the same as .inter "
                                    "text. elliot: a line of a tuple and negatives for each user."),
    ] = None,
    split: Annotated[HeldOutSplit, typer.Option("--split", help="Whose lists.")] = HeldOutSplit.TEST,
    overwrite: Overwrite = False, sets: Sets = None, run_dir: RunDir = None, quiet: Quiet = False,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Write the candidate lists of a run to a file, drawing them first where they are out of date.

    Example: [bold]msr candidates export my.yaml --format elliot --out test_negative.tsv[/bold]
    """
    with exit_codes(as_json):
        from msr_adapter.config.loader import load_pipeline
        from msr_adapter.config.output_paths import Output, protected_by, require_outputs
        from msr_adapter.data import export_candidates, export_format
        from msr_adapter.pipeline import run
        from msr_adapter.progress import Reporter

        loaded = load_pipeline(pipeline, sets or (), run_dir)
        require_outputs([Output(out, overwrite)], protected_by(loaded))
        form = export_format(out, kind.value if kind else None)
        with interruptible(loaded.run_dir):
            run(loaded, ("data",), reporter=Reporter(quiet=quiet))
        counts = export_candidates(loaded.run_dir / "data", split.value, form, out)
        use = "" if split is HeldOutSplit.VALIDATION else f"\nUse it: --set evaluate.protocol.candidates={out}"
        lists, rows = plural(counts["users"], "list"), plural(counts["rows"], "candidate")
        text = f"{out} ({form}): {lists}, {rows}, digest {counts['digest'][:16]}{use}"
        emit({"file": str(out), "split": split.value, **counts}, text, as_json)
