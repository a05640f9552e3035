"""`msr embed`: items and users as vectors."""

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


class EmbeddedKinds(StrEnum):
    """What `msr embed --kinds` takes."""

    ALL = "all"
    ITEMS = "items"
    USERS = "users"


def embed(
    pipeline: PipelineArgument,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", show_default=False, help="Ends in .parquet.")],
    kinds: Annotated[
        EmbeddedKinds,
        typer.Option("--kinds", help="Users need their summaries: as many model calls as they have blocks."),
    ] = EmbeddedKinds.ALL,
    train: Retraining = False, overwrite: Overwrite = False, sets: Sets = None, run_dir: RunDir = None,
    quiet: Quiet = False, as_json: Json = False,
) -> None:  # fmt: skip
    """Write vectors of items (title, image, summary) and of users (their summary), as the key `embedding` says.

    Example: [bold]msr embed my.yaml --out vectors.parquet --set embedding.model=./all-MiniLM-L6-v2[/bold]
    """
    with exit_codes(as_json):
        from msr_adapter.config.loader import load_pipeline
        from msr_adapter.progress import Reporter
        from msr_adapter.workflows.embed import EmbedRequest
        from msr_adapter.workflows.embed import embed as carry_out

        loaded = load_pipeline(pipeline, sets or (), run_dir)
        wanted = EmbedRequest(out, kinds.value, overwrite)
        with interruptible(loaded.run_dir):
            result = carry_out(loaded, wanted, Reporter(quiet=quiet), train=train)
        text = (f"{out}: {plural(result['items'], 'item')} and {plural(result['users'], 'user')}, "
                f"{result['dimension']} dimensions")  # fmt: skip
        emit({"pipeline": loaded.pipeline.name, "run_dir": str(loaded.run_dir), **result}, text, as_json)
