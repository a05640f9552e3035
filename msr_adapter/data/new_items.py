"""Items that came after the data stage: a table of them, given to one command, as rows beside the catalogue."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from msr_adapter import schema
from msr_adapter.config.schema import DataConfig, TableSourceConfig
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.catalogue import catalogue_of
from msr_adapter.data.id_list_files import id_file_problems
from msr_adapter.data.images.attach import attach_images
from msr_adapter.data.images.store import ImageStore
from msr_adapter.data.readers.attribute_values import ATTRIBUTE, typed
from msr_adapter.data.readers.log_and_items import read_named_items
from msr_adapter.data.readers.reader import Corpus
from msr_adapter.data.readers.sources import configured_columns
from msr_adapter.data.readers.table import columns_of_items
from msr_adapter.data.readers.table_layout import table_at
from msr_adapter.data.readers.table_scan import column_names
from msr_adapter.data.tables import ItemRows
from msr_adapter.errors import Problem, UserError, collecting, raise_if_any
from msr_adapter.item_images import with_absolute_images
from msr_adapter.progress import Reporter
from msr_adapter.prompts.stage_tables import ATTRIBUTE_FILES

_SAID = ("title", "text", "category")
_ATTRIBUTES = ATTRIBUTE_FILES["item"]


@dataclass(frozen=True)
class NewItems:
    """What a table of items has beside the catalogue."""

    new: pl.DataFrame
    """Rows of ids that the catalogue lacks, as a `Corpus` has them, sorted by id."""
    known: int
    """Rows that say what the catalogue says."""
    changed: tuple[str, ...]
    """Ids of the catalogue of which the table says something else."""
    attributes: pl.DataFrame | None = None
    """item_id and the attributes of the ``new`` ones, typed as the run's; None where the run has no attributes."""


def read_new_items(path: Path, option: str, data: DataConfig) -> tuple[pl.DataFrame, Audit]:
    """Return the items of a file as a `Corpus` has them, and the audit of reading it.

    Columns are named as those of the items of ``data.source``, or looked for by their aliases where the file lacks the
    name. Attributes whose columns it lacks are missing. `UserError` with every bad row.
    """
    source = data.source
    raise_if_any(id_file_problems(path, option, lines=False))
    table, audit = table_at(path), Audit()
    configured = columns_of_items(source) if isinstance(source, TableSourceConfig) else configured_columns(source)
    header = column_names(table)
    known = {field: name for field, name in configured.items() if name in header}
    audit.attributes = {name: column for name, column in data.items.attributes.items() if column in header}
    if lacking := [column for column in data.items.attributes.values() if column not in header]:
        audit.find(
            "info", f"{path.name} has no column {', '.join(lacking)}: its items have no such attribute.", "attributes"
        )
    try:
        return read_named_items(table, known, audit), audit
    except UserError as error:
        step = f"Name the columns item_id and title for {option}"
        raise UserError(
            replace(one, next_step=step) if "data.source" in one.next_step else one for one in error.problems
        ) from error


def beside(items: pl.DataFrame, data_dir: Path, path: Path) -> NewItems:
    """Tell what of ``items``, read from ``path``, the catalogue of a data stage lacks, and what it says otherwise.

    O(items). `UserError` for attributes of other types than the run's.
    """
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
    attributes = _attributes(items, data_dir, path)
    if attributes is not None:
        differing = _differing(attributes.filter(there), data_dir, items.columns)
        changed += [item for item in differing if item not in changed]
        attributes = attributes.filter(~there).sort("item_id")
    return NewItems(items.filter(~there).sort("item_id"), mine.height - len(changed), tuple(changed), attributes)


def write_with_attributes(found: NewItems, data_dir: Path, out: Path) -> None:
    """Write the attributes of a run's items with those of new ones at the end into the folder ``out``, if any."""
    if found.attributes is None:
        return
    known = pl.read_parquet(data_dir / _ATTRIBUTES, glob=False)
    pq.write_table(pl.concat([known, found.attributes], how="vertical_relaxed").to_arrow(), out / _ATTRIBUTES)


def _attributes(items: pl.DataFrame, data_dir: Path, path: Path) -> pl.DataFrame | None:
    """Return item_id and the run's attributes of ``items``, typed as the run's; None where it has none."""
    if not (data_dir / _ATTRIBUTES).is_file():
        return None
    known = pl.scan_parquet(data_dir / _ATTRIBUTES, glob=False).collect_schema()
    facts = json.loads((data_dir / "attributes.json").read_bytes())["attributes"]["item"]
    columns, problems = {"item_id": items["item_id"]}, list[Problem]()
    for name, dtype in list(known.items())[1:]:
        with collecting(problems):
            if (given := f"{ATTRIBUTE}{name}") in items.columns:
                columns[name] = typed(name, items[given], facts[name]["type"], str(path)).values
            else:
                columns[name] = pl.Series([None] * items.height, dtype=dtype)
    raise_if_any(problems)
    return pl.DataFrame(columns)


def _differing(attributes: pl.DataFrame, data_dir: Path, given: Sequence[str]) -> list[str]:
    """Return the items of which ``attributes`` say something else than the run's; ``given``: columns of the file."""
    names = [name for name in attributes.columns[1:] if f"{ATTRIBUTE}{name}" in given]
    known = pl.scan_parquet(data_dir / _ATTRIBUTES, glob=False).select("item_id", *names)
    before = attributes.lazy().join(known, on="item_id", how="left", suffix=" before", maintain_order="left")
    same = [pl.col(name).eq_missing(pl.col(f"{name} before")) for name in names]
    return before.filter(~pl.all_horizontal(pl.lit(True), *same)).collect()["item_id"].to_list()


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
