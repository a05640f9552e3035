"""The Netflix Prize as published: `1:` for a film, below it lines of `user,stars,day`; titles in latin-1."""

import io
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from msr_adapter.config.schema import NetflixSourceConfig
from msr_adapter.data.readers.interactions import LogColumns, read_log
from msr_adapter.data.readers.items import ItemColumns, read_items
from msr_adapter.data.readers.local_copies import as_utf8, local_copy, version_of
from msr_adapter.data.readers.reader import Corpus, ReadContext
from msr_adapter.data.readers.table_layout import Layout, Table
from msr_adapter.data.readers.table_scan import file_problems
from msr_adapter.errors import Problem, UserError, collecting, raise_if_any
from msr_adapter.text_tables.opening import open_plain

_CHUNK = 2**25
_TITLES = "movie_titles.csv"
_LOG = {"user": "user", "item": "item", "timestamp": "day"}
_COLUMNS = ("user", "rating", "day", "more")


def netflix_files(source: NetflixSourceConfig) -> dict[str, Path]:
    """Return the files that are read, by role."""
    logs = sorted(source.folder.glob("combined_data_*.txt")) or [source.folder / "combined_data_1.txt"]
    return {**{log.stem: log for log in logs}, "titles": source.folder / _TITLES}


def check_netflix(source: NetflixSourceConfig) -> list[Problem]:
    """Return a problem for each file that is missing."""
    return [problem for path in netflix_files(source).values()
            for problem in file_problems(path, "data.source.folder", (".txt", ".csv"))]  # fmt: skip


def read_netflix(source: NetflixSourceConfig, context: ReadContext) -> Corpus:
    """Read ratings and titles; `UserError` with the problems of all files. Ratings are copied as Parquet once."""
    *logs, titles = netflix_files(source).values()
    problems, interactions, items = list[Problem](), pl.LazyFrame(), None
    with collecting(problems):
        rated = Table(source.folder, Layout("parquet"), pl.scan_parquet([_as_parquet(log) for log in logs], glob=False))
        names = _LOG if source.min_rating is None else _LOG | {"rating": "rating"}
        interactions = read_log(rated, LogColumns(names, source.min_rating), context.audit)
    with collecting(problems):
        lines = pl.scan_lines(as_utf8(titles, "iso8859-1"), name="line", glob=False)
        fields = pl.col("line").str.strip_chars_end("\r").str.splitn(",", 3)
        parts = fields.struct.rename_fields(["item", "year", "title"]).struct.unnest()
        items = read_items(Table(titles, Layout("parquet"), lines.select(parts)), ItemColumns("item", "title"),
                           context.audit)  # fmt: skip
    raise_if_any(problems)
    return Corpus(interactions, items)


def _as_parquet(log: Path) -> Path:
    return local_copy(str(log), version_of(log), f"{log.stem}.parquet", lambda target: _write(log, target))


def _write(log: Path, target: Path) -> None:
    schema = pa.schema(
        {"user": pa.large_string(), "item": pa.large_string(), "rating": pa.float64(), "day": pa.date32()}
    )
    film, line = None, 1
    with pq.ParquetWriter(target, schema, compression="zstd") as writer:
        for block in _blocks(log):
            rows = _rows(block, line)
            heads = pl.col("user").str.strip_chars().str.strip_suffix(":")
            rows = rows.with_columns(
                item=pl.when(pl.col("rating").is_null()).then(heads).forward_fill().fill_null(pl.lit(film, pl.String))
            )
            line, film = line + rows.height, rows["item"][-1]
            rated = rows.filter(pl.col("rating").is_not_null() & (pl.col("user") != ""))
            day = pl.col("day").str.strip_chars().str.to_date("%Y-%m-%d", strict=False)
            stars = pl.col("rating").str.strip_chars().cast(pl.Float64, strict=False)
            read = rated.select("line", "user", "item", rating=stars, day=day)
            bad = read.filter(pl.any_horizontal(pl.col("item", "rating", "day").is_null()))
            bad_heads = rows.filter(pl.col("rating").is_null() & ~pl.col("user").str.contains(r"^\s*(\d+:)?\s*$"))
            if number := min([*bad["line"], *bad_heads["line"]], default=0):
                allowed = "a film (1:), or user,stars,2005-09-06 below one"
                raise UserError(
                    Problem(f"{log}:{number}", "", "neither a film nor a rating", allowed, "Correct the line")
                )
            writer.write_table(read.drop("line").to_arrow().cast(schema))


def _rows(block: bytes, line: int) -> pl.DataFrame:
    fields = pl.col("line").str.strip_chars_end("\r").str.splitn(",", len(_COLUMNS))
    lines = pl.scan_lines(io.BytesIO(block), name="line").select(fields.struct.rename_fields(_COLUMNS).struct.unnest())
    text = lines.collect()
    return text.with_row_index("line", line)


def _blocks(log: Path) -> Iterator[bytes]:
    with open_plain(log) as file:
        held = b""
        while data := file.read(_CHUNK):
            lines, cut, rest = data.rpartition(b"\n")
            if cut:
                yield held + lines + cut
                held = rest
            else:
                held += data
    if held.strip():
        yield held
