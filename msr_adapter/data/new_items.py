"""Items that came after the data stage: a table of them, given to one command, as rows beside the catalogue."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from msr_adapter import schema
from msr_adapter.config.schema import SourceConfig, TableSourceConfig
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.catalogue import catalogue_of
from msr_adapter.data.id_list_files import id_file_problems
from msr_adapter.data.images.attach import attach_images
from msr_adapter.data.images.store import ImageStore
from msr_adapter.data.readers.log_and_items import read_named_items
from msr_adapter.data.readers.reader import Corpus
from msr_adapter.data.readers.sources import configured_columns
from msr_adapter.data.readers.table import columns_of_items
from msr_adapter.data.readers.table_layout import table_at
from msr_adapter.data.readers.table_scan import column_names
from msr_adapter.data.tables import ItemRows
from msr_adapter.errors import UserError, raise_if_any
from msr_adapter.item_images import with_absolute_images
from msr_adapter.progress import Reporter

_SAID = ("title", "text", "category")


@dataclass(frozen=True)
class NewItems:
    """What a table of items has beside the catalogue."""

    new: pl.DataFrame
    """Rows of ids that the catalogue lacks, as a `Corpus` has them, sorted by id."""
    known: int
    """Rows that say what the catalogue says."""
    changed: tuple[str, ...]
    """Ids of the catalogue of which the table says something else."""


def read_new_items(path: Path, option: str, source: SourceConfig) -> tuple[pl.DataFrame, Audit]:
    """Return the items of a file as a `Corpus` has them, and the audit of reading it.

    Columns are named as those of the items of ``source``, or looked for by their aliases where the file lacks the name.
    `UserError` with every bad row.
    """
    raise_if_any(id_file_problems(path, option, lines=False))
    table, audit = table_at(path), Audit()
    configured = columns_of_items(source) if isinstance(source, TableSourceConfig) else configured_columns(source)
    header = column_names(table)
    known = {field: name for field, name in configured.items() if name in header}
    try:
        return read_named_items(table, known, audit), audit
    except UserError as error:
        step = f"Name the columns item_id and title for {option}"
        raise UserError(
            replace(one, next_step=step) if "data.source" in one.next_step else one for one in error.problems
        ) from error


def beside(items: pl.DataFrame, data_dir: Path) -> NewItems:
    """Tell what of ``items`` the catalogue of a data stage lacks, and what it says otherwise. O(items)."""
    catalogue = schema.read_table(data_dir / "items.parquet", schema.ITEMS, ["item_id", *_SAID])
    place = pc.index_in(items["item_id"].to_arrow().cast(pa.string()), value_set=catalogue["item_id"].combine_chunks())
    there = pl.Series(place.is_valid())
    mine = items.filter(there)
    said = catalogue_of(mine["item_id"], Corpus(_NOBODY, mine), Audit())
    before = catalogue.take(place.drop_null()).to_pylist()
    columns = zip(said.ids, said.titles, said.texts, said.categories, strict=True)
    changed = [
        item
        for (item, *told), row in zip(columns, before, strict=True)
        # A column that the file lacks says nothing.
        if any(name in mine.columns and value != row[name] for name, value in zip(_SAID, told, strict=True))
    ]
    return NewItems(items.filter(~there).sort("item_id"), mine.height - len(changed), tuple(changed))


def new_rows(items: pl.DataFrame, store: ImageStore, reporter: Reporter) -> pa.Table:
    """Return ``items`` as ITEMS: described and illustrated as those of the source are; paths of images are absolute.

    `UserError` for missing images where the pipeline wants them all.
    """
    corpus, audit = Corpus(_NOBODY, items), Audit()
    catalogue = catalogue_of(items["item_id"], corpus, audit)
    images = attach_images(catalogue.ids, corpus, store, audit, reporter)
    for finding in audit.findings:
        reporter.note(f"{finding['severity']}: {finding['text']}")
    nothing = np.zeros(items.height, dtype=np.int64)
    rows = ItemRows(catalogue, images, nothing, nothing.astype(bool), listed=False).table()
    return with_absolute_images(rows, store.out)


_NOBODY = pl.LazyFrame(schema={"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64})
"""The log of a corpus of items alone."""
