"""Several images of an item: what its columns name, in their order; else the files that are called as it is.

A column may hold a list, the text of one (`["a.jpg", "b.jpg"]`), or names between `|`, or URLs between blanks, commas
or semicolons. Files are, in this order: `{item}.jpg`, those in a folder `{item}`, and `{item}_*.jpg`; numbers in their
names count as numbers (`7_2` comes before `7_10`).
"""

import ast
import json
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from msr_adapter.config.schema import ImagesConfig
from msr_adapter.data.images.decode import ImageError, suffixes
from msr_adapter.data.images.locate import (
    FindImages,
    ImageLocation,
    image_finder,
    is_url,
    path_within,
    read_downloads,
)
from msr_adapter.data.readers.items import FURTHER_IMAGE
from msr_adapter.data.readers.reader import Corpus
from msr_adapter.filesystem import files_below

Located = ImageLocation | ImageError
"""One image of an item, or why it cannot be used."""

_KEYS = ("bytes", "path", "large", "hi_res", "url", "src", "href", "link", "thumb")
"""What an object calls its image, the best first."""
_BEFORE_URL = re.compile(r"[|,;\s]+(?=[A-Za-z][A-Za-z0-9+.-]*://)")
_NUMBERS = re.compile(r"(\d+)")


def find_images(ids: Sequence[str], corpus: Corpus, config: ImagesConfig) -> FindImages:
    """Return the finder of the images of the items ``ids``: of one each, or of several where `max` is above 1."""
    if config.max == 1:
        return image_finder(ids, corpus, config)
    if corpus.synthetic is not None:
        draw_all = corpus.synthetic.draw_all
        return lambda item: [*draw_all(item)]
    by_name = _files_called_as(config.folder, ids) if config.folder else {}
    root = Path(os.path.realpath(config.folder)) if config.folder else None
    named = _named(corpus, ids)
    downloads = read_downloads(config.folder) if config.folder else {}
    fetched = {(one.item_id, one.url): one for one in downloads.values()}
    asked = {one.item_id for one in downloads.values()}

    def locate(item: str, name: str | bytes) -> Located:
        if isinstance(name, bytes):
            return name
        try:
            if is_url(name):
                one = fetched.get((item, name))
                if root is None or one is None or one.file is None:
                    return ImageError("not_fetched")
                return path_within(root, one.file)
            return ImageError("no_folder") if root is None else path_within(root, name)
        except ImageError as error:
            return error

    def find(item: str) -> list[Located]:
        names, files = named.get(item, []), by_name.get(item, [])
        # Who downloaded the images by other means has them under the items' names.
        if files and (not names or (item not in asked and all(isinstance(one, str) and is_url(one) for one in names))):
            return files
        if not names:
            raise ImageError("absent")
        return [locate(item, name) for name in names]

    return find


def further_columns(config: ImagesConfig) -> tuple[str, ...] | None:
    """Return the columns of further images that readers are to read; None where an item has one image."""
    return config.columns if config.max > 1 else None


def image_names(value: Any) -> list[str | bytes]:
    """Return all that a column of images says of one item, in order: bytes, paths, URLs."""
    if value is None:
        return []
    if isinstance(value, bytes):
        return [value] if value else []
    if isinstance(value, Mapping):
        return _of_object(value)
    if isinstance(value, pl.Series | list | tuple):
        return [name for one in value for name in image_names(one)]
    return list(_of_text(str(value).strip()))


def _of_object(value: Mapping[str, Any]) -> list[str | bytes]:
    """Return the image of an object, or the images of an object of lists."""
    found = [value[key] if isinstance(value[key], list) else [value[key]] for key in _KEYS if value.get(key)]
    several = [
        [names[place] for names in found if place < len(names)] for place in range(max(map(len, found), default=0))
    ]
    # The best of each place: `large` may lack where `thumb` is there.
    best = (next((one for one in names if isinstance(one, str | bytes) and one), None) for names in several)
    return [one for one in best if one]


def _of_text(text: str) -> Iterator[str | bytes]:
    if text[:1] in ("[", "{"):
        listed = _parsed(text)
        if isinstance(listed, list | dict):
            listed = sorted(listed, key=_is_not_main) if isinstance(listed, list) else listed
            yield from image_names(listed)
            return
    for part in _BEFORE_URL.split(text):
        yield from (name for one in part.split("|") if (name := one.strip()))


def _is_not_main(value: object) -> bool:
    """Say whether an image is not the one that its list of objects marks as the main one (Amazon)."""
    return not (isinstance(value, Mapping) and value.get("variant") == "MAIN")


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text)  # as Python writes a list; literals alone
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None


def _named(corpus: Corpus, ids: Sequence[str]) -> dict[str, list[str | bytes]]:
    """Return item -> what its columns name; items that name nothing are left out."""
    items = corpus.items
    if items is None:
        return {}
    columns = [name for name in items.columns if name == "image" or name.startswith(FURTHER_IMAGE)]
    if not columns:
        return {}
    rows = items.select("item_id", *columns).filter(pl.col("item_id").is_in(list(ids)))
    named = {str(item): [name for value in values for name in image_names(value)] for item, *values in rows.iter_rows()}
    return {item: names for item, names in named.items() if names}


def _files_called_as(folder: Path, ids: Collection[str]) -> dict[str, list[Located]]:
    """Return item -> its files, in order. O(files) time; memory for those that are some item's."""
    order = {suffix: rank for rank, suffix in enumerate(suffixes())}
    root, wanted = Path(os.path.realpath(folder)), set(ids)
    best: dict[str, dict[tuple[int, str], tuple[int, int, str, bool]]] = {}
    for entry, depth in files_below(root):
        stem, dot, suffix = entry.name.rpartition(".")
        rank = order.get(f"{dot}{suffix.lower()}")
        if rank is None or (owner := _owner(entry.path, stem, depth, wanted)) is None:
            continue
        item, kind = owner
        files = best.setdefault(item, {})
        found = (rank, depth, entry.path, entry.is_symlink())
        # Of one name in several formats, which is one image, the usual format; then the folder nearest to the root.
        files[kind, stem] = min(files.get((kind, stem), found), found)
    return {
        item: [_resolved(root, path, linked) for _, (_, _, path, linked) in sorted(files.items(), key=_in_order)]
        for item, files in best.items()
    }


def _owner(path: str, stem: str, depth: int, wanted: Collection[str]) -> tuple[str, int] | None:
    """Return the item that a file is called as, and in which way: 0 by its name, 1 by its folder, 2 by its beginning.

    The folder says most: `7/1.jpg` is of item 7, also where an item is called 1.
    """
    above = path.rsplit(os.sep, 2)[-2] if depth else ""
    if above in wanted and stem != above:
        return above, 1
    if stem in wanted:
        return stem, 0
    begin = stem
    while "_" in begin:
        begin = begin.rpartition("_")[0]
        if begin in wanted:
            return begin, 2
    return None


def _in_order(file: tuple[tuple[int, str], tuple[int, int, str, bool]]) -> tuple[int, list[tuple[int, int, str]], str]:
    (kind, stem), (_, _, path, _) = file
    parts = [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in _NUMBERS.split(stem) if part]
    return kind, parts, path


def _resolved(root: Path, path: str, linked: bool) -> Located:
    try:
        return path_within(root, os.path.relpath(path, root)) if linked else Path(path)
    except ImageError as error:
        return error
