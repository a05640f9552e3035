"""Hugging Face data sets: a folder saved by `save_to_disk`, a folder of Parquet files, or a name on the hub."""

import contextlib
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl
from polars.io.plugins import register_io_source

from msr_adapter.config.schema import HubTableConfig, HuggingFaceSourceConfig
from msr_adapter.data.readers.column_choice import Configured
from msr_adapter.data.readers.column_names import ALIASES, candidates, find_columns
from msr_adapter.data.readers.log_and_items import (
    ITEM,
    ITEM_MORE,
    LOG_MORE,
    RowRules,
    header_problems,
    log_needs,
    read_tables,
)
from msr_adapter.data.readers.reader import Corpus, ReadContext
from msr_adapter.data.readers.table_layout import Layout, Table
from msr_adapter.errors import Problem, UserError, collecting, raise_if_any
from msr_adapter.filesystem import absent, files_below, holds_pattern
from msr_adapter.redaction import redact

_ROWS = Layout("parquet")
_BATCH = 65_536
_PART = re.compile(r"^(.+?)-\d+-of-\d+(?:-\w+)?$")
"""The stem of a Parquet file of the hub: `train-00000-of-00003`."""


def read_huggingface(source: HuggingFaceSourceConfig, context: ReadContext) -> Corpus:
    """Read a log and maybe items; `UserError` with the problems of both.

    Folders are read in batches, again for every pass. What comes through `load_dataset` (the hub, or a folder of csv
    or JSON) is streamed once and its columns that are used are kept: about 100 bytes per interaction.
    """
    columns = source.columns.model_dump()
    log, items = _open_both(source, columns)
    return read_tables(
        log, items, columns, context.audit, RowRules(source.min_rating, source.missing_times, source.drop_without_id)
    )


def check_huggingface(source: HuggingFaceSourceConfig) -> list[Problem]:
    """Return what is wrong with folders and their columns; the hub is not asked."""
    columns = source.columns.model_dump()
    needs = log_needs(source.min_rating)
    problems: list[Problem] = []
    for given, field, required, more in (
        (source.interactions, "interactions", needs, LOG_MORE), (source.items, "items", ITEM, ITEM_MORE)
    ):  # fmt: skip
        if given is not None and (_looks_local(given) or Path(given.path).exists()):
            with collecting(problems):
                parts = _local(given, field)
                problems += header_problems(_table(given, parts), required, columns, more) if parts else []
    return problems


def huggingface_files(source: HuggingFaceSourceConfig) -> dict[str, Path | str | None]:
    """Return what identifies the data: a folder, or the name and revision of a hub data set."""
    stamps: dict[str, Path | str | None] = {}
    for field, given in (("interactions", source.interactions), ("items", source.items)):
        if given is not None:
            folder = Path(given.path)
            stamps[field] = folder if folder.exists() else f"{given.path}@{given.revision}"
    return stamps


def _open_both(source: HuggingFaceSourceConfig, columns: Configured) -> tuple[Table, Table | None]:
    problems: list[Problem] = []
    tables: dict[str, Table] = {}
    for field, given in (("interactions", source.interactions), ("items", source.items)):
        if given is not None:
            with collecting(problems):
                tables[field] = _table(given, _local(given, field) or _loaded(given, field, columns))
    raise_if_any(problems)
    return tables["interactions"], tables.get("items")


def _table(given: HubTableConfig, parts: Mapping[str, pl.LazyFrame]) -> Table:
    """Put the splits one after the other; where there are several, `split` says which."""
    frames = [frame if len(parts) == 1 else frame.with_columns(split=pl.lit(name)) for name, frame in parts.items()]
    return Table(Path(given.path), _ROWS, pl.concat(frames))


def _looks_local(given: HubTableConfig) -> bool:
    return given.path.startswith((".", "/", "~"))


