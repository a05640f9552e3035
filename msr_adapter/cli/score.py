"""`msr score`: a score beside every row of a table of users and items."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from msr_adapter.cli.common import (
    Json,
    Overwrite,
    PipelineArgument,
    Quiet,
    Retraining,
    RunDir,
    Sets,
    emit,
    exit_codes,
    interruptible,
)
from msr_adapter.errors import plural


class UnknownRows(StrEnum):
    """What `msr score --unknown` takes."""

    ERROR = "error"
    SKIP = "skip"


class KnownHistories(StrEnum):
    """What `msr score --histories` takes."""

    ALL = "all"
    TEST = "test"


def score(
    pipeline: PipelineArgument,
    pairs: Annotated[
        Path,
        typer.Argument(metavar="PAIRS", show_default=False,
                       help="A csv, tsv, jsonl or Parquet table: a user and an item (or a title, and maybe an image) "
                       "in each row."),
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", show_default=False,
                           help="Ends in .parquet, .csv, .tsv or .jsonl: the table, and its scores."),
    ],
    columns: Annotated[
        str | None,
        typer.Option("--columns", metavar="user=A,item=B", show_default=False,
                     help="Columns with other names than the usual ones: user, item, title, image. A title given here "
                     "stands for items outside the catalogue."),
    ] = None,
    unknown: Annotated[
        UnknownRows, typer.Option("--unknown", help="For unknown users and items: stop, or leave their rows without "
                                  "a score and say why in the column not_scored."),
    ] = UnknownRows.ERROR,
    histories: Annotated[
        KnownHistories, typer.Option("--histories", help="What the model is told of a user: all interactions, or those "
                                     "before the test target, as in the evaluation."),
    ] = KnownHistories.ALL,
    items: Annotated[
        Path | None,
        typer.Option("--items", metavar="FILE", help="A table of items added after the training, like the source's."),
    ] = None,
    train: Retraining = False, overwrite: Overwrite = False, sets: Sets = None, run_dir: RunDir = None,
    quiet: Quiet = False, as_json: Json = False,
) -> None:  # fmt: skip
    """Score the pairs of a table with the trained model: its rows, columns and order stay, scores are added.

    Example: [bold]msr score my.yaml pairs.csv --out scored.csv[/bold]
    """
    with exit_codes(as_json):
        from msr_adapter.config.loader import load_pipeline
        from msr_adapter.data.pairs_file import parse_columns
        from msr_adapter.progress import Reporter
        from msr_adapter.workflows.score_pairs import PairsRequest
        from msr_adapter.workflows.score_pairs.workflow import score_table

        named = parse_columns(columns) if columns is not None else {}
        loaded = load_pipeline(pipeline, sets or (), run_dir)
        wanted = PairsRequest(pairs, out, named, unknown.value, histories.value, overwrite, items)
        with interruptible(loaded.run_dir):
            result = score_table(loaded, wanted, Reporter(quiet=quiet), train=train)
        left = sum(result["not_scored"].values())
        text = f"{out}: {plural(result['rows'], 'row')}" + (f", {left:,} of them without a score" if left else "")
        emit({"pipeline": loaded.pipeline.name, "run_dir": str(loaded.run_dir), **result}, text, as_json)
