"""The images of items in tables: one column for the first, one for those after it."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from msr_adapter import schema
from msr_adapter.generation.request import Image

IMAGE_COLUMNS = ("image", "image_digest", "more_images")
"""What ITEMS says of images."""
_MORE = "more_images"


def images_of(items: pa.Table, folder: Path) -> list[tuple[Image, ...]]:
    """Return the images of each row of ITEMS, in order; paths start with ``folder``. Reads `IMAGE_COLUMNS`."""
    return [images_of_row(row, folder) for row in items.select(list(IMAGE_COLUMNS)).to_pylist()]


def images_of_row(row: Mapping[str, Any], folder: Path) -> tuple[Image, ...]:
    """Return the images of one row of ITEMS."""
    if row["image"] is None:
        return ()
    more = (Image(folder / one["path"], one["digest"]) for one in row.get(_MORE) or ())
    return (Image(folder / row["image"], row["image_digest"]), *more)


def has_several(items: pa.Table) -> bool:
    """Tell whether any row of ITEMS has more than one image."""
    return bool(items[_MORE].null_count < len(items))


def as_columns(images: Iterable[Sequence[Image]]) -> dict[str, pa.Array]:
    """Return the columns of ITEMS that say these images, with their paths as they are."""
    rows = list(images)
    more = [[{"path": str(one.path), "digest": one.digest} for one in row[1:]] or None for row in rows]
    return {
        "image": pa.array([str(row[0].path) if row else None for row in rows], pa.string()),
        "image_digest": pa.array([row[0].digest if row else None for row in rows], pa.string()),
        _MORE: pa.array(more, schema.ITEMS.field(_MORE).type),
    }


def with_absolute_images(items: pa.Table, folder: Path) -> pa.Table:
    """Return ITEMS whose images, now relative to ``folder``, may be read from any other; absolute paths stay."""
    root = str(folder.resolve())
    paths = pc.binary_join_element_wise(root, items["image"], "/")  # null stays null
    paths = pc.if_else(pc.starts_with(items["image"], "/"), items["image"], paths)
    items = items.set_column(items.schema.get_field_index("image"), schema.ITEMS.field("image"), paths)
    if not has_several(items):
        return items
    rows = [row and [{**one, "path": str(Path(root, one["path"]))} for one in row] for row in items[_MORE].to_pylist()]
    field = schema.ITEMS.field(_MORE)
    return items.set_column(items.schema.get_field_index(_MORE), field, pa.array(rows, field.type))