def _local(given: HubTableConfig, field: str) -> dict[str, pl.LazyFrame]:
    """Return split -> rows of a saved folder or a folder of Parquet files; nothing for what only `datasets` can load.

    `UserError` when the folder, or the split asked for, is not there.
    """
    folder, setting = Path(given.path), f"data.source.{field}.path"
    if not folder.is_dir():
        if not _looks_local(given) and not folder.exists():
            return {}
        found = absent(folder, "folder")
        raise UserError(Problem(given.path, setting, found, "a folder, or a name on the hub", f"Correct {setting}"))
    if (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file():
        return {name: _batches(rows) for name, rows in _saved(folder, given, field).items()}
    by_split: dict[str, list[Path]] = {}
    # The split of a Parquet file is what its name begins with, else the folder that it is in.
    for file in sorted(folder.rglob("*.parquet")):
        if part := _PART.match(file.stem):
            split = part[1]
        else:
            split = file.parent.name if file.parent != folder else file.stem
        by_split.setdefault(split, []).append(file)
    return {name: pl.scan_parquet(paths, glob=False) for name, paths in _chosen(by_split, given, field).items()}


def _saved(folder: Path, given: HubTableConfig, field: str) -> dict[str, Any]:
    import datasets

    try:
        loaded = datasets.load_from_disk(str(folder))
    except (OSError, ValueError, KeyError) as error:
        raise UserError(_unreadable(given, field, error)) from error
    return _chosen(loaded if isinstance(loaded, dict) else {given.split or "train": loaded}, given, field)


def _loaded(given: HubTableConfig, field: str, columns: Configured) -> dict[str, pl.LazyFrame]:
    """Stream a data set through `load_dataset`, once, and keep the columns that have a meaning."""
    import datasets

    datasets.disable_progress_bars()
    try:
        with _plain_path(given.path) as path:
            loaded = datasets.load_dataset(
                path, given.config, split=given.split, revision=given.revision, streaming=True
            )
            splits = loaded if isinstance(loaded, dict) else {given.split or "train": loaded}
            return {name: _kept(rows, columns) for name, rows in splits.items()}
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise UserError(_unreadable(given, field, error)) from error


@contextlib.contextmanager
def _plain_path(path: str) -> Iterator[str]:
    """Yield a path that `datasets` reads as it is: of a folder whose own would be expanded, one of links to its files.

    `UserError` where even the folder of temporary files has such a path.
    """
    folder = Path(path)
    if not holds_pattern(real := folder.resolve()) or not folder.is_dir():
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="msr-") as temporary:
        if holds_pattern(temporary):
            found, step = "holds [, *, ?, $ or ::, and so does the folder of temporary files", "Move it, or set TMPDIR"
            raise UserError(Problem(path, "", found, "a path that `datasets` reads as it is", step))
        for entry, _ in files_below(real):
            place = Path(temporary, "data", Path(entry.path).relative_to(real))
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(entry.path)
        yield str(Path(temporary, "data"))


def _kept(rows: Any, columns: Configured) -> pl.LazyFrame:
    rows = rows._resolve_features()  # a streamed dataset knows its columns only once it has looked at some rows
    used = set(find_columns("", rows.column_names, (), columns, tuple(ALIASES)).values())
    used |= {name for field in ALIASES for name in candidates(rows.column_names, field)}  # the best is told by values
    batches = rows.select_columns([name for name in rows.column_names if name in used]).with_format("arrow")
    return pl.concat([_frame(batch) for batch in batches.iter(_BATCH)], rechunk=True).lazy()


def _batches(rows: Any) -> pl.LazyFrame:
    """Return a data set on disk as a lazy frame that reads it batch by batch, only the columns asked for."""
    # Polars asks for the columns that a query needs, pass by pass: the dataset is never in memory as a whole.
    schema = _frame(rows.features.arrow_schema.empty_table()).schema

    def generate(
        columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        chosen = rows if columns is None else rows.select_columns(columns)
        left = len(rows) if n_rows is None else n_rows
        for batch in chosen.with_format("arrow").iter(batch_size or _BATCH):
            frame = _frame(batch).head(left)
            left -= frame.height
            yield frame if predicate is None else frame.filter(predicate)
            if not left:
                return

    return register_io_source(generate, schema=schema)


def _frame(table: Any) -> pl.DataFrame:
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame


def _chosen(splits: Mapping[str, Any], given: HubTableConfig, field: str) -> dict[str, Any]:
    if given.split is None or not splits:
        return dict(splits)
    if given.split not in splits:
        found, there = f"no split {given.split!r}", f"splits there: {', '.join(splits)}"
        raise UserError(Problem(given.path, f"data.source.{field}.split", found, there, "Name one, or none for all"))
    return {given.split: splits[given.split]}


def _unreadable(given: HubTableConfig, field: str, error: Exception) -> Problem:
    found = f"cannot be loaded ({redact((str(error).splitlines() or [type(error).__name__])[0])})"
    step = "A local folder begins with `./`; the hub needs a network, and a token in HF_TOKEN for what is private"
    return Problem(given.path, f"data.source.{field}", found, "a data set of Hugging Face", step)
