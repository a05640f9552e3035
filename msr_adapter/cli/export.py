"""`msr export`: the trained recommender as a model folder for others."""

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from msr_adapter.cli.common import (
    Json,
    PipelineArgument,
    Quiet,
    Retraining,
    RunDir,
    Sets,
    emit,
    exit_codes,
    interruptible,
)


class Dtype(StrEnum):
    """What `msr export --dtype` takes."""

    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"
    FLOAT32 = "float32"


def export(
    pipeline: PipelineArgument,
    out: Annotated[
        Path, typer.Option("--out", metavar="FOLDER", help="A folder that is new or empty.", show_default=False)
    ],
    dtype: Annotated[Dtype, typer.Option("--dtype", help="Precision of the written weights.")] = Dtype.BFLOAT16,
    licence: Annotated[
        str | None,
        typer.Option("--licence", metavar="ID", help="Licence on the card; default: what the base model states."),
    ] = None,
    push: Annotated[
        str | None, typer.Option("--push", metavar="ORG/NAME", help="Also upload it to the Hugging Face Hub.")
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="Make what --push uploads public.")] = False,
    train: Retraining = False, sets: Sets = None, run_dir: RunDir = None, quiet: Quiet = False,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Write the trained model, adapters merged, with a model card; check that it scores as the run's model did.

    Example: [bold]msr export my.yaml --out my-recommender --dtype bfloat16[/bold]
    """
    with exit_codes(as_json):
        from msr_adapter.config.loader import load_pipeline
        from msr_adapter.progress import Reporter
        from msr_adapter.workflows.export import export as write
        from msr_adapter.workflows.export import push as upload

        loaded, reporter = load_pipeline(pipeline, sets or (), run_dir), Reporter(quiet=quiet)
        with interruptible(loaded.run_dir):
            made = write(loaded, out, dtype.value, licence, reporter, "make" if train else "refuse")
            address = upload(out, push, private=not public) if push else None
        lines = [f"model: {made.folder}", f"card: {made.folder / 'README.md'}"]
        lines += [f"uploaded: {address}"] if address else []
        emit({**asdict(made), "folder": str(made.folder), "pushed": address}, "\n".join(lines), as_json)
