"""The table of all kinds of sources, and what is done with a source of any kind: check, read, identify.

A new kind is a config class in `config.schema.sources`, a module beside this one, and a row here.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from msr_adapter.config.schema import (
    AmazonSourceConfig,
    HMSourceConfig,
    HuggingFaceSourceConfig,
    KuaiRecSourceConfig,
    MicroLensSourceConfig,
    MINDSourceConfig,
    MMRecSourceConfig,
    MovieLensSourceConfig,
    NetflixSourceConfig,
    OfficialAmazonSourceConfig,
    PixelRecSourceConfig,
    RecBoleSourceConfig,
    SourceConfig,
    SqlSourceConfig,
    StrictModel,
    SyntheticSourceConfig,
    TableSourceConfig,
)
from msr_adapter.config.schema.sources import MissingTimes
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.readers.amazon import check_amazon, read_amazon
from msr_adapter.data.readers.column_names import NAME_IT, NAME_THEM
from msr_adapter.data.readers.hm import check_hm, read_hm
from msr_adapter.data.readers.huggingface import check_huggingface, huggingface_files, read_huggingface
from msr_adapter.data.readers.kuairec import check_kuairec, read_kuairec
from msr_adapter.data.readers.local_copies import naming_origins, of_the_origin
from msr_adapter.data.readers.microlens import check_microlens, read_microlens
from msr_adapter.data.readers.mind import check_mind, mind_files, read_mind
from msr_adapter.data.readers.mllm_msr_amazon import check_mllm_msr_amazon, mllm_msr_amazon_files, read_mllm_msr_amazon
from msr_adapter.data.readers.movielens import check_movielens, movielens_files, read_movielens
from msr_adapter.data.readers.netflix import check_netflix, netflix_files, read_netflix
from msr_adapter.data.readers.parquet_parts import PANIC
from msr_adapter.data.readers.pixelrec import check_pixelrec, read_pixelrec
from msr_adapter.data.readers.reader import Corpus, ReadContext, Reader
from msr_adapter.data.readers.recbole import check_mmrec, check_recbole, read_mmrec, read_recbole
from msr_adapter.data.readers.sql import check_sql, read_sql, sql_files
from msr_adapter.data.readers.synthetic import check_synthetic, read_synthetic
from msr_adapter.data.readers.table import check_table, read_table, table_files
from msr_adapter.errors import Problem, UserError
from msr_adapter.text_tables.dialects import without_keys

SourceFiles = Mapping[str, Path | str | None]
"""Role -> a file or folder, or the name of a dataset on the hub; None = not given."""


def configured_paths(source: StrictModel) -> SourceFiles:
    """Return every path of a config by its key."""
    return {key: value for key in type(source).model_fields if isinstance(value := getattr(source, key), Path | None)}


@dataclass(frozen=True)
class Source:
    """All facts of one kind of source."""

    kind: str
    """What the config calls it."""
    config: type[StrictModel]
    """Its config class, which `read`, `check` and `files` are handed."""
    read: Reader
    # `Any` here and below, because each takes the config class of its own row.
    check: Callable[[Any], list[Problem]]
    """Returns what can be known to be wrong without reading rows."""
    files: Callable[[Any], SourceFiles] = configured_paths
    """Returns what identifies the data: its content goes into the fingerprint of the stage."""
    items: str | None = None
    """The key of a table of items that may name or hold images."""
    draws_images: bool = False
    """Whether its images are made with it, so that no folder is wanted."""
    threshold: str | None = None
    """The key of the lowest rating that counts as history."""
    rating: str | None = None
    """The column that it is held against, where the format fixes it."""

    @property
    def names_columns(self) -> bool:
        """Whether the config can say which column is which."""
        return "columns" in self.config.model_fields


@dataclass(frozen=True)
class Threshold:
    """The lowest rating that counts as history."""

    key: str
    """Of the source's config."""
    least: float


