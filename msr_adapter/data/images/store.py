"""What earlier builds of a run made of the same image files: taken over instead of decoded again.

folder/
  index.jsonl     one line per image: key, and what became of it; written as it happens
  images/..       the stored files, hard links where the file system has them

A key is the file's path, size and time, as in the stage's fingerprint, or the digest of bytes in a table; with the
limits and the version of Pillow. The folder may be deleted at any time.
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
from msr_adapter.data.images.locate import Find, read_image
from msr_adapter.files import digest, file_digest
from msr_adapter.progress import Reporter
from msr_adapter.system import cpu_count

_VERSION = 1
"""Rises when equal files give other pictures."""


@dataclass(frozen=True)
class Stored:
    """What became of one item's image."""

    path: str | None = None
    """Relative to the stage's folder, with forward slashes; None = no image."""
    digest: str | None = None
    change: Literal["copied", "encoded", "shrunk"] = "copied"
    fault: Fault | None = None
    animated: bool = False
    """Only the first frame was kept."""


Make = Callable[[Path | bytes], Stored]
"""Stores an image under the stage's folder."""


@contextlib.contextmanager
def remembering(make: Make, limits: ImagesConfig, out: Path, folder: Path | None) -> Iterator[Make]:
    """Yield ``make`` with a memory in ``folder``, for any number of threads; without a folder, ``make`` itself.

    Failures are not remembered, and a remembered file counts only if its digest is still right.
    """
    if folder is None:
        yield make
        return
    folder.mkdir(parents=True, exist_ok=True)
    known, lock = _read(folder / "index.jsonl"), threading.Lock()
    salt = [_VERSION, PIL.__version__, limits.model_dump(mode="json", exclude={"folder", "missing"})]
    with (folder / "index.jsonl").open("a", encoding="utf-8") as log:
        log.write("\n")  # a killed process may have left half a line

        def remembered(cover: Path | bytes) -> Stored:
            key = _key(cover, salt)
            if key in known and _take(known[key], folder, out):
                return known[key]
            stored = make(cover)
            if key and stored.path:
                _link(out / stored.path, folder / stored.path)
                with lock:
                    log.write(json.dumps({"key": key, **asdict(stored)}) + "\n")
                    log.flush()
            return stored

        yield remembered


def _read(path: Path) -> dict[str, Stored]:
    known: dict[str, Stored] = {}
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return known
    for line in lines:
        with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
            values = json.loads(line)
            key = values.pop("key")
            known[key] = Stored(**values)
    return known


def _key(cover: Path | bytes, salt: list[object]) -> str:
    """Return what identifies an image; empty when its file cannot be looked at."""
    if isinstance(cover, bytes):
        return digest([digest(cover), salt])
    try:
        status = cover.lstat()
    except OSError:
        return ""
    return digest([str(cover), status.st_size, status.st_mtime_ns, salt])


def _take(stored: Stored, folder: Path, out: Path) -> bool:
    """Put a remembered file into the stage's folder; False when it is gone or damaged."""
    kept, target = folder / str(stored.path), out / str(stored.path)
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


# The run's image store: every used image once, validated, shrunk, named by its content; failures counted by reason.

__all__ = ["Stored", "image_counts", "store_all", "store_placeholder"]

_BATCH = 1024


def store_all(
    ids: Sequence[str], find: Find, limits: ImagesConfig, out: Path, reporter: Reporter, workers: int | None = None,
    memory: Path | None = None,
) -> list[Stored]:  # fmt: skip
    """Store the image of every item under ``out``/images; the result is in the order of ``ids``.

    One thread per core unless ``workers`` is given: Pillow decodes, resizes and encodes outside the interpreter's lock
    (threads against processes: benchmarks/images.py). Each thread holds one picture. What earlier calls with the same
    ``memory`` made of the same files is taken over.
    """
    with (
        quiet_pillow(),
        remembering(partial(_store, limits=limits, out=out), limits, out, memory) as store,
        reporter.track("Images", len(ids)) as advance,
        ThreadPoolExecutor(workers or cpu_count()) as pool,
    ):

        def one(item_id: str) -> Stored:
            try:
                cover = find(item_id)
                return _draw(cover, limits, out) if isinstance(cover, Image.Image) else store(cover)
            except ImageError as error:
                return Stored(fault=error.fault)

        results: list[Stored] = []
        for start in range(0, len(ids), _BATCH):
            for stored in pool.map(one, ids[start : start + _BATCH]):
                results.append(stored)
                advance(1)
    return results


def store_placeholder(limits: ImagesConfig, out: Path) -> Stored:
    """Store the grey picture that stands for a missing image."""
    side = min(224, math.isqrt(limits.max_pixels), limits.max_side)
    return _write(encode(Image.new("RGB", (side, side), (128, 128, 128)), "PNG"), "PNG", "encoded", out)


def image_counts(results: Sequence[Stored]) -> dict[str, int]:
    """Return how many images were stored, in which way, and how many are missing for which reason."""
    counts = Counter(f"images_{one.change}" for one in results if one.path)
    counts.update(f"images_missing_{one.fault}" for one in results if one.fault)
    counts.update("images_first_frame" for one in results if one.animated)
    counts["image_files"] = len({one.path for one in results if one.path})
    return dict(sorted(counts.items()))


def _draw(picture: Image.Image, limits: ImagesConfig, out: Path) -> Stored:
    return _write(encode(shrink(flat(picture), limits), "PNG"), "PNG", "encoded", out)


def _store(cover: Path | bytes, limits: ImagesConfig, out: Path) -> Stored:
    limit = limits.max_file_mb * 2**20
    data = cover if isinstance(cover, bytes) else read_image(cover, limit)
    if len(data) > limit:
        raise ImageError("too_large")
    found = decode(data, limits)
    same_size = found.picture.size == found.size
    if found.plain and same_size:
        return _write(data, found.kind, "copied", out)
    kind = "JPEG" if found.kind == "JPEG" else "PNG"
    stored = _write(encode(found.picture, kind), kind, "encoded" if same_size else "shrunk", out)
    return replace(stored, animated=found.animated)


def _write(data: bytes, kind: str, change: Literal["copied", "encoded", "shrunk"], out: Path) -> Stored:
    """Write bytes under their digest; equal images share one file, and two threads may write it alike."""
    name = digest(data)
    path = out / "images" / name[:2] / f"{name}.{EXTENSIONS[kind]}"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return Stored(path.relative_to(out).as_posix(), name, change)
