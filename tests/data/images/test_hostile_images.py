"""Hostile images and paths of images: refused or made plain; never a crash, never a read outside the folder."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from msr_adapter.config.schema import (
    DataConfig,
    ImagesConfig,
    TableSourceConfig,
)
from msr_adapter.data.images.decode import ImageError, decode, quiet_pillow
from tests.support.data_builders import Built, build_in, random_rows

CANARY = (255, 0, 255)
"""The colour of the image that nothing may read."""


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *more: bytes) -> bytes:
    """Return a PNG that claims a size and holds next to nothing."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + b"".join(more)
        + chunk(b"IDAT", zlib.compress(b"\0" * 100))
        + chunk(b"IEND", b"")
    )


def gradient(dtype: type, *shape: int) -> Any:
    return np.linspace(0, np.iinfo(dtype).max, int(np.prod(shape))).reshape(shape).astype(dtype)


def build_log(folder: Path, named: dict[str, str | bytes | None], config: ImagesConfig) -> Built:
    """Build a log in which every id of ``named`` is an item, and says what its image is."""
    ids = list(named)
    rows = [(user, ids[int(item[1:])], time) for user, item, time in random_rows(30, len(ids), 4)]
    folder.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(rows, schema=["user", "item", "timestamp"], orient="row").write_parquet(folder / "log.parquet")
    items = pl.DataFrame({"item": ids, "title": [""] * len(ids), "image": list(named.values())})
    items.write_parquet(folder / "items.parquet")
    source = TableSourceConfig(kind="table", interactions=folder / "log.parquet", items=folder / "items.parquet")
    return build_in(folder / "build", DataConfig(source=source, images=config))


def assert_no_canary(built: Built, secret: bytes) -> None:
    files = [path for path in built.out.rglob("*") if path.is_file()]
    assert files
    for path in files:
        data = path.read_bytes()
        assert secret not in data
        if path.suffix in (".png", ".jpg", ".webp"):
            with Image.open(path) as image:
                assert CANARY not in [colour for _, colour in image.convert("RGB").getcolors(2**24) or []]


def hideout(folder: Path) -> tuple[Path, bytes]:
    """Return a folder of images, and the bytes of the image that lies outside it under many names."""
    secret = saved(Image.new("RGB", (9, 9), CANARY), "PNG")
    images = folder / "images"
    (images / "deep").mkdir(parents=True)
    (folder / "etc").mkdir()
    for place in ("secret.png", "etc/passwd", "etc/passwd.png", "secret", "..png"):
        (folder / place).write_bytes(secret)
    (images / "link.png").symlink_to(folder / "secret.png")
    (images / "deep" / "up").symlink_to("../..")
    (images / "deep" / "chain.png").symlink_to("../link.png")
    return images, secret


HOSTILE_IDS = ["../../etc/passwd", "../etc/passwd", "../secret", "../secret.png", "/etc/passwd", "..", ".", "link",
               "chain", "deep/up/secret", "a\0../secret", "~/secret", "%2e%2e/secret", "..\\secret", "|id", "$(id)",
               "-rf", "x" * 5000, "\u202egnp", "con", "é/../secret"]  # fmt: skip


def test_an_item_id_is_no_path(tmp_path: Path) -> None:
    images, secret = hideout(tmp_path)
    (images / "-rf.png").write_bytes(saved(Image.new("RGB", (9, 9), "green"), "PNG"))
    built = build_log(tmp_path / "b", dict.fromkeys(HOSTILE_IDS), ImagesConfig(folder=images))
    assert_no_canary(built, secret)
    assert {row["item_id"] for row in built.rows("items")} == set(HOSTILE_IDS)
    assert [row["item_id"] for row in built.rows("items") if row["image"]] == ["-rf"]
    assert built.counts["images_missing_outside"] == 2
    assert built.counts["images_missing_absent"] == len(HOSTILE_IDS) - 3


def test_an_image_path_stays_in_the_folder(tmp_path: Path) -> None:
    images, secret = hideout(tmp_path)
    (images / "deep" / "fine.png").write_bytes(saved(Image.new("RGB", (9, 9), "green"), "PNG"))
    paths = ["../secret.png", "../../etc/passwd", str(tmp_path / "secret.png"), "link.png", "deep/chain.png",
             "deep/up/secret.png", "deep/../../secret.png", "a\0.png", "file:///etc/passwd", "deep/fine.png", "deep",
             "", "x" * 5000, "..\\secret.png", "C:/secret.png"]  # fmt: skip
    named = {f"item{n}": path for n, path in enumerate(paths)}
    built = build_log(tmp_path / "b", dict(named), ImagesConfig(folder=images))
    assert_no_canary(built, secret)
    assert [row["item_id"] for row in built.rows("items") if row["image"]] == ["item9"]
    missing = {name: n for name, n in built.counts.items() if name.startswith("images_missing")}
    assert missing == {"images_missing_outside": 10, "images_missing_absent": 3, "images_missing_not_fetched": 1}
    assert "outside: they name or link to a file outside data.images.folder" in str(built.audit["findings"])


