"""Tables that stages wrote as Polars frames, and frames of a notebook as files that commands read."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from msr_adapter import schema
from msr_adapter.errors import Problem, UserError
from msr_adapter.progress import PIPE_WIDTH, Reporter

Rows = pl.DataFrame | pl.LazyFrame | Mapping[str, Sequence[object]]
"""A table in memory."""
Ids = pl.Series | Iterable[str]
"""Ids in memory; of a text alone, the file that it names."""


def reporter(*, quiet: bool) -> Reporter:
    """Return what tells of progress: plain lines on standard error, which a notebook shows as they are, or nothing."""
    # Rich would draw bars as HTML in a notebook, one under the other.
    return Reporter(
        console=Console(stderr=True, quiet=quiet, highlight=False, force_jupyter=False, force_terminal=False,
                        width=PIPE_WIDTH)
    )  # fmt: skip


def read_stage(folder: Path, stage: str, file: str, columns: pa.Schema) -> pl.DataFrame:
    """Return a table of a finished stage; `UserError` where the stage has not made it."""
    path = folder / stage / file
    if not path.exists():
        step = "Run the pipeline as far: msr.load(...).run(), or `msr run`"
        raise UserError(Problem(str(path), "", f"the stage {stage} has not made it", "a finished stage", step))
    return frame(schema.read_table(path, columns))


def frame(table: pa.Table) -> pl.DataFrame:
    """Return an Arrow table as a frame."""
    found = pl.from_arrow(table)
    assert isinstance(found, pl.DataFrame)
    return found


def as_table(rows: Rows | str | Path, place: Path) -> Path:
    """Return the path of a table: the one given, or ``place``, where what is in memory is written as Parquet."""
    if isinstance(rows, str | Path):
        return Path(rows)
    made = rows.collect() if isinstance(rows, pl.LazyFrame) else pl.DataFrame(rows)
    made.write_parquet(place)
    return place


def as_ids(ids: Ids | str | Path, column: str, place: Path) -> Path:
    """Return the path of a file of ids: the one given, or ``place``, where those in memory are written."""
    if isinstance(ids, str | Path):
        return Path(ids)
    values = ids.to_list() if isinstance(ids, pl.Series) else list(ids)
    pq.write_table(pa.table({column: pa.array(list(map(str, values)), pa.string())}), place)
    return place
