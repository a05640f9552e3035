"""Files that are not called as an item, but nearly: other accents, case, zeros, or a suffix that is not read."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from msr_adapter.data.id_forms import NearIds, near_matches
from msr_adapter.data.images.decode import suffixes
from msr_adapter.data.images.locate import image_name, is_url
from msr_adapter.data.readers.reader import Corpus
from msr_adapter.filesystem import files_below, printable


def wanted_names(ids: Sequence[str], corpus: Corpus) -> dict[str, str]:
    """Return what a file is looked for by for each of ``ids``: the path that the item names, else the item's id."""
    named = {}
    if corpus.items is not None and corpus.items.schema.get("image") == pl.String:
        rows = corpus.items.filter(pl.col("item_id").is_in(list(ids)))
        named = dict(rows.select("item_id", "image").iter_rows())
    names = {item: image_name(named.get(item)) for item in ids}
    return {item: name if isinstance(name, str) and name and not is_url(name) else item for item, name in names.items()}


def near_files(folder: Path, names: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return item -> its name and the file that nearly is called so, relative to ``folder``; one listing of it.

    ``names`` are those that no image was found for.
    """
    root, read = os.path.realpath(folder), set(suffixes())
    called: dict[str, str] = {}
    """What a file could be called for, but for its suffix -> the first such file."""
    unread: dict[str, str] = {}
    for entry, _ in files_below(Path(root)):
        path = Path(printable(os.path.relpath(entry.path, root)))
        inner = Path(path.stem)  # `a.jpg.bak`, `a.jpg.jpg`
        forms = [str(path), path.stem, *([inner.stem] if inner.suffix.lower() in read else [])]
        for name in forms:
            (called if path.suffix.lower() in read else unread).setdefault(name, str(path))
    wanted = pl.Series(list(dict.fromkeys(names.values())), dtype=pl.String)
    near = near_matches(wanted, pl.Series(list(called), dtype=pl.String))
    found = {name: called[other] for name, other in near.pairs.iter_rows()}
    # A name that is there to the letter was not read for its suffix, or for the second one that it has.
    found |= {name: place[name] for place in (called, unread) for name in wanted if name in place}
    return {item: (name, found[name]) for item, name in names.items() if name in found}


def as_pairs(near: Mapping[str, tuple[str, str]]) -> NearIds:
    """Return names and files as pairs, whose examples can be shown."""
    return NearIds(pl.DataFrame(list(near.values()), schema={"id": pl.String, "near": pl.String}, orient="row"))
