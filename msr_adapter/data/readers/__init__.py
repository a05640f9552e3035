"""Readers: one module per kind of source, each returns a `Corpus` in the order of its files."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from msr_adapter.config.schema import SourceConfig
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.log import Corpus
from msr_adapter.data.readers.amazon import check_amazon, read_amazon
from msr_adapter.data.readers.column_names import NAME_IT
from msr_adapter.data.readers.hm import check_hm, read_hm
from msr_adapter.data.readers.huggingface import check_huggingface, huggingface_stamps, read_huggingface
from msr_adapter.data.readers.kuairec import check_kuairec, read_kuairec
from msr_adapter.data.readers.microlens import check_microlens, read_microlens
from msr_adapter.data.readers.mllm_msr_amazon import check_official, official_files, read_official
from msr_adapter.data.readers.movielens import check_movielens, movielens_files, read_movielens
from msr_adapter.data.readers.pixelrec import check_pixelrec, read_pixelrec
from msr_adapter.data.readers.recbole import check_mmrec, check_recbole, read_mmrec, read_recbole
from msr_adapter.data.readers.synthetic import read_synthetic
from msr_adapter.data.readers.table import check_table, read_table
from msr_adapter.errors import Problem, UserError

_READERS: dict[str, tuple[Callable[[Any, Audit], Corpus], Callable[[Any], list[Problem]]]] = {
    "table": (read_table, check_table),
    "microlens": (read_microlens, check_microlens),
    "amazon-2023": (read_amazon, check_amazon),
    "mllm-msr-amazon": (read_official, check_official),
    "movielens": (read_movielens, check_movielens),
    "recbole": (read_recbole, check_recbole),
    "mmrec": (read_mmrec, check_mmrec),
    "pixelrec": (read_pixelrec, check_pixelrec),
    "hm": (read_hm, check_hm),
    "kuairec": (read_kuairec, check_kuairec),
    "huggingface": (read_huggingface, check_huggingface),
}
"""`kind` of a source -> what reads it, and what checks it without reading its rows. A shop is generated instead."""

_IMAGE_TABLES = {
    "table": "items",
    "amazon-2023": "meta",
    "mllm-msr-amazon": "meta",
    "recbole": "items",
    "mmrec": "items",
    "huggingface": "items",
}
"""Kinds whose table of items may name or hold images -> the field that gives it."""

_FOLDERS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "movielens": movielens_files,
    "mllm-msr-amazon": official_files,
    "huggingface": huggingface_stamps,
}
"""Kinds whose files are not the paths of the source itself."""


def read(source: SourceConfig, seed: int, audit: Audit) -> Corpus:
    """Read a source; `UserError` with every problem of its files."""
    if source.kind == "synthetic":
        return read_synthetic(source, seed)
    try:
        return _READERS[source.kind][0](source, audit)
    except UserError as error:
        raise UserError([_fitting(problem, source) for problem in error.problems]) from error


def check_source(source: SourceConfig) -> list[Problem]:
    """Return what can be known to be wrong with a source without reading its rows."""
    return [] if source.kind == "synthetic" else [_fitting(one, source) for one in _READERS[source.kind][1](source)]


def _fitting(problem: Problem, source: SourceConfig) -> Problem:
    """Return a problem whose next step can be taken: only some kinds let columns be named."""
    if "columns" in type(source).model_fields or not problem.next_step.startswith(NAME_IT):
        return problem
    step = f"Give the file as `{source.kind}` publishes it, or read a file of your own as kind: table"
    return replace(problem, next_step=step)


def may_hold_images(source: SourceConfig) -> bool:
    """Say whether a source has a table of items that may name or hold images."""
    field = _IMAGE_TABLES.get(source.kind)
    return field is not None and getattr(source, field) is not None


def source_files(source: SourceConfig) -> dict[str, Path | str | None]:
    """Return what identifies a source, by role: its files, or the name of a hub data set; None = not given."""
    named: dict[str, Path | str | None] = {
        key: value for key in type(source).model_fields if isinstance(value := getattr(source, key), Path | None)
    }
    if source.kind in _FOLDERS:
        named.pop("folder", None)
        return named | _FOLDERS[source.kind](source)
    return named
