"""The images that a file gives: one, or frames of a video or an animation."""

import importlib.metadata
import importlib.util
import math

from msr_adapter.config.schema import ImagesConfig
from msr_adapter.data.images.decode import Decoded, ImageError, decode, extension, flat, opened, shrink
from msr_adapter.data.images.video import Container, container_of, video_frames

_ANIMATIONS = ("AVIF", "FLI", "GIF", "PNG", "WEBP")
"""Formats whose several images follow each other; those of others are layers, pages or sizes."""
_MOST_PIXELS = 4_000_000_000
"""Decoded of an animation: a frame is drawn over all those before it."""
_SUFFIXES: dict[Container, str] = {"mov": ".mp4", "matroska": ".webm", "avi": ".avi"}


def decode_all(data: bytes, limits: ImagesConfig) -> list[Decoded]:
    """Return the images in a file's bytes, at least one: frames in their order where `frames` asks for them.

    Without it an animation gives its first frame, and a video is refused. `ImageError` for everything that gives no
    image. Call it inside `quiet_pillow`.
    """
    container = container_of(data)
    if container is not None:
        if limits.frames is None:
            raise ImageError("video")
        return video_frames(data, container, limits.frames, limits)
    first = decode(data, limits)
    if limits.frames is None or not first.animated or first.kind not in _ANIMATIONS:
        return [first]
    return _animation_frames(data, limits.frames, limits)


def decoder_versions() -> list[str]:
    """Return the versions of the libraries beside Pillow that decode, as far as they are installed."""
    return [
        f"{name} {importlib.metadata.version(name)}" for name in ("av", "pillow-heif")
        if importlib.util.find_spec(name.replace("-", "_")) is not None
    ]  # fmt: skip


def suffix_of(data: bytes, limits: ImagesConfig) -> str:
    """Return the suffix, with its dot, that a file of these bytes is to have; `ImageError` if it gives no image."""
    first = decode_all(data, limits)[0]
    container = container_of(data)
    return extension(first.kind) if container is None else _SUFFIXES[container]


def _animation_frames(data: bytes, count: int, limits: ImagesConfig) -> list[Decoded]:
    """Return the frames in the middle of ``count`` parts with as many frames each; all where there are no more."""
    with opened(data, limits) as image:
        frames = int(getattr(image, "n_frames", 1))
        places = sorted({(2 * number + 1) * frames // (2 * count) for number in range(count)})
        if (places[-1] + 1) * math.prod(image.size) > _MOST_PIXELS:
            raise ImageError("too_long")
        found = []
        for place in places:
            image.seek(place)
            frame = flat(image)
            found.append(Decoded(shrink(frame, limits), "PNG", frame.size, False, False, frame=True))
    return found
