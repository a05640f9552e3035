"""`msr ablate`: what each part of the method is worth, on the same users and candidates."""

from typing import TYPE_CHECKING, Annotated

import typer

from msr_adapter.cli.common import (
    Json,
    MarkdownFlag,
    PipelineArgument,
    Quiet,
    Retraining,
    RunDir,
    Sets,
    emit,
    exit_codes,
    interruptible,
    render,
)

if TYPE_CHECKING:
    from msr_adapter.evaluate.ablation_table import AblationTable
    from msr_adapter.pipeline.planning import Retrain


def ablate(
    pipeline: PipelineArgument,
    only: Annotated[
        str, typer.Option("--only", metavar="A,B", help="Only these variants, beside the full one.")
    ] = "",
    train: Retraining = False, sets: Sets = None, run_dir: RunDir = None, markdown: MarkdownFlag = False,
    quiet: Quiet = False, as_json: Json = False,
) -> None:  # fmt: skip
    """Run the experiment with one part left out at a time, and compare: full, direct, no-image-summary, no-image,
    no-sft, text-only, no-summary.

    All variants rank the same candidates for the same users; stages that come out equal are done once, and a second
    call continues where the first one stopped. The full experiment's trained model, where it is out of date, is made
    again only with --train. The table is also written to RUN/ablations/ablation.json and .md.

    Example: [bold]msr ablate demo --only direct,no-image[/bold]
    """
    with exit_codes(as_json):
        from msr_adapter.config.loader import load_pipeline
        from msr_adapter.evaluate.ablation_table import AblationRow, ablation_table
        from msr_adapter.files import write_json, write_text
        from msr_adapter.progress import Reporter
        from msr_adapter.workflows.ablate import ablate as run_variants

        names = [name.strip() for name in only.split(",") if name.strip()]
        folder = load_pipeline(pipeline, sets or (), run_dir).run_dir / "ablations"
        with interruptible(folder.parent):
            retrain: Retrain = "make" if train else "refuse"
            found = run_variants(pipeline, sets or (), run_dir, names, Reporter(quiet=quiet), retrain)
        table = ablation_table({one.name: AblationRow(one.run_dir, one.model, one.what) for one in found})
        write_json(folder / "ablation.json", table.as_dict())
        write_text(folder / "ablation.md", _text(table, True) + "\n")
        emit(table.as_dict(), "" if as_json else _text(table, markdown), as_json)


def _text(table: "AblationTable", markdown: bool) -> str:
    return f"{render(table.tables(), markdown)}\n\n{table.caution}"