SIDEWAYS = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
"""Orientation 6."""


IMAGES = {
    "bomb": png(50_000, 50_000),
    "wide": png(2**31 - 1, 1),
    "svg": b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) run\n",
    "html": b"<html><script>alert(1)</script></html>",
    "cut": saved(Image.effect_noise((90, 90), 50).convert("RGB"), "PNG")[:900],
    "text": b"\xff\xfe\x00",
    "empty": b"",
    "gif": saved(Image.new("RGB", (9, 9), "red"), "GIF", save_all=True, append_images=[Image.new("RGB", (9, 9))]),
    "cmyk": saved(Image.new("CMYK", (64, 64), (0, 255, 255, 0)), "JPEG", quality=95),
    "grey16": saved(Image.fromarray(gradient(np.uint16, 16, 16)), "PNG"),
    "orient": saved(Image.new("RGB", (9, 4), "red"), "JPEG", exif=SIDEWAYS),
}  # fmt: skip


@pytest.mark.parametrize("as_bytes", [True, False])
def test_hostile_images_are_refused_or_made_plain(tmp_path: Path, as_bytes: bool) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for name, data in IMAGES.items():
        (images / f"{name}.jpg").write_bytes(data)
    config = ImagesConfig() if as_bytes else ImagesConfig(folder=images)
    built = build_log(tmp_path / "b", {name: data if as_bytes else None for name, data in IMAGES.items()}, config)
    stored = {row["item_id"]: row["image"] for row in built.rows("items")}
    assert {item for item, path in stored.items() if path} == {"gif", "cmyk", "grey16", "orient"}
    empty = "images_missing_absent" if as_bytes else "images_missing_empty"
    missing = {name: n for name, n in built.counts.items() if name.startswith("images_missing")}
    assert missing == {
        "images_missing_too_large": 2,
        "images_missing_not_an_image": 4,
        "images_missing_broken": 1,
        empty: 1,
    }
    assert built.counts["images_first_frame"] == 1
    assert built.counts["items_text_only"] == 8
    pictures = {}
    for item, path in stored.items():
        if path:
            with Image.open(built.out / path) as image:
                assert image.mode == "RGB"
                pictures[item] = np.asarray(image)
    red = pictures["cmyk"][30, 30]
    assert red[0] > 200
    assert max(red[1:]) < 60
    assert np.array_equal(pictures["grey16"][..., 0], gradient(np.uint16, 16, 16) // 256)
    assert pictures["gif"][4, 4].tolist() == [255, 0, 0]
    assert pictures["orient"].shape == (9, 4, 3)


def test_sixteen_bit_colours_are_stored_with_eight(tmp_path: Path) -> None:
    rgb = gradient(np.uint16, 4, 4, 3).astype(">u2")
    rows = b"".join(b"\0" + rgb[y].tobytes() for y in range(4))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    found = decode(data, ImagesConfig())
    assert not found.plain
    assert np.abs(np.asarray(found.image).astype(int) - rgb.astype(int) // 256).max() <= 1


def test_a_bomb_is_refused_from_its_header(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pixel is decoded: the decoder that must not run is taken away."""
    monkeypatch.setattr(Image.Image, "load", None)
    for data in (IMAGES["bomb"], png(8_001, 8_000), png(60_000, 60_000)):
        with pytest.raises(ImageError, match="too_large"), quiet_pillow():
            decode(data, ImagesConfig())
    monkeypatch.undo()
    with pytest.raises(ImageError, match="broken"):
        decode(png(100, 100), ImagesConfig())


def test_a_bomb_in_the_metadata_of_an_image() -> None:
    packed = zlib.compress(b"A" * 80 * 2**20)
    text = chunk(b"zTXt", b"Comment\0\0" + packed)
    profile = chunk(b"iCCP", b"icc\0\0" + packed)
    for more in (text, profile):
        with pytest.raises(ImageError, match="broken"), quiet_pillow():
            decode(png(10, 10, more), ImagesConfig())


def is_judged(data: bytes) -> bool:
    """Say whether bytes give a plain image or a reason why not; any other exception is a crash."""
    with quiet_pillow():
        try:
            return decode(data, ImagesConfig(max_file_pixels=10_000)).image.mode == "RGB"
        except ImageError as error:
            return error.fault in ("empty", "not_an_image", "broken", "too_large")


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(IMAGES)), st.data())
def test_damage_anywhere_gives_an_image_or_a_reason(name: str, data: st.DataObject) -> None:
    damaged = bytearray(IMAGES[name])
    for place in data.draw(st.lists(st.integers(0, max(0, len(damaged) - 1)), max_size=8)):
        if damaged:
            damaged[place] = data.draw(st.integers(0, 255))
    assert is_judged(bytes(damaged))


@settings(max_examples=200)
@given(st.binary(max_size=400))
def test_noise_is_no_image_that_breaks_anything(data: bytes) -> None:
    assert is_judged(data)
