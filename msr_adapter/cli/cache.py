"""`msr cache`: what the completion caches and the copies of sources hold, and how to make them smaller or read them."""

import datetime
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msr_adapter.cli.common import Json, Overwrite, emit, exit_codes
from msr_adapter.cli.runs import run_folder
from msr_adapter.errors import Problem, UserError, plural
from msr_adapter.filesystem import real

if TYPE_CHECKING:
    from msr_adapter.generation.completion_store import CompletionStore, Share

_HELP = """Inspect, shrink and export completion caches.

Example: [bold]msr cache ls demo[/bold]
"""
app = typer.Typer(name="cache", no_args_is_help=True, rich_markup_mode="rich", help=_HELP)

Cache = Annotated[
    str, typer.Argument(metavar="CACHE", show_default=False, help="A cache file, a run folder, or a pipeline.")
]
_DAY_S = 86_400
_SHOWN_DIGITS = 12
_SHOWN = 30


@app.command("ls")
def list_models(cache: Cache, as_json: Json = False) -> None:
    """List what each model has in a cache: completions, failures, tokens, dates.

    Example: [bold]msr cache ls demo[/bold]
    """
    with exit_codes(as_json):
        path = cache_file(cache)
        with _opened(path) as store:
            shares = store.shares()
        size = path.stat().st_size
        rows = [share._asdict() for share in shares]
        emit({"cache": str(path), "bytes": size, "models": rows}, _listing(path, size, shares), as_json)


