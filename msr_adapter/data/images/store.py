"""A run's image store: every image that is used once, validated, shrunk and named by its content.

What earlier builds made of the same files is reused instead of decoded again. It lies in a folder of the run's cache,
which may be deleted at any time::

    index.jsonl     one line per file: its key, and what became of its image or frames; written as it happens
    images/..       the stored files, hard links where the file system has them

A key is the file's path, size and time, as in the stage's fingerprint, or the digest of bytes in a table; with the
limits and the versions of what decodes.
"""

import contextlib
import json
import math
import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import PIL
from PIL import Image

from msr_adapter.config.schema import ImagesConfig
from msr_adapter.data.images.decode import EXTENSIONS, Decoded, Fault, ImageError, encode, flat, quiet_pillow, shrink
from msr_adapter.data.images.frames import decode_all, decoder_versions
from msr_adapter.data.images.locate import FindImages, ImageLocation, read_image
from msr_adapter.files import digest, file_digest
from msr_adapter.filesystem import parse_json, read_bytes
from msr_adapter.progress import Reporter
from msr_adapter.system import cpu_count

_VERSION = 1
"""Rises when equal files give other images."""
_BATCH = 1024
_OF_ITEMS = {"folder", "missing", "max", "columns"}
"""Settings that say which images are used, and nothing of what becomes of one."""

Change = Literal["copied", "encoded", "shrunk"]
"""What was done to a file that was stored."""


@dataclass(frozen=True)
class ImageStore:
    """Where images are stored, and how large they may be."""

    out: Path
    """The stage's folder; the images are in its folder ``images``."""
    limits: ImagesConfig
    cache: Path | None = None
    """What earlier builds stored, and this one will; None: nothing is reused."""


@dataclass(frozen=True)
class StoredImage:
    """What became of one item's image."""

    path: str | None = None
    """Relative to the stage's folder, with forward slashes; None = no image."""
    digest: str | None = None
    change: Change = "copied"
    fault: Fault | None = None
    animated: bool = False
    """Only the first frame was kept."""
    frame: bool = False
    """It is a frame of a video or of an animation."""


@dataclass(frozen=True)
class ItemImages(StoredImage):
    """What became of the images of one item: the first that can be used is what the fields above say."""

    more: tuple[StoredImage, ...] = ()
    """The others, in order; none of them failed, and no two are equal."""
    refused: tuple[Fault, ...] = ()
    """Why some of an item's several images cannot be used."""
    repeated: int = 0
    """Images that are equal to one before."""
    left_out: int = 0
    """Images beyond `data.images.max`, which were not looked at."""

    @property
    def all(self) -> tuple[StoredImage, ...]:
        """Every image that is used, the first one first."""
        return (self, *self.more) if self.path else ()


_Place = ImageLocation | ImageError
StoreOne = Callable[[Path | bytes], list[StoredImage]]
"""Stores the image of a file or of a file's bytes under the stage's folder; several where it is a video's frames."""


def store_all(
    ids: Sequence[str], find: FindImages, store: ImageStore, reporter: Reporter, workers: int | None = None
) -> list[ItemImages]:
    """Store the images of every item; the result is in the order of ``ids``.

    One thread per CPU unless ``workers`` is given: Pillow decodes, resizes and encodes outside the interpreter's lock
    (threads against processes: benchmarks/images.py). Each thread holds one image.
    """
    with (
        quiet_pillow(),
        _reusing(store) as store_one,
        reporter.track("Images", len(ids)) as advance,
        ThreadPoolExecutor(workers or cpu_count()) as pool,
    ):

        def put(place: _Place) -> list[StoredImage]:
            try:
                if isinstance(place, ImageError):
                    raise place
                if isinstance(place, Image.Image):
                    drawn = encode(shrink(flat(place), store.limits), "PNG")
                    return [_write(drawn, "PNG", "encoded", store.out)]
                return store_one(place)
            except ImageError as error:
                return [StoredImage(fault=error.fault)]

        def one(item_id: str) -> ItemImages:
            try:
                found = find(item_id)
            except ImageError as error:
                return ItemImages(fault=error.fault)
            return _images_of(found if isinstance(found, list) else [found], put, store.limits.max)

        results: list[ItemImages] = []
        # In batches, because `map` hands all that it is given to the pool at once.
        for start in range(0, len(ids), _BATCH):
            for stored in pool.map(one, ids[start : start + _BATCH]):
                results.append(stored)
                advance(1)
    return results


def store_placeholder(store: ImageStore) -> StoredImage:
    """Store the grey image that stands for a missing one."""
    side = min(224, math.isqrt(store.limits.max_pixels), store.limits.max_side)
    return _write(encode(Image.new("RGB", (side, side), (128, 128, 128)), "PNG"), "PNG", "encoded", store.out)


