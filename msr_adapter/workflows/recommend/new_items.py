"""Items that came after the training, for one command: the run's data with them, in a folder of its own."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from msr_adapter import schema
from msr_adapter.data.images.store import ImageStore
from msr_adapter.data.new_items import NewItems, new_rows, write_with_attributes
from msr_adapter.errors import LISTED, Problem, plural
from msr_adapter.files import link
from msr_adapter.pipeline.stage_context import Context
from msr_adapter.prompts.stage_tables import ATTRIBUTE_FILES
from msr_adapter.run_folder_mark import MANIFEST
from msr_adapter.workflows.recommend.user_shards import read_items

_ITEMS = "items.parquet"


def changed_problems(path: Path, found: NewItems) -> Iterator[Problem]:
    """Yield a problem if the table says of items something else than the catalogue that the model was trained with."""
    if found.changed:
        number, shown = len(found.changed), ", ".join(found.changed[:LISTED])
        what = f"{number:,} of its items {'is' if number == 1 else 'are'} in the catalogue with other words: {shown}"
        step = "Leave them out here; where they changed, put them into the source's table, which `msr run` reads anew"
        yield Problem(str(path), "--items", what, "items that the catalogue lacks, or says the same of", step)


def told(path: Path | None, found: NewItems, retrieved: int | None = None) -> str:
    """Say what the table has, and how many of its new items are candidates of anybody, where that is known."""
    text = f"{path}: {plural(found.new.height, 'item')} beside the catalogue"
    text += f", {found.known:,} that it has already" if found.known else ""
    if retrieved is None:
        return text
    text += f"; {retrieved:,} of the new ones are among somebody's candidates"
    return text if retrieved or not found.new.height else f"{text}: --candidates FILE, embedding:N or all finds them"


def write_data(context: Context, items: NewItems) -> Path:
    """Write the tables of the data stage with new ``items`` at the end of ITEMS; return their folder.

    Tables are links to the stage's, images stay where they are. `UserError` for missing images where the pipeline
    wants them all.
    """
    data, folder = context.dirs.data, context.out / "data"
    folder.mkdir()
    for path in data.iterdir():
        if path.is_file() and path.name not in (_ITEMS, ATTRIBUTE_FILES["item"], MANIFEST):
            link(path, folder / path.name)
    store = ImageStore(folder, context.pipeline.data.images, context.folder.root / "cache" / "images")
    rows = new_rows(items.new, store, context.reporter)
    write_with_attributes(items, data, folder)
    schema.write_table(pa.concat_tables([read_items(data), rows]), schema.ITEMS, folder / _ITEMS)
    return folder
