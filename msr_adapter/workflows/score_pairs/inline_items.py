"""Items that a table of pairs describes itself, by a title and maybe an image: in no catalogue, but shown like its own.

Titles are neutralised and images stored as those of the data stage are. Memory: a row for each that differs.
"""

from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow as pa

from msr_adapter import schema
from msr_adapter.config.schema import ImagesConfig
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.images.attach import attach_images
from msr_adapter.data.images.store import ImageStore
from msr_adapter.data.readers.reader import Corpus
from msr_adapter.generation.request import Image
from msr_adapter.item_images import as_columns
from msr_adapter.progress import Reporter
from msr_adapter.prompts.neutralize import neutralise


@dataclass(frozen=True)
class ImagePlaces:
    """Where images of inline items are looked for, and where they go."""

    config: ImagesConfig
    """As the pipeline's; its folder is where paths start."""
    out: Path
    cache: Path | None
    """What earlier commands stored."""


def inline_rows(inline: pl.DataFrame, taken: pa.ChunkedArray, places: ImagePlaces, reporter: Reporter) -> pa.Table:
    """Return ITEMS of the distinct ``inline`` items (title, image), in their order; paths of images are absolute.

    Their ids are none of those ``taken``. `UserError` for missing images where the pipeline wants them all.
    """
    prefix = "inline-"
    known = set(taken.to_pylist())
    while any(f"{prefix}{number}" in known for number in range(inline.height)):
        prefix = f"_{prefix}"
    ids = [f"{prefix}{number}" for number in range(inline.height)]
    titles = [neutralise(title) for title in inline["title"].to_list()]
    named = inline["image"].null_count() < inline.height
    columns = pl.DataFrame({"item_id": ids, "title": titles, **({"image": inline["image"]} if named else {})})
    nobody = pl.LazyFrame(schema={"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64})
    audit = Audit()
    store = ImageStore(places.out, places.config, places.cache)
    stored = attach_images(ids, Corpus(nobody, columns), store, audit, reporter) if named else []
    for finding in audit.findings:
        reporter.note(finding["text"])
    root = places.out.resolve()
    images = [[Image(root / str(image.path), str(image.digest)) for image in one.all] for one in stored]
    rows = {
        "item_id": ids, "title": titles, **as_columns(images or [[]] * len(ids)), "popularity": [0] * len(ids),
        "text": [""] * len(ids), "category": [None] * len(ids),
        "in_log": [False] * len(ids), "listed": [False] * len(ids),
    }  # fmt: skip
    return pa.table(rows, schema=schema.ITEMS)
