"""Item images small enough to travel inside one page: WebP, each image once, within a budget of bytes."""

import io
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image

_SIDES = (144, 112, 80, 56)
"""Pixels of the longer side; the largest at which all images are within the budget is used."""
_SAMPLE = 48
"""Images that are shrunk on trial, to estimate how large all of them would be."""
_WORKERS = 4
_BATCH = 64
_BESIDE = "\n"
"""Between the paths of images that one thumbnail shows: no stored image is called so."""


@dataclass(frozen=True)
class Thumbnails:
    """The images that are within the budget."""

    images: dict[str, bytes]
    """Path -> WebP."""
    side: int
    left_out: frozenset[str]
    """Paths beyond the budget; what cannot be read is in neither."""


def together(paths: Sequence[str]) -> str:
    """Return what stands for several images that are shown side by side, as one."""
    return _BESIDE.join(paths)


def make_thumbnails(paths: Sequence[str], data_dir: Path, budget: int) -> Thumbnails:
    """Shrink the images at ``paths`` (relative to ``data_dir``, the most wanted first) into ``budget`` bytes.

    O(images) time on a few threads; memory is the result and a batch of images.
    """
    side = _largest_side(paths, data_dir, budget)
    images: dict[str, bytes] = {}
    room = budget
    for start in range(0, len(paths), _BATCH):
        batch = paths[start : start + _BATCH]
        for place, data in enumerate(_shrink_all(batch, data_dir, side), start):
            if data is None:
                continue
            if len(data) > room:
                return Thumbnails(images, side, frozenset(paths[place:]))
            images[paths[place]] = data
            room -= len(data)
    return Thumbnails(images, side, frozenset())


def _largest_side(paths: Sequence[str], data_dir: Path, budget: int) -> int:
    sample = paths[:: max(1, len(paths) // _SAMPLE)]
    for side in _SIDES[:-1]:
        sizes = [len(data) for data in _shrink_all(sample, data_dir, side) if data is not None]
        # 5% more than the sample says, which is not the whole.
        if not sizes or 1.05 * len(paths) * sum(sizes) / len(sizes) <= budget:
            return side
    return _SIDES[-1]


def _shrink_all(paths: Iterable[str], data_dir: Path, side: int) -> Iterator[bytes | None]:
    with ThreadPoolExecutor(_WORKERS) as pool:
        yield from pool.map(partial(_shrink, data_dir, side), paths)


def _shrink(data_dir: Path, side: int, path: str) -> bytes | None:
    """Return a small WebP; None where no file can be read as an image."""
    several = [small for one in path.split(_BESIDE) if (small := _small(data_dir / one, side)) is not None]
    if not several:
        return None
    target = io.BytesIO()
    _side_by_side(several).save(target, "WEBP", quality=75, method=3)
    return target.getvalue()


def _small(path: Path, side: int) -> Image.Image | None:
    try:
        with Image.open(path) as image:
            image.draft("RGB", (side, side))  # a JPEG decodes at a fraction of its size at once
            small: Image.Image = image.convert("RGB")
            small.thumbnail((side, side))
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    return small


def _side_by_side(several: Sequence[Image.Image]) -> Image.Image:
    if len(several) == 1:
        return several[0]
    width, height = sum(one.width for one in several), max(one.height for one in several)
    sheet, left = Image.new("RGB", (width, height), "white"), 0
    for one in several:
        sheet.paste(one, (left, 0))
        left += one.width
    return sheet