def image_counts(results: Sequence[ItemImages]) -> dict[str, int]:
    """Return how many images were stored, in which way, and how many are missing for which reason.

    Of items with several also how many of these cannot be used, are equal to another one, or are too many.
    """
    stored = [image for one in results for image in one.all]
    counts = Counter(f"images_{image.change}" for image in stored)
    counts.update(f"images_missing_{one.fault}" for one in results if one.fault)
    counts.update(f"images_refused_{fault}" for one in results if one.path for fault in one.refused)
    counts.update("images_first_frame" for image in stored if image.animated)
    counts.update("images_frames" for image in stored if image.frame)
    several = {"items_with_several_images": sum(bool(one.more) for one in results),
               "images_repeated": sum(one.repeated for one in results),
               "images_beyond_max": sum(one.left_out for one in results)}  # fmt: skip
    counts.update({name: number for name, number in several.items() if number})
    counts["image_files"] = len({image.path for image in stored})
    return dict(sorted(counts.items()))


def _images_of(places: Sequence[_Place], put: Callable[[_Place], list[StoredImage]], most: int) -> ItemImages:
    """Store an item's images in order until ``most`` that differ are there; a video's frames are images each."""
    kept, refused, repeated = dict[str | None, StoredImage](), list[Fault](), 0
    left_out = 0
    for number, place in enumerate(places):
        if len(kept) == most:
            left_out += len(places) - number
            break
        for stored in put(place):
            if stored.fault:
                refused.append(stored.fault)
            elif stored.digest in kept:
                repeated += 1
            elif len(kept) == most:
                left_out += 1
            else:
                kept[stored.digest] = stored
    if not kept:
        return ItemImages(fault=refused[0], refused=tuple(refused))
    first, *more = kept.values()
    return ItemImages(
        first.path, first.digest, first.change, None, first.animated, first.frame,
        more=tuple(more), refused=tuple(refused), repeated=repeated, left_out=left_out,
    )  # fmt: skip


def _store_file(file: Path | bytes, store: ImageStore) -> list[StoredImage]:
    limit = store.limits.max_file_mb * 2**20
    data = file if isinstance(file, bytes) else read_image(file, limit)
    if len(data) > limit:
        raise ImageError("too_large")
    return [_store_decoded(found, data, store) for found in decode_all(data, store.limits)]


def _store_decoded(found: Decoded, data: bytes, store: ImageStore) -> StoredImage:
    same_size = found.image.size == found.size
    if found.plain and same_size:
        return _write(data, found.kind, "copied", store.out)
    kind = "JPEG" if found.kind == "JPEG" else "PNG"
    stored = _write(encode(found.image, kind), kind, "encoded" if same_size else "shrunk", store.out)
    return replace(stored, animated=found.animated, frame=found.frame)


def _write(data: bytes, kind: str, change: Change, out: Path) -> StoredImage:
    """Write bytes under their digest; equal images share one file, and two threads may write it alike."""
    name = digest(data)
    path = out / "images" / name[:2] / f"{name}.{EXTENSIONS[kind]}"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return StoredImage(path.relative_to(out).as_posix(), name, change)


@contextlib.contextmanager
def _reusing(store: ImageStore) -> Iterator[StoreOne]:
    """Yield what stores an image, or reuses what the cache has of it; for any number of threads.

    Failures are not kept, and a kept file counts only if its digest is still right.
    """
    store_one = partial(_store_file, store=store)
    if store.cache is None:
        yield store_one
        return
    cache, out = store.cache, store.out
    cache.mkdir(parents=True, exist_ok=True)
    known, lock = _read_index(cache / "index.jsonl"), threading.Lock()
    salt = [_VERSION, PIL.__version__, store.limits.model_dump(mode="json", exclude=_OF_ITEMS), *decoder_versions()]
    with (cache / "index.jsonl").open("a", encoding="utf-8") as index:
        index.write("\n")  # a killed process may have left half a line

        def reuse_or_store(file: Path | bytes) -> list[StoredImage]:
            key = _key(file, salt)
            if key in known and all(_reuse(one, cache, out) for one in known[key]):
                return known[key]
            stored = store_one(file)
            if key:
                for one in stored:
                    _link(out / str(one.path), cache / str(one.path))
                first, *more = map(asdict, stored)
                with lock:
                    index.write(json.dumps({"key": key, **first, **({"frames": more} if more else {})}) + "\n")
                    index.flush()
            return stored

        yield reuse_or_store


def _read_index(path: Path) -> dict[str, list[StoredImage]]:
    known: dict[str, list[StoredImage]] = {}
    try:
        lines = read_bytes(path).decode("utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return known
    for line in lines:
        with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
            values = parse_json(line)
            key = values.pop("key")
            more = values.pop("frames", [])
            known[key] = [StoredImage(**one) for one in (values, *more)]
    return known


def _key(file: Path | bytes, salt: list[object]) -> str:
    """Return what identifies an image; empty when its file cannot be looked at."""
    if isinstance(file, bytes):
        return digest([digest(file), salt])
    try:
        status = file.lstat()
    except OSError:
        return ""
    return digest([str(file), status.st_size, status.st_mtime_ns, salt])


def _reuse(stored: StoredImage, cache: Path, out: Path) -> bool:
    """Put a kept file into the stage's folder; False when it is gone or damaged."""
    kept, target = cache / str(stored.path), out / str(stored.path)
    try:
        if file_digest(kept) != stored.digest:
            kept.unlink()
            return False
    except OSError:
        return False
    _link(kept, target)
    return True


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except FileExistsError:
        return
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)
