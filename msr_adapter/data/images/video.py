"""Frames of a video: evenly spaced, found by seeking, so that a long video costs no more than a short one.

A frame is the one that is on show at a moment, as a player would have it. The demuxer is chosen by the file's first
bytes and never guessed by the library: playlists and such, which name other files and addresses, are opened by none.
"""

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from typing import TYPE_CHECKING, Literal

from PIL import Image

from msr_adapter.config.schema import ImagesConfig
from msr_adapter.data.images.decode import Decoded, ImageError, shrink

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

Container = Literal["mov", "matroska", "avi"]
"""Names of ffmpeg's demuxers: QuickTime and MP4, Matroska and WebM, AVI."""

_MOST_PIXELS = 16_000_000_000
"""Decoded of one file for all its frames: about a minute on one core. Files with key frames need far less."""
_MILLION = 1_000_000
"""Of its parts in a second, ffmpeg counts a file's length."""
_MOSTLY = Fraction(9, 10)
"""Of its length, what a file must have: one that was cut off on its way has less."""
_STILL_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"crx ")
"""Images in the container of MP4."""
_QUICKTIME = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")


def container_of(data: bytes) -> Container | None:
    """Return what a file's first bytes say that it is; None = no video."""
    if data[4:8] in _QUICKTIME and data[8:12] not in _STILL_BRANDS:
        return "mov"
    if data[:4] == b"\x1a\x45\xdf\xa3":
        return "matroska"
    return "avi" if data[:4] == b"RIFF" and data[8:12] == b"AVI " else None


def video_frames(data: bytes, container: Container, count: int, limits: ImagesConfig) -> list[Decoded]:
    """Return the frames in the middle of ``count`` equally long parts of a video, upright, RGB, within the budget.

    A frame that is on show at several of these moments comes once. Each is decoded from the key frame before it.
    `ImageError`: `no_frames` (sound alone, or nothing), `too_large` (frames above `max_file_pixels`), `too_long` (too
    much lies between key frames), `broken`.
    """
    with _opened(data, container) as file:
        stream = _picture(file, limits)
        start, end = _span(stream, data, container)
        moments = [start + (end - start) * Fraction(2 * number + 1, 2 * count) for number in range(count)]
        budget = _Budget(_MOST_PIXELS)
        found: dict[int, Decoded] = {}
        for moment in moments:
            frame = _on_show(file, stream, moment, budget)
            assert frame.pts is not None
            if frame.pts not in found:
                image = _upright(frame, stream)
                # What was filmed is a photograph: stored as such, in a quarter of the bytes of a PNG.
                found[frame.pts] = Decoded(shrink(image, limits), "JPEG", image.size, False, False, frame=True)
    return list(found.values())


class _Budget:
    """What may still be decoded of a file."""

    def __init__(self, pixels: int) -> None:
        self.left = pixels

    def spend(self, frame: "VideoFrame") -> None:
        """Count a frame; `ImageError` when that was too much."""
        self.left -= frame.width * frame.height
        if self.left < 0:
            raise ImageError("too_long")


@contextmanager
def _opened(data: bytes, container: Container) -> Iterator["InputContainer"]:
    """Open a video in memory; whatever its parsers raise is an `ImageError`."""
    import av

    try:
        # Without protocols, nothing that the file names can be opened.
        with av.open(io.BytesIO(data), "r", format=container, options={"protocol_whitelist": "none"}) as file:
            yield file
    except ImageError:
        raise
    except (av.error.FFmpegError, ValueError, OSError, OverflowError, MemoryError) as error:
        raise ImageError("broken") from error


def _picture(file: "InputContainer", limits: ImagesConfig) -> "VideoStream":
    """Return the first stream that moves; the picture of an album's cover is none."""
    import av

    for stream in file.streams.video:
        if stream.disposition & av.stream.Disposition.attached_pic:
            continue
        codec = stream.codec_context
        if codec is None:  # a codec that the library cannot decode
            raise ImageError("broken")
        if codec.width * codec.height > limits.max_file_pixels:
            raise ImageError("too_large")
        # Frames may be larger than the file says.
        codec.options = {"max_pixels": str(limits.max_file_pixels)}
        codec.thread_count = 1  # each file has a thread of its own
        return stream
    raise ImageError("no_frames")


def _span(stream: "VideoStream", data: bytes, container: Container) -> tuple[Fraction, Fraction]:
    """Return when the pictures begin and end, in seconds; `ImageError` where the file ends long before it says so.

    By their packets, which are read and not decoded: a header may tell the sound's length, a wrong one or, as of what
    browsers record, none.
    """
    bounds: list[int] = []
    latest = Fraction(0)
    with _opened(data, container) as file:
        for packet in file.demux():
            if packet.is_corrupt:
                raise ImageError("broken")
            if packet.pts is None or packet.stream is None or not packet.stream.time_base:
                continue
            end = packet.pts + (packet.duration or 1)
            latest = max(latest, end * packet.stream.time_base)
            if packet.stream.index == stream.index:
                bounds = [min(bounds[0], packet.pts), max(bounds[1], end)] if bounds else [packet.pts, end]
        claimed = Fraction(file.duration or 0, _MILLION)
    if not bounds:
        raise ImageError("no_frames")
    if latest < claimed * _MOSTLY:
        raise ImageError("broken")
    base = _time_base(stream)
    return bounds[0] * base, bounds[1] * base


def _on_show(file: "InputContainer", stream: "VideoStream", moment: Fraction, budget: _Budget) -> "VideoFrame":
    """Return the last frame that begins at ``moment`` or before it; of later ones only, the first."""
    import av

    wanted = math.floor(moment / _time_base(stream))
    # A file without an index cannot be searched in: it is decoded from its start.
    with suppress(av.error.PermissionError, av.error.OSError):
        file.seek(wanted, stream=stream, backward=True)
    best: VideoFrame | None = None
    for frame in file.decode(stream):
        if not isinstance(frame, av.VideoFrame) or frame.pts is None:
            continue
        budget.spend(frame)
        if best is not None and frame.pts > wanted:
            return _sound(best)
        best = frame
    if best is None:
        raise ImageError("no_frames")
    return _sound(best)


def _sound(frame: "VideoFrame") -> "VideoFrame":
    if frame.is_corrupt:
        raise ImageError("broken")
    return frame


def _time_base(stream: "VideoStream") -> Fraction:
    if not stream.time_base:
        raise ImageError("broken")
    return stream.time_base


def _upright(frame: "VideoFrame", stream: "VideoStream") -> Image.Image:
    """Return a frame as it is shown: turned as the camera was held, its pixels square."""
    image = Image.fromarray(frame.to_ndarray(format="rgb24"))
    shape = stream.sample_aspect_ratio
    if shape and shape != 1 and 0.1 < shape < 10:
        image = image.resize((max(1, round(image.width * shape)), image.height), Image.Resampling.BICUBIC)
    # The angle of the display matrix turns counterclockwise, as `rotate` does.
    return image.rotate(frame.rotation, expand=True) if frame.rotation else image
