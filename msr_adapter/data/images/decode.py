"""Bytes -> an upright RGB image within the pixel budget: all that is known of image formats and their traps."""

import importlib.util
import io
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from msr_adapter.config.schema import ImagesConfig

Fault = Literal[
    "absent",
    "outside",
    "not_fetched",
    "no_folder",
    "unreadable",
    "empty",
    "not_an_image",
    "broken",
    "too_large",
    "video",
    "no_frames",
    "too_long",
    "heic",
]
"""Why an item has no image: none named or found; named outside the folder; a URL not fetched; a path but no folder; the
file cannot be opened; it has no bytes; it is no raster image; it does not decode; it is above a limit; it is a video,
and no frames are asked for; one without any; one whose frames take too much to reach; it is a HEIC, and what decodes
that is not installed."""

EXTENSIONS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}
"""Formats that are stored as they are, and what their files are called."""

_NOT_DECODED_HERE = {"EPS", "WMF", "MPEG", "HDF5", "GRIB", "BUFR"}
"""Pillow hands EPS to Ghostscript, and knows the others by name only."""
_ORIENTATION = 0x0112
HEIF_SUFFIXES = (".heic", ".heif")
VIDEO_SUFFIXES = (".mp4", ".webm", ".mov", ".mkv", ".avi", ".m4v")
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


class ImageError(Exception):
    """An image that cannot be used."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault)
        self.fault: Fault = fault


@dataclass(frozen=True)
class Decoded:
    """What was found in an image file."""

    image: Image.Image
    """Upright, RGB, within the budget."""
    kind: str
    size: tuple[int, int]
    """Width and height of the upright image in the file."""
    animated: bool
    plain: bool
    """The file's own bytes may be stored: a known format, RGB with 8 bits, upright, one frame, nothing transparent."""
    frame: bool = False
    """One of several frames, which were asked for."""


def formats() -> list[str]:
    """Return the formats that are decoded: all of Pillow's but those that run a program or hold no image.

    HEIF is among them where the extra `heic` is installed.
    """
    Image.init()  # Pillow loads its usual formats by itself, and the others only when asked to
    if "HEIF" not in Image.OPEN and heif_is_installed():
        import pillow_heif

        pillow_heif.register_heif_opener(thumbnails=False)
    return [*EXTENSIONS, *sorted(set(Image.OPEN) - _NOT_DECODED_HERE - set(EXTENSIONS))]


def suffixes() -> tuple[str, ...]:
    """Return the suffixes of the formats, in order of preference when an item has several files."""
    usual = (".jpg", ".jpeg", ".png", ".webp")
    known = set(formats())
    others = {s for s, kind in Image.registered_extensions().items() if kind in known and s not in usual}
    # Those of HEIF and of videos are found also where they cannot be used, so that it can be said what they take.
    return (*usual, *sorted((others | {*HEIF_SUFFIXES}) - {*VIDEO_SUFFIXES}), *VIDEO_SUFFIXES)


def extension(kind: str) -> str:
    """Return the suffix, with its dot, of files of a decoded format."""
    if kind in EXTENSIONS:
        return f".{EXTENSIONS[kind]}"
    return min((suffix for suffix, name in Image.registered_extensions().items() if name == kind), default=".img")


def heif_is_installed() -> bool:
    """Say whether what decodes HEIC is there: the extra `heic`."""
    return importlib.util.find_spec("pillow_heif") is not None


def decode(data: bytes, limits: ImagesConfig) -> Decoded:
    """Return the image in a file's bytes; its size is known from the header before a pixel is decoded.

    `ImageError` for everything that is no usable image. Call it inside `quiet_pillow`.
    """
    with opened(data, limits) as image:
        return _decoded(image, data, limits)


@contextmanager
def opened(data: bytes, limits: ImagesConfig) -> Iterator[Image.Image]:
    """Open an image file that claims no more than the limits; whatever is raised within is an `ImageError`."""
    if not data:
        raise ImageError("empty")
    try:
        with Image.open(io.BytesIO(data), formats=formats()) as image:
            if math.prod(image.size) > limits.max_file_pixels:
                raise ImageError("too_large")
            yield image
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        heic = data[4:8] == b"ftyp" and data[8:12] in _HEIC_BRANDS and not heif_is_installed()
        raise ImageError("heic" if heic else "not_an_image") from error
    except Image.DecompressionBombError as error:
        raise ImageError("too_large") from error
    except Exception as error:  # a damaged file makes Pillow's parsers raise anything: SyntaxError, IndexError, ...
        raise ImageError("broken") from error


def shrink(image: Image.Image, limits: ImagesConfig, size: tuple[int, int] | None = None) -> Image.Image:
    """Return the image at the size that its full ``size`` has within the budget."""
    target = target_size(size or image.size, limits)
    # First reduced by whole factors to three times the target: much faster, and hardly to be told apart.
    return image if image.size == target else image.resize(target, Image.Resampling.LANCZOS, reducing_gap=3.0)


def target_size(size: tuple[int, int], limits: ImagesConfig) -> tuple[int, int]:
    """Return the largest size of about the same shape within `max_pixels` and `max_side`."""
    scale = min(math.sqrt(limits.max_pixels / math.prod(size)), limits.max_side / max(size))
    if scale >= 1:
        return size
    # Rounded down, but not for the last bit of a float; a side of at least 1 may lead above the budget again.
    width, height = (max(1, int(side * scale + 1e-9)) for side in size)
    width = min(width, limits.max_pixels)
    return width, min(height, limits.max_pixels // width)


def flat(image: Image.Image) -> Image.Image:
    """Return a loaded RGB copy; what is transparent becomes white, 16 bits become 8."""
    image.load()
    if image.mode.startswith("I"):  # Pillow would clip: all but the darkest 256 of 65,536 levels become white
        return Image.fromarray((np.asarray(image).clip(0, 65_535) // 256).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        colours = image.convert("RGBA")
        white = Image.new("RGBA", colours.size, "white")
        return Image.alpha_composite(white, colours).convert("RGB")
    return image.convert("RGB")


def encode(image: Image.Image, kind: str) -> bytes:
    """Return the bytes of a JPEG (quality 95) or PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return buffer.getvalue()


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Silence Pillow's remarks on damaged and on large files: both are counted by reason. Enter it in one thread."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def _decoded(image: Image.Image, data: bytes, limits: ImagesConfig) -> Decoded:
    kind = "JPEG" if image.format == "MPO" else image.format or ""  # MPO: a phone's JPEG with extras
    orientation = _orientation(image)
    animated = kind != "JPEG" and bool(getattr(image, "is_animated", False))
    plain = kind in EXTENSIONS and image.mode == "RGB" and orientation == 1 and not animated
    # Byte 24 of a PNG is its depth, which Pillow does not tell: it opens 48-bit colour as RGB.
    plain = plain and not image.has_transparency_data and not (kind == "PNG" and data[24] == 16)
    # Orientations 5 to 8 are the ones that lie on their side.
    size = image.size if orientation < 5 else image.size[::-1]
    # A JPEG can be decoded at half, a quarter or an eighth of its size, which is far faster; resampling does the rest.
    image.draft(None, target_size(image.size, limits))
    upright = ImageOps.exif_transpose(image) if orientation != 1 else image
    return Decoded(shrink(flat(upright), limits, size), kind, size, animated, plain)


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # as above; an image with damaged metadata is still an image
        return 1
    return value if value in range(1, 9) else 1
