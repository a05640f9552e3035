"""`msr results`: a finished run's numbers, for people, papers and other tools."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msr_adapter.cli.common import Json, Overwrite, RunArgument, emit, exit_codes, render
from msr_adapter.cli.runs import read_run
from msr_adapter.errors import Problem, UserError

if TYPE_CHECKING:
    from msr_adapter.evaluate.metrics_file import MetricsFile


class ResultsFormat(StrEnum):
    """What `msr results --format` takes."""

    TABLE = "table"
    MARKDOWN = "markdown"
    LATEX = "latex"
    TREC = "trec"
    RANX = "ranx"


def results(
    run: RunArgument,
    form: Annotated[
        ResultsFormat,
        typer.Option("--format", help="A table of the metrics, or run and qrels files of every model (trec, ranx)."),
    ] = ResultsFormat.TABLE,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="PATH", help="The folder of trec and ranx files, or a table's file.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Show a finished run's metrics, or write them for a paper, trec_eval or ranx.

    Example: [bold]msr results demo --format trec --out demo-trec[/bold]
    """
    with exit_codes(as_json):
        from msr_adapter.config.output_paths import Output, protected_by_run, require_outputs
        from msr_adapter.evaluate.trec_ranx_export import WRITERS, file_names

        finished = read_run(run)
        protected = protected_by_run(finished.folder) | ({"RUN": Path(run)} if Path(run).is_file() else {})
        if form in WRITERS:
            if out is None or out.is_file():
                found = "missing" if out is None else f"{out} is a file"
                raise UserError(Problem("--out", "", found, "a folder for the files", f"Add --out {form.value}"))
            names = file_names(finished, form)
            require_outputs([Output(out / name, overwrite) for name in names], protected)
            files = [str(path) for path in WRITERS[form](finished, out)]
            emit({"run": str(finished.folder), "files": files}, "\n".join(files), as_json)
            return
        if out is not None:
            require_outputs([Output(out, overwrite)], protected)
        _show(finished.metrics, form, out, as_json)


def _show(metrics: "MetricsFile", form: ResultsFormat, out: Path | None, as_json: bool) -> None:
    from msr_adapter.evaluate.text_tables import full_table, hybrid_table, metric_table, trainings_table
    from msr_adapter.files import write_text

    others = (trainings_table(metrics), hybrid_table(metrics), full_table(metrics))
    tables = [metric_table(metrics), *(table for table in others if table)]
    text = render(tables, form is ResultsFormat.MARKDOWN, form is ResultsFormat.LATEX)
    if out is None:
        emit(metrics, text, as_json)
        return
    write_text(out, f"{text}\n")
    emit({"files": [str(out)]}, str(out), as_json)
