"""Item images: found by name, really decoded, shrunk, stored by content; every failure is counted by reason."""

import io
import math
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image, ImageOps, UnidentifiedImageError

from msr_adapter.files import digest
from msr_adapter.progress import Reporter

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
"""In order of preference when an item has several files."""

Fault = Literal["absent", "unreadable", "empty", "not_an_image", "broken", "too_large"]
Find = Callable[[str], Path | Image.Image | None]
"""Item id -> its cover: a file, a drawn picture, or None."""

_EXTENSIONS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}
_ORIENTATION = 0x0112
_WORKERS = 4


@dataclass(frozen=True)
class Stored:
    """What became of one item's image."""

    path: str | None = None
    """Relative to the stage's folder, with forward slashes; None = no image."""
    digest: str | None = None
    change: Literal["copied", "encoded", "shrunk"] = "copied"
    fault: Fault | None = None


class CoverError(Exception):
    """An image that cannot be used."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault)
        self.fault: Fault = fault


def covers_in(folder: Path) -> Find:
    """Return a finder of `{item}.jpg` and so on; one listing of the folder, so no id can reach outside it."""
    found: dict[str, Path] = {}
    with os.scandir(folder) as entries:
        files = [Path(entry.path) for entry in entries if entry.is_file()]
    known = [path for path in files if path.suffix.lower() in SUFFIXES]
    for path in sorted(known, key=lambda p: (SUFFIXES.index(p.suffix.lower()), p.name), reverse=True):
        found[path.stem] = path
    return found.get


def store_all(ids: Sequence[str], find: Find, max_pixels: int, out: Path, reporter: Reporter) -> list[Stored]:
    """Store the image of every item under ``out``/images, on a few threads; the result is in the order of ``ids``."""

    def one(item_id: str) -> Stored:
        return _store_one(find(item_id), max_pixels, out)

    with _quiet_pillow(), reporter.track("Images", len(ids)) as advance, ThreadPoolExecutor(_WORKERS) as pool:
        results = []
        for stored in pool.map(one, ids):
            results.append(stored)
            advance(1)
    return results


def store_placeholder(max_pixels: int, out: Path) -> Stored:
    """Store the grey picture that stands for a missing image."""
    side = min(224, math.isqrt(max_pixels))
    return _write(_encode(Image.new("RGB", (side, side), (128, 128, 128)), "PNG"), "PNG", "encoded", out)


def image_counts(results: Sequence[Stored]) -> dict[str, int]:
    """Return how many images were stored, in which way, and how many are missing for which reason."""
    counts = Counter(f"images_{one.change}" for one in results if one.path)
    counts.update(f"images_missing_{one.fault}" for one in results if one.fault)
    counts["image_files"] = len({one.path for one in results if one.path})
    return dict(sorted(counts.items()))


def _store_one(cover: Path | Image.Image | None, max_pixels: int, out: Path) -> Stored:
    try:
        if cover is None:
            raise CoverError("absent")
        if isinstance(cover, Image.Image):
            picture = _shrunk(_flat(cover), max_pixels)
            return _write(_encode(picture, "PNG"), "PNG", "encoded", out)
        return _store_file(cover, max_pixels, out)
    except CoverError as error:
        return Stored(fault=error.fault)


def _store_file(path: Path, max_pixels: int, out: Path) -> Stored:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CoverError("unreadable") from error
    picture, kind, plain, size = _decode(data, max_pixels)
    if plain and picture.size == size:
        return _write(data, kind, "copied", out)
    kind = "JPEG" if kind == "JPEG" else "PNG"
    return _write(_encode(picture, kind), kind, "encoded" if picture.size == size else "shrunk", out)


def _decode(data: bytes, max_pixels: int) -> tuple[Image.Image, str, bool, tuple[int, int]]:
    """Return the upright RGB picture within the budget, its format, whether the bytes were plain, the upright size."""
    if not data:
        raise CoverError("empty")
    try:
        with Image.open(io.BytesIO(data)) as image:
            kind = "JPEG" if image.format == "MPO" else image.format or ""  # MPO: a phone's JPEG with extras
            orientation = _orientation(image)
            plain = kind in _EXTENSIONS and image.mode == "RGB" and orientation == 1 and not _special(image)
            size = image.size if orientation < 5 else image.size[::-1]
            # A JPEG decodes at a fraction of its size at once; any larger target is left to the resampling below.
            image.draft(None, _target(image.size, max_pixels))
            upright = ImageOps.exif_transpose(image) if orientation != 1 else image
            return _shrunk(_flat(upright), max_pixels, size), kind, plain, size
    except UnidentifiedImageError as error:
        raise CoverError("not_an_image") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise CoverError("too_large") from error
    except Exception as error:  # a damaged file makes Pillow's parsers raise anything: SyntaxError, IndexError, ...
        raise CoverError("broken") from error


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # as above; a picture with damaged metadata is still a picture
        return 1
    return value if value in range(1, 9) else 1


def _special(image: Image.Image) -> bool:
    return bool(image.has_transparency_data or getattr(image, "is_animated", False))


def _flat(image: Image.Image) -> Image.Image:
    """Return a loaded RGB copy; what is transparent becomes white."""
    if image.has_transparency_data:
        colours = image.convert("RGBA")
        white = Image.new("RGBA", colours.size, "white")
        return Image.alpha_composite(white, colours).convert("RGB")
    image.load()
    return image.convert("RGB")


def _shrunk(image: Image.Image, max_pixels: int, size: tuple[int, int] | None = None) -> Image.Image:
    """Return the image at the size that its full ``size`` has within the budget."""
    target = _target(size or image.size, max_pixels)
    return image if image.size == target else image.resize(target, Image.Resampling.LANCZOS, reducing_gap=3.0)


def _target(size: tuple[int, int], max_pixels: int) -> tuple[int, int]:
    """Return the largest size of about the same shape with at most ``max_pixels``."""
    width, height = size
    if width * height <= max_pixels:
        return size
    scale = math.sqrt(max_pixels / (width * height))
    width = min(max(1, int(width * scale)), max_pixels)
    return width, min(max(1, int(height * scale)), max_pixels // width)


def _encode(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return buffer.getvalue()


def _write(data: bytes, kind: str, change: Literal["copied", "encoded", "shrunk"], out: Path) -> Stored:
    """Write bytes under their digest; equal images share one file, and two threads may write it alike."""
    name = digest(data)
    path = out / "images" / name[:2] / f"{name}.{_EXTENSIONS[kind]}"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return Stored(path.relative_to(out).as_posix(), name, change)


@contextmanager
def _quiet_pillow() -> Iterator[None]:
    """Make a decompression bomb an error and other remarks on damaged files silent: the audit counts them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield
