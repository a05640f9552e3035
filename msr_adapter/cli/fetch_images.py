"""`msr fetch-images`: download the images that a pipeline's items name by URL, of the web or of a bucket."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from msr_adapter.cli.common import InterruptError, Json, PipelineArgument, Quiet, Sets, emit, exit_codes
from msr_adapter.errors import Problem, StageError, UserError, plural
from msr_adapter.filesystem import real

if TYPE_CHECKING:
    from msr_adapter.config.loader import LoadedPipeline
    from msr_adapter.config.schema import PipelineConfig
    from msr_adapter.data.images.download import WantedImages

_SHOWN = 5


def fetch_images(
    pipeline: PipelineArgument,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="The folder to fill; default: data.images.folder.")
    ] = None,
    every_item: Annotated[
        bool, typer.Option("--all", help="Every item in the table, not only those that lists may contain.")
    ] = False,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Simultaneous requests.")] = 16,
    per_host: Annotated[int, typer.Option("--per-host", min=1, help="Simultaneous requests to one host.")] = 4,
    retries: Annotated[int, typer.Option("--retries", min=0, help="Retries of a failed request.")] = 3,
    timeout: Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds allowed for each attempt.")] = 120.0,
    allow_private: Annotated[
        bool, typer.Option("--allow-private", help="Connect to private and loopback addresses too.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace images of the same names that were not downloaded.")
    ] = False,
    sets: Sets = None, quiet: Quiet = False, as_json: Json = False,
) -> None:  # fmt: skip
    """Download the images that items name by URL, of the web or a bucket; go on where it stopped, retry what failed.

    Example: [bold]msr fetch-images my.yaml --out images --workers 32[/bold]
    """
    with exit_codes(as_json):
        from msr_adapter.config.loader import load_pipeline
        from msr_adapter.data.images.download import DownloadPolicy, fetch_into, wanted_images
        from msr_adapter.progress import Reporter

        loaded = load_pipeline(pipeline, sets or ())
        config = loaded.pipeline
        folder = _folder(config, out)
        _require_place(loaded, folder)
        policy = DownloadPolicy(
            config.data.images,
            workers,
            per_host,
            retries,
            total_s=timeout,
            allow_private=allow_private,
            overwrite=overwrite,
        )
        wanted = wanted_images(
            config.data, config.seed, every_item=every_item, split=config.split, protocol=config.evaluate.protocol
        )
        if not wanted.urls:
            found = f"none of {plural(wanted.items, 'item')} names its image by URL"
            step = "Set data.source.columns.image"
            raise UserError(Problem("", "data.source", found, "a table of items with a column of URLs", step))
        try:
            report = fetch_into(folder, wanted.urls, policy, Reporter(quiet=quiet))
        except KeyboardInterrupt as interrupt:
            kept = f"Interrupted. What was downloaded is kept in {folder}. The same command continues from there."
            raise InterruptError(kept, interrupt) from None
        _report(folder, wanted, report, config, as_json)


def _folder(config: "PipelineConfig", out: Path | None) -> Path:
    folder = real(out) if out else config.data.images.folder
    if folder is None:
        allowed = "the folder that is filled, and that the data stage then reads"
        raise UserError(Problem("", "data.images.folder", "not given", allowed, "Set it, or give --out FOLDER"))
    return folder


def _require_place(loaded: "LoadedPipeline", folder: Path) -> None:
    """Raise `UserError` where no images may go: among other inputs, the templates, or into a run."""
    from msr_adapter.config.output_paths import place_problem, protected_by

    others = {what: path for what, path in protected_by(loaded).items() if what != "data.images.folder"}
    if problem := place_problem(folder, others, "--out"):
        raise UserError(problem)
    if folder.exists() and not folder.is_dir():
        raise UserError(Problem("", "--out", f"{folder} is a file", "a folder", "Choose another"))


def _report(
    folder: Path, wanted: "WantedImages", report: dict[str, Any], config: "PipelineConfig", as_json: bool
) -> None:
    """Print the report; `StageError` when nothing at all is there afterwards."""
    counts = {"items": wanted.items, "items_without_url": wanted.without, "items_with_file_or_bytes": wanted.otherwise,
              "items_unlisted": wanted.unlisted}  # fmt: skip
    if report["wanted"] and report["failed"] == report["wanted"]:
        cause = f"{_reasons(report)}; every item is listed in {folder / 'fetch-failures.csv'}"
        raise StageError(
            f"None of {plural(report['wanted'], 'image')} could be downloaded", cause, "Try one URL in a browser"
        )
    unnamed = f"{wanted.otherwise + wanted.without:,} of {wanted.items:,} items name no URL"
    lines = [f"{folder}: {plural(report['fetched'], 'image')} downloaded, {report['there_already']:,} there already, "
             f"{report['failed']:,} failed; {unnamed}"]  # fmt: skip
    if wanted.unlisted:
        lines.append(f"Not asked for: {plural(wanted.unlisted, 'image')} of items without an interaction, which no "
                     "list has (evaluate.protocol.catalogue: seen). --all asks for them too")  # fmt: skip
    if report["failed"]:
        lines.append(f"Failed: {_reasons(report)}; listed in {folder / 'fetch-failures.csv'}. Run it again to retry")
    if folder != config.data.images.folder:
        lines.append(f"Use them: --set data.images.folder={folder}")
    emit({"folder": str(folder), **counts, **report}, "\n".join(lines), as_json)


def _reasons(report: dict[str, Any]) -> str:
    most = sorted(report["reasons"].items(), key=lambda pair: -pair[1])
    shown = ", ".join(f"{reason} {number:,}" for reason, number in most[:_SHOWN])
    return f"{shown} and {plural(len(most) - _SHOWN, 'other reason')}" if len(most) > _SHOWN else shown
