"""A run's image store: every image that is used once, validated, shrunk and named by its content.

What earlier builds made of the same files is reused instead of decoded again. It lies in a folder of the run's cache,
which may be deleted at any time::

    index.jsonl     one line per image: its key, and what became of it; written as it happens
    images/..       the stored files, hard links where the file system has them

A key is the file's path, size and time, as in the stage's fingerprint, or the digest of bytes in a table; with the
limits and the version of Pillow.
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
from msr_adapter.data.images.decode import EXTENSIONS, Fault, ImageError, decode, encode, flat, quiet_pillow, shrink
from msr_adapter.data.images.locate import FindImage, read_image
from msr_adapter.files import digest, file_digest
from msr_adapter.filesystem import parse_json, read_bytes
from msr_adapter.progress import Reporter
from msr_adapter.system import cpu_count

_VERSION = 1
"""Rises when equal files give other images."""
_BATCH = 1024

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


StoreOne = Callable[[Path | bytes], StoredImage]
"""Stores an image, of a file or of a file's bytes, under the stage's folder."""


def store_all(
    ids: Sequence[str], find: FindImage, store: ImageStore, reporter: Reporter, workers: int | None = None
) -> list[StoredImage]:
    """Store the image of every item; the result is in the order of ``ids``.

    One thread per CPU unless ``workers`` is given: Pillow decodes, resizes and encodes outside the interpreter's lock
    (threads against processes: benchmarks/images.py). Each thread holds one image.
    """
    with (
        quiet_pillow(),
        _reusing(store) as store_one,
        reporter.track("Images", len(ids)) as advance,
        ThreadPoolExecutor(workers or cpu_count()) as pool,
    ):

        def one(item_id: str) -> StoredImage:
            try:
                found = find(item_id)
                if isinstance(found, Image.Image):
                    return _write(encode(shrink(flat(found), store.limits), "PNG"), "PNG", "encoded", store.out)
                return store_one(found)
            except ImageError as error:
                return StoredImage(fault=error.fault)

        results: list[StoredImage] = []
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


def image_counts(results: Sequence[StoredImage]) -> dict[str, int]:
    """Return how many images were stored, in which way, and how many are missing for which reason."""
    counts = Counter(f"images_{one.change}" for one in results if one.path)
    counts.update(f"images_missing_{one.fault}" for one in results if one.fault)
    counts.update("images_first_frame" for one in results if one.animated)
    counts["image_files"] = len({one.path for one in results if one.path})
    return dict(sorted(counts.items()))


def _store_file(file: Path | bytes, store: ImageStore) -> StoredImage:
    limit = store.limits.max_file_mb * 2**20
    data = file if isinstance(file, bytes) else read_image(file, limit)
    if len(data) > limit:
        raise ImageError("too_large")
    found = decode(data, store.limits)
    same_size = found.image.size == found.size
    if found.plain and same_size:
        return _write(data, found.kind, "copied", store.out)
    kind = "JPEG" if found.kind == "JPEG" else "PNG"
    stored = _write(encode(found.image, kind), kind, "encoded" if same_size else "shrunk", store.out)
    return replace(stored, animated=found.animated)


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
    salt = [_VERSION, PIL.__version__, store.limits.model_dump(mode="json", exclude={"folder", "missing"})]
    with (cache / "index.jsonl").open("a", encoding="utf-8") as index:
        index.write("\n")  # a killed process may have left half a line

        def reuse_or_store(file: Path | bytes) -> StoredImage:
            key = _key(file, salt)
            if key in known and _reuse(known[key], cache, out):
                return known[key]
            stored = store_one(file)
            if key and stored.path:
                _link(out / stored.path, cache / stored.path)
                with lock:
                    index.write(json.dumps({"key": key, **asdict(stored)}) + "\n")
                    index.flush()
            return stored

        yield reuse_or_store


def _read_index(path: Path) -> dict[str, StoredImage]:
    known: dict[str, StoredImage] = {}
    try:
        lines = read_bytes(path).decode("utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return known
    for line in lines:
        with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
            values = parse_json(line)
            key = values.pop("key")
            known[key] = StoredImage(**values)
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
