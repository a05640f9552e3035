"""Frames of videos and animations: which ones, upright, in bounded time; and what is no use."""

import io
import random
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from msr_adapter.config.schema import ImagesConfig
from msr_adapter.data.images import decode, video
from msr_adapter.data.images.decode import ImageError, quiet_pillow
from msr_adapter.data.images.frames import decode_all, suffix_of
from msr_adapter.data.images.video import container_of

FOUR = ImagesConfig(frames=4, max=4)
SIZE = (64, 48)


def filmed(path: Path, greys: list[int], codec: str = "libx264", **options: Any) -> bytes:
    """Write a video of 10 frames a second, each of one grey, with a key frame every 12; return its bytes."""
    with av.open(str(path), "w", options=options.pop("options", {})) as file:
        stream = file.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = *options.pop("size", SIZE), "yuv420p"
        stream.gop_size = options.pop("gop", 12)
        stream.sample_aspect_ratio = options.pop("shape", Fraction(1))
        for grey in greys:
            frame = av.VideoFrame.from_ndarray(np.full((stream.height, stream.width, 3), grey, np.uint8), "rgb24")
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path.read_bytes()


def voiced(path: Path) -> bytes:
    """Write a file of sound alone."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), "s16", "mono")
        frame.rate = 8000
        file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path.read_bytes()


def greys(data: bytes, limits: ImagesConfig = FOUR) -> list[float]:
    with quiet_pillow():
        return [float(np.asarray(one.image).mean()) for one in decode_all(data, limits)]


def fault(data: bytes, limits: ImagesConfig = FOUR) -> str:
    with quiet_pillow(), pytest.raises(ImageError) as raised:
        decode_all(data, limits)
    return raised.value.fault


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "libx264"), ("a.mov", "mpeg4"), ("a.mkv", "libx264"), ("a.webm", "libvpx-vp9"), ("a.avi", "mpeg4")],
)
def test_frames_are_those_in_the_middle_of_equal_parts(tmp_path: Path, name: str, codec: str) -> None:
    data = filmed(tmp_path / name, [number * 6 for number in range(40)], codec)
    found = decode_all(data, FOUR)
    assert [one.image.size for one in found] == [SIZE] * 4
    assert greys(data) == pytest.approx([5 * 6, 15 * 6, 25 * 6, 35 * 6], abs=3)
    assert greys(data, ImagesConfig(frames=1)) == pytest.approx([20 * 6], abs=3)
    assert [one.image.tobytes() for one in decode_all(data, FOUR)] == [one.image.tobytes() for one in found]


def test_a_short_video_gives_each_frame_once(tmp_path: Path) -> None:
    assert greys(filmed(tmp_path / "a.mp4", [10, 200])) == pytest.approx([10, 200], abs=3)
    assert greys(filmed(tmp_path / "b.mp4", [90])) == pytest.approx([90], abs=3)


def test_a_video_is_refused_without_the_key_and_found_with_it(tmp_path: Path) -> None:
    data = filmed(tmp_path / "a.mp4", [10] * 10)
    assert fault(data, ImagesConfig()) == "video"
    assert suffix_of(data, FOUR) == ".mp4"


def test_frames_fit_the_budget_and_say_so(tmp_path: Path) -> None:
    data = filmed(tmp_path / "a.mp4", [10] * 20, size=(160, 120))
    (one,) = decode_all(data, ImagesConfig(frames=1, max_side=40))
    assert (one.image.size, one.size, one.kind) == ((40, 30), (160, 120), "JPEG")
    assert fault(data, ImagesConfig(frames=1, max_file_pixels=10_000)) == "too_large"


def test_pixels_that_are_not_square_are_shown_as_a_player_shows_them(tmp_path: Path) -> None:
    (one,) = decode_all(filmed(tmp_path / "a.mp4", [10] * 4, shape=Fraction(2)), ImagesConfig(frames=1))
    assert one.image.size == (128, 48)


def test_a_phone_that_was_held_upright_gives_upright_frames(tmp_path: Path) -> None:
    """The track's matrix of an MP4 says how to turn it."""
    data = bytearray(filmed(tmp_path / "a.mp4", [10] * 4))
    upright = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    place = data.index(upright, data.index(b"tkhd"))
    data[place : place + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 48 << 16, 0, 1 << 30)
    (one,) = decode_all(bytes(data), ImagesConfig(frames=1))
    assert one.image.size == (48, 64)