@app.command()
def prune(
    cache: Cache,
    older_than: Annotated[
        int | None, typer.Option("--older-than", min=0, metavar="DAYS", help="Only what was stored before then.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="ID", help="Only this model's; the first digits of its id are enough."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Delete completions by age or by model and free their disk space; they are computed again when needed.

    Example: [bold]msr cache prune runs/demo --older-than 30[/bold]
    """
    with exit_codes(as_json):
        if older_than is None and model is None:
            raise UserError(
                Problem("", "--older-than", "missing, and so is --model", "--older-than DAYS or --model ID")
            )
        path = cache_file(cache)
        before = None if older_than is None else int(time.time()) - older_than * _DAY_S
        with _locked_run(path), _opened(path) as store:
            identity = None if model is None else _one_model(store, model)
            gone = store.prune(before=before, identity=identity)
        size = path.stat().st_size
        text = f"{plural(gone, 'completion')} deleted; {path} has {size:,} bytes now"
        emit({"cache": str(path), "deleted": gone, "bytes": size}, text, as_json)


@app.command()
def export(
    cache: Cache,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="A new file: .parquet or .jsonl.")],
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write every completion to a table: key, model, text, log-probabilities, tokens, time. Prompts are not in a cache.

    Example: [bold]msr cache export demo --out completions.parquet[/bold]
    """
    with exit_codes(as_json):
        from msr_adapter.config.output_paths import Output, require_outputs
        from msr_adapter.generation.completion_store import SUFFIXES, write_entries

        path = cache_file(cache)
        require_outputs([Output(out, overwrite, SUFFIXES)], {"CACHE": path, **_protected(cache)})
        with _opened(path) as store:
            rows = write_entries(store.entries(), out)
        emit({"cache": str(path), "file": str(out), "rows": rows}, f"{out}: {plural(rows, 'completion')}", as_json)


@app.command()
def sources(
    older_than: Annotated[
        int | None, typer.Option("--older-than", min=0, metavar="DAYS", help="Only what nobody has read since.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Delete what is listed, not only list it.")] = False,
    as_json: Json = False,
) -> None:
    """List or delete the copies of sources: buckets, the web, databases, files in other encodings.

    What is deleted is fetched again when it is needed. Wait for commands that are reading a source.

    Example: [bold]msr cache sources --older-than 30 --yes[/bold]
    """
    with exit_codes(as_json):
        from msr_adapter.data.readers.local_copies import copies_folder, source_copies
        from msr_adapter.files import remove

        before = time.time() - (older_than or 0) * _DAY_S
        found = [one for one in source_copies() if older_than is None or one.used < before]
        if yes:
            for one in found:
                remove(one.folder)
        total = sum(one.bytes for one in found)
        state = "deleted" if yes else "copied" if older_than is None else f"that nobody has read for {older_than} days"
        lines = [f"{copies_folder()}: {plural(len(found), 'source')} {state}, {total:,} bytes"]
        lines += [
            f"  {one.bytes:>15,}  {_day(int(one.used))}  {one.origin or one.folder.name}" for one in found[:_SHOWN]
        ]
        if len(found) > _SHOWN:
            lines.append(f"  and {len(found) - _SHOWN:,} more; --json lists all")
        rows = [asdict(one) | {"folder": str(one.folder), "used": int(one.used)} for one in found]
        report = {"folder": str(copies_folder()), "deleted": yes, "bytes": total, "sources": rows}
        emit(report, "\n".join(lines), as_json)


def cache_file(argument: str) -> Path:
    """Return the cache that ``argument`` means: a file, that of a run folder, or that of a pipeline.

    Raises `UserError` when there is none.
    """
    from msr_adapter.config.bundled import find_yaml
    from msr_adapter.config.loader import load_pipeline
    from msr_adapter.pipeline.stage_context import OWN_CACHE

    given = real(Path(argument))
    if given.is_file() and given.suffix not in (".yaml", ".yml"):
        return given
    if not given.is_dir() and find_yaml(argument, "pipelines", Path.cwd()) is not None:
        loaded = load_pipeline(argument)
        path = loaded.pipeline.cache or loaded.run_dir / OWN_CACHE
    else:
        path = run_folder(argument) / OWN_CACHE
    if not path.is_file():
        raise UserError(Problem(str(path), "CACHE", "no such cache", "", "Run the pipeline first, or name the file"))
    return path


def _protected(argument: str) -> dict[str, Path]:
    """Return what `--out` must not name: what belongs to the run or the pipeline whose cache is meant."""
    from msr_adapter.config.loader import load_pipeline
    from msr_adapter.config.output_paths import protected_by, protected_by_run

    given = real(Path(argument))
    if given.is_dir():
        return protected_by_run(given)
    return {} if given.is_file() and given.suffix not in (".yaml", ".yml") else protected_by(load_pipeline(argument))


@contextmanager
def _locked_run(path: Path) -> "Iterator[None]":
    """Keep other commands out of the run folder that a cache belongs to; `UserError` while one is at work there."""
    from msr_adapter.pipeline.run_folder import RunFolder
    from msr_adapter.pipeline.stage_context import OWN_CACHE
    from msr_adapter.run_folder_mark import is_run

    # A cache of its own place, shared by several pipelines, belongs to no run: SQLite's own lock has to do there.
    root = path.parents[len(OWN_CACHE.parts) - 1]
    own = path == root / OWN_CACHE and is_run(root)
    with RunFolder(root).locked() if own else nullcontext():
        yield


@contextmanager
def _opened(path: Path) -> "Iterator[CompletionStore]":
    from msr_adapter.generation.completion_store import CompletionStore

    with closing(CompletionStore(path, must_exist=True)) as store:
        yield store


def _one_model(store: "CompletionStore", start: str) -> str:
    known = [share.identity for share in store.shares()]
    found = [identity for identity in known if identity.startswith(start)]
    if len(found) == 1:
        return found[0]
    shown = ", ".join(identity[:_SHOWN_DIGITS] for identity in known) or "none"
    what = f"{len(found)} models have an id that begins with {start!r}"
    raise UserError(Problem(str(store.path), "--model", what, f"ids: {shown}"))


def _listing(path: Path, size: int, shares: "list[Share]") -> str:
    lines = [f"{path}: {size:,} bytes"]
    for share in shares:
        dates = "" if share.first is None or share.last is None else f", {_day(share.first)} to {_day(share.last)}"
        failed = f", {share.failures:,} failed" if share.failures else ""
        number = plural(share.completions, "completion")
        lines.append(f"  {share.identity[:_SHOWN_DIGITS]}  {share.label}: {number}{failed}, "
                     f"{share.tokens_in:,} tokens in, {share.tokens_out:,} out{dates}")  # fmt: skip
    return "\n".join(lines if shares else [*lines, "  empty"])


def _day(seconds: int) -> str:
    return datetime.datetime.fromtimestamp(seconds, tz=datetime.UTC).date().isoformat()