SOURCES = (
    Source(
        "table", TableSourceConfig, read_table, check_table, files=table_files, items="items", threshold="min_rating"
    ),
    Source("microlens", MicroLensSourceConfig, read_microlens, check_microlens),
    Source("amazon-2023", AmazonSourceConfig, read_amazon, check_amazon, items="meta", threshold="min_rating"),
    Source(
        "mllm-msr-amazon", OfficialAmazonSourceConfig, read_mllm_msr_amazon, check_mllm_msr_amazon,
        files=mllm_msr_amazon_files, items="meta",
    ),
    Source(
        "movielens", MovieLensSourceConfig, read_movielens, check_movielens,
        files=movielens_files, threshold="min_rating",
    ),
    Source("recbole", RecBoleSourceConfig, read_recbole, check_recbole, items="items", threshold="min_rating"),
    Source("mmrec", MMRecSourceConfig, read_mmrec, check_mmrec, items="items"),
    Source("pixelrec", PixelRecSourceConfig, read_pixelrec, check_pixelrec),
    Source("hm", HMSourceConfig, read_hm, check_hm),
    Source(
        "kuairec", KuaiRecSourceConfig, read_kuairec, check_kuairec,
        threshold="min_watch_ratio", rating="watch_ratio",
    ),
    Source("mind", MINDSourceConfig, read_mind, check_mind, files=mind_files),
    Source(
        "netflix", NetflixSourceConfig, read_netflix, check_netflix, files=netflix_files, threshold="min_rating"
    ),
    Source(
        "sql", SqlSourceConfig, read_sql, check_sql, files=sql_files, items="items", threshold="min_rating"
    ),
    Source(
        "huggingface", HuggingFaceSourceConfig, read_huggingface, check_huggingface,
        files=huggingface_files, items="items", threshold="min_rating",
    ),
    Source("synthetic", SyntheticSourceConfig, read_synthetic, check_synthetic, draws_images=True),
)  # fmt: skip
"""Every kind of source, in the order of the docs."""

_BY_KIND = {row.kind: row for row in SOURCES}


def read(source: SourceConfig, seed: int, audit: Audit) -> Corpus:
    """Return the corpus of a source; `UserError` with every problem of its files."""
    row = _BY_KIND[source.kind]
    try:
        with naming_origins():
            return row.read(source, ReadContext(audit, seed))
    except UserError as error:
        raise UserError([_with_a_step_to_take(problem, row) for problem in error.problems]) from error


@contextmanager
def naming_files(source: SourceConfig) -> Iterator[None]:
    """Turn what a library raises over the rows of a source inside into a `UserError` that names its files.

    Readers explain what their own passes find; the rows that they return are read again by whoever collects them.
    """
    try:
        yield
    except UserError:
        raise
    except BaseException as error:
        if not isinstance(error, pl.exceptions.PolarsError) and type(error).__name__ != PANIC:
            raise
        names = ", ".join(str(path) for path in source_files(source).values() if path is not None)
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        step = "Run the command again; where that does not help, check the files for damage"
        raise UserError(Problem(names, "", "cannot be read", reason, step)) from error


def check_source(source: SourceConfig) -> list[Problem]:
    """Return what can be known to be wrong with a source without reading its rows."""
    row = _BY_KIND[source.kind]
    return [_with_a_step_to_take(of_the_origin(problem), row) for problem in row.check(source)]


def source_files(source: SourceConfig) -> SourceFiles:
    """Return what identifies a source, by role; nothing for data that is generated."""
    return _BY_KIND[source.kind].files(source)


def may_hold_images(source: SourceConfig) -> bool:
    """Return whether a source is given a table of items that may name or hold images."""
    field = _BY_KIND[source.kind].items
    return field is not None and getattr(source, field) is not None


def draws_images(source: SourceConfig) -> bool:
    """Return whether a source makes the images of its items itself."""
    return _BY_KIND[source.kind].draws_images


def configured_columns(source: SourceConfig) -> Mapping[str, str | None]:
    """Return the names of columns that a source's config gives, or that its format fixes beside the aliases."""
    row = _BY_KIND[source.kind]
    fixed = {"rating": row.rating} if row.rating else {}
    columns = getattr(source, "columns", None)
    return fixed if columns is None else {**columns.model_dump(), **fixed}


def threshold_of(source: SourceConfig) -> Threshold | None:
    """Return the lowest rating that counts as history; None = any does."""
    key = _BY_KIND[source.kind].threshold
    least = None if key is None else getattr(source, key)
    return None if key is None or least is None else Threshold(key, float(least))


def missing_times_of(source: SourceConfig) -> MissingTimes:
    """Return what becomes of rows without a time; they are refused where the source has no such key."""
    treatment: MissingTimes = getattr(source, "missing_times", "error")
    return treatment


def _with_a_step_to_take(problem: Problem, row: Source) -> Problem:
    """Return a problem whose next step is possible: columns cannot be named where a format fixes them, nor marks."""
    if "quote" not in row.config.model_fields:
        step = "Correct the line, or read the file as kind: table with quote: none (marks are text) or quote: double"
        problem = without_keys(problem, step)
    if row.names_columns and (not problem.next_step.startswith(NAME_THEM) or "names" in row.config.model_fields):
        return problem
    if not problem.next_step.startswith((NAME_IT, NAME_THEM)):
        return problem
    step = f"Give the file as `{row.kind}` publishes it, or read a file of your own as kind: table"
    return replace(problem, next_step=step)