def test_what_is_no_video_inside_is_named(tmp_path: Path) -> None:
    whole = filmed(tmp_path / "a.mp4", list(range(100)))
    assert fault(b"") == "empty"
    assert fault(whole[: len(whole) // 2]) == "broken"  # its index stands at the end
    assert fault(whole[:30]) in ("broken", "no_frames")
    assert fault(voiced(tmp_path / "sound.mp4")) == "no_frames"
    fast = filmed(tmp_path / "fast.mp4", list(range(200)), options={"movflags": "faststart"})
    assert fault(fast[: len(fast) * 6 // 10]) == "broken"
    cut = filmed(tmp_path / "cut.mkv", list(range(200)))
    assert fault(cut[: len(cut) * 6 // 10]) == "broken"


def test_a_long_video_is_searched_and_one_that_cannot_be_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = [number % 256 for number in range(3000)]
    searchable = filmed(tmp_path / "a.mp4", frames, size=(32, 32), gop=20)
    one_key_frame = filmed(tmp_path / "b.mp4", frames, size=(32, 32), gop=10_000, codec="mpeg4")
    # Four frames, each with its key frame's successors, and what the decoder holds back.
    monkeypatch.setattr(video, "_MOST_PIXELS", 4 * 40 * 32 * 32)
    assert len(decode_all(searchable, FOUR)) == 4
    assert fault(one_key_frame) == "too_long"


def test_a_playlist_that_calls_itself_a_video_opens_nothing(tmp_path: Path) -> None:
    (tmp_path / "secret.ts").write_bytes(b"secret")
    playlist = f"#EXTM3U\n#EXTINF:1,\n{tmp_path / 'secret.ts'}\n#EXT-X-ENDLIST\n".encode()
    assert container_of(playlist) is None
    assert fault(playlist) == "not_an_image"
    assert fault(b"\x00\x00\x00\x08ftypisom" + playlist) in ("broken", "no_frames")


def test_damaged_videos_are_faults_and_nothing_else(tmp_path: Path) -> None:
    draws = random.Random(3)
    for name, codec in (("a.mp4", "libx264"), ("a.webm", "libvpx-vp9"), ("a.avi", "mpeg4")):
        data = filmed(tmp_path / name, list(range(0, 240, 8)), codec)
        for _ in range(40):
            damaged = bytearray(data)
            for _ in range(draws.choice((1, 5, 50))):
                damaged[draws.randrange(len(damaged))] = draws.randrange(256)
            try:
                found = decode_all(bytes(damaged), FOUR)
            except ImageError:
                continue
            assert 1 <= len(found) <= 4


def animated(kind: str, count: int) -> bytes:
    frames = [Image.new("RGB", (20, 10), (number * 8,) * 3) for number in range(count)]
    buffer = io.BytesIO()
    lossless = {"lossless": True} if kind == "WEBP" else {}
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:], duration=100, **lossless)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_frames_of_an_animation(kind: str) -> None:
    assert greys(animated(kind, 20)) == pytest.approx([2 * 8, 7 * 8, 12 * 8, 17 * 8], abs=1)
    assert greys(animated(kind, 3)) == pytest.approx([0, 8, 16], abs=1)
    assert greys(animated(kind, 20), ImagesConfig()) == pytest.approx([0], abs=1)


def test_an_animation_that_takes_too_much_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("msr_adapter.data.images.frames._MOST_PIXELS", 17 * 200)
    assert fault(animated("GIF", 20)) == "too_long"


def test_pages_are_no_frames() -> None:
    assert greys(animated("TIFF", 5)) == pytest.approx([0])


def test_avif_is_read() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), (200, 200, 200)).save(buffer, "AVIF")
    assert container_of(buffer.getvalue()) is None
    assert greys(buffer.getvalue()) == pytest.approx([200], abs=2)


def test_heic_is_read_with_its_extra_and_names_it_without(monkeypatch: pytest.MonkeyPatch) -> None:
    heif = pytest.importorskip("pillow_heif", reason="the extra heic is not installed")
    buffer = io.BytesIO()
    heif.from_pillow(Image.new("RGB", (64, 32), (200, 200, 200))).save(buffer, quality=90)
    with quiet_pillow():
        found = decode.decode(buffer.getvalue(), ImagesConfig())
    assert (found.image.size, found.kind) == ((64, 32), "HEIF")
    assert np.asarray(found.image).mean() == pytest.approx(200, abs=3)
    monkeypatch.setattr(decode, "heif_is_installed", lambda: False)
    monkeypatch.setattr(decode, "formats", lambda: ["JPEG", "PNG"])
    assert fault(buffer.getvalue()) == "heic"


def test_files_of_phones_are_found_by_name() -> None:
    assert {".heic", ".heif", ".avif"} <= set(decode.suffixes())
