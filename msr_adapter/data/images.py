"""The run's image store: every used image once, validated, shrunk, named by its content; failures counted by reason."""

import math
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

from PIL import Image

from msr_adapter.config.models import Images
from msr_adapter.data.covers import Find, read_cover
from msr_adapter.data.pictures import EXTENSIONS, CoverError, decode, encode, flat, quiet_pillow, shrink
from msr_adapter.data.shrunk import Stored, remembering
from msr_adapter.files import digest
from msr_adapter.progress import Reporter

__all__ = ["Stored", "cores", "image_counts", "store_all", "store_placeholder"]

_BATCH = 1024


def store_all(
    ids: Sequence[str], find: Find, limits: Images, out: Path, reporter: Reporter, workers: int | None = None,
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
        ThreadPoolExecutor(workers or cores()) as pool,
    ):

        def one(item_id: str) -> Stored:
            try:
                cover = find(item_id)
                return _draw(cover, limits, out) if isinstance(cover, Image.Image) else store(cover)
            except CoverError as error:
                return Stored(fault=error.fault)

        results: list[Stored] = []
        for start in range(0, len(ids), _BATCH):
            for stored in pool.map(one, ids[start : start + _BATCH]):
                results.append(stored)
                advance(1)
    return results


def cores() -> int:
    """Return the number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def store_placeholder(limits: Images, out: Path) -> Stored:
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


def _draw(picture: Image.Image, limits: Images, out: Path) -> Stored:
    return _write(encode(shrink(flat(picture), limits), "PNG"), "PNG", "encoded", out)


def _store(cover: Path | bytes, limits: Images, out: Path) -> Stored:
    limit = limits.max_file_mb * 2**20
    data = cover if isinstance(cover, bytes) else read_cover(cover, limit)
    if len(data) > limit:
        raise CoverError("too_large")
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
