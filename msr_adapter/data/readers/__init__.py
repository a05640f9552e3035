"""Readers: one function per kind of source, each returns a `Corpus` in the order of its files."""

from msr_adapter.config.models import MicroLensSource, Source, TableSource
from msr_adapter.data.audit import Audit
from msr_adapter.data.corpus import Corpus
from msr_adapter.data.readers.microlens import check_microlens, read_microlens
from msr_adapter.data.readers.shop import read_shop
from msr_adapter.data.readers.table import check_table, read_table
from msr_adapter.errors import Problem


def read(source: Source, seed: int, audit: Audit) -> Corpus:
    """Read a source; `UserError` with every problem of its files."""
    if isinstance(source, TableSource):
        return read_table(source, audit)
    if isinstance(source, MicroLensSource):
        return read_microlens(source, audit)
    return read_shop(source, seed)


def check_source(source: Source) -> list[Problem]:
    """Return what can be known to be wrong with a source without reading its rows."""
    if isinstance(source, TableSource):
        return check_table(source)
    if isinstance(source, MicroLensSource):
        return check_microlens(source)
    return []
