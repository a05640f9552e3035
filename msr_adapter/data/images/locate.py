"""Where an item's image is: a file by its name, a path, a downloaded URL, or bytes; never outside the folder."""

import errno
import json
import os
import re
import stat
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import polars as pl
from PIL import Image

from msr_adapter.config.schema import ImagesConfig
from msr_adapter.data.images.decode import ImageError, suffixes
from msr_adapter.data.readers.reader import Corpus
from msr_adapter.files import digest, write_text
from msr_adapter.filesystem import files_below, parse_json, read_bytes

INDEX = "fetched.jsonl"
"""What became of every URL, one JSON object a line, in a folder that `msr fetch-images` fills."""

ImageLocation = Path | bytes | Image.Image
FindImage = Callable[[str], ImageLocation]
"""Item id -> its image: a file, a file's bytes, or a drawn image. `ImageError` when there is none to use."""
FindImages = Callable[[str], ImageLocation | list[ImageLocation | ImageError]]
"""The same for items that may have several: in order, with the reason in the place of one that cannot be used."""

_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_NO_SUCH_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


@dataclass(frozen=True)
class DownloadedImage:
    """What became of one item's URL."""

    item_id: str
    url: str
    file: str | None = None
    """Relative to the folder; None = failed."""
    bytes: int = 0
    digest: str | None = None
    reason: str | None = None
    """Why it failed; None = it did not."""
    number: int = 1
    """Of the item's images in their order."""

    @property
    def key(self) -> str:
        """What identifies it in the index: the item, and the number of an image after the first."""
        return image_key(self.item_id, self.number)


def image_finder(ids: Sequence[str], corpus: Corpus, config: ImagesConfig) -> FindImage:
    """Return the finder for the items ``ids``: drawn ones, else what the items name, else a file named as the item.

    Of a list of images it finds the first; `several.find_images` finds them all.
    """
    if corpus.synthetic is not None:
        return corpus.synthetic.draw
    by_name = images_in(config.folder, ids) if config.folder else _nowhere
    if corpus.items is None or "image" not in corpus.items.columns:
        return by_name
    named = corpus.items.select("item_id", "image").filter(pl.col("item_id").is_in(list(ids)))
    place = {item: row for row, item in enumerate(named["item_id"].to_list())}
    fetched = read_download_index(config.folder) if config.folder else {}

    def find(item_id: str) -> ImageLocation:
        row = place.get(item_id)
        value = None if row is None else image_name(named["image"][row])
        if not value:
            return by_name(item_id)
        if isinstance(value, bytes):
            return value
        if is_url(value):
            return _fetched(config.folder, fetched.get(item_id), value) or _not_absent(by_name, item_id)
        if config.folder is None:
            raise ImageError("no_folder")
        return path_within(Path(os.path.realpath(config.folder)), value)

    return find


def image_name(value: Any) -> str | bytes | None:
    """Return what an image column says of one item: bytes, a path, a URL, or None for nothing.

    `{bytes, path}` is how Hugging Face datasets keep images.
    """
    if isinstance(value, pl.Series | list | tuple):
        value = next(iter(value), None)
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, str):
        return value.strip()
    return value if isinstance(value, bytes) else None


def is_url(text: str) -> bool:
    """Say whether a text names something by a scheme (`https://`, `s3://`), and not by a path."""
    return _SCHEME.match(text.strip()) is not None


def images_in(folder: Path, ids: Collection[str]) -> FindImage:
    """Return a finder of `{item}.jpg` and so on in a folder and those below it; a listing, so no id reaches outside.

    Linked folders are not entered; a linked file is used if it leads to a place inside. O(files) time, O(ids) memory.
    """
    order = {suffix: rank for rank, suffix in enumerate(suffixes())}
    root, wanted = Path(os.path.realpath(folder)), set(ids)
    best: dict[str, tuple[int, int, str, bool]] = {}
    for entry, depth in files_below(root):
        stem, dot, suffix = entry.name.rpartition(".")
        rank = order.get(f"{dot}{suffix.lower()}")
        if rank is not None and stem in wanted:
            found = (rank, depth, entry.path, entry.is_symlink())
            best[stem] = min(best.get(stem, found), found)  # by format, then the folder nearest to the root, then name

    def find(item_id: str) -> Path:
        if item_id not in best:
            raise ImageError("absent")
        _, _, path, linked = best[item_id]
        return path_within(root, os.path.relpath(path, root)) if linked else Path(path)

    return find


def path_within(root: Path, written: str) -> Path:
    """Return the file that a path names below ``root`` (already resolved); `ImageError` for every way out of it."""
    inside = PurePosixPath(written.strip().replace("\\", "/"))
    if inside.is_absolute() or ".." in inside.parts or "\0" in written or PureWindowsPath(written).drive:
        raise ImageError("outside")
    real = Path(os.path.realpath(root / inside))
    if not real.is_relative_to(root):
        raise ImageError("outside")
    return real


def read_image(path: Path, limit: int) -> bytes:
    """Return a file's bytes, at most ``limit``; a device, a pipe or a link put in its place is not read."""
    try:
        # The path has been resolved, so a link was put there since; opening a pipe would wait for who writes into it.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise ImageError("absent" if error.errno in _NO_SUCH_FILE else "unreadable") from error
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("absent")
        if status.st_size > limit:
            raise ImageError("too_large")
        with os.fdopen(handle, "rb", closefd=False) as file:
            return file.read(limit)  # even if the file has grown since
    except OSError as error:
        raise ImageError("unreadable") from error
    finally:
        os.close(handle)


def safe_name(item_id: str) -> str:
    """Return a file name without suffix for any item id: the id itself, or `_` and a digest of it."""
    return item_id if _SAFE.fullmatch(item_id) else f"_{digest(item_id.encode())[:32]}"


def image_key(item_id: str, number: int) -> str:
    """Return what identifies an image of an item in the index of downloads: the item's id of the first one."""
    return item_id if number == 1 else f"{item_id}\0{number}"


def item_of(key: str) -> tuple[str, int]:
    """Return the item and the number of the image that a key of the index identifies."""
    item, mark, number = key.rpartition("\0")
    return (item, int(number)) if mark and number.isdecimal() else (key, 1)


def read_download_index(folder: Path) -> dict[str, DownloadedImage]:
    """Return item id -> the latest line of its first image."""
    return {one.item_id: one for one in read_downloads(folder).values() if one.number == 1}


def read_downloads(folder: Path) -> dict[str, DownloadedImage]:
    """Return key -> its latest line. A line that a killed process left unfinished counts as not written."""
    found: dict[str, DownloadedImage] = {}
    try:
        text = read_bytes(folder / INDEX).decode("utf-8", errors="replace")
    except OSError:
        return found
    for line in text.splitlines():
        try:
            one = DownloadedImage(**parse_json(line))
        except (ValueError, TypeError):
            continue
        found[one.key] = one
    return found


def line_of(one: DownloadedImage) -> str:
    """Return an entry as its line of the index."""
    return json.dumps(asdict(one)) + "\n"


def write_download_index(folder: Path, entries: dict[str, DownloadedImage]) -> None:
    """Write the whole index, atomically, sorted by item id."""
    write_text(folder / INDEX, "".join(line_of(entries[item]) for item in sorted(entries)))


def _nowhere(_: str) -> ImageLocation:
    raise ImageError("absent")


def _fetched(folder: Path | None, entry: DownloadedImage | None, url: str) -> Path | None:
    """Return the file that `msr fetch-images` made of the URL; None when it never saw the item."""
    if folder is None or entry is None:
        return None
    if entry.url != url or entry.file is None:
        raise ImageError("not_fetched")
    return path_within(Path(os.path.realpath(folder)), entry.file)


def _not_absent(by_name: FindImage, item_id: str) -> ImageLocation:
    try:
        return by_name(item_id)
    except ImageError as error:
        raise ImageError("not_fetched" if error.fault == "absent" else error.fault) from error
