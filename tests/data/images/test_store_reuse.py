"""The cache of the image store: nothing is decoded twice, and nothing stale or damaged is reused."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from msr_adapter.config.schema import ImagesConfig
from msr_adapter.data.images import store as store_module
from msr_adapter.data.images.locate import images_in
from msr_adapter.data.images.store import ImageStore, StoredImage, store_all
from msr_adapter.progress import Reporter
from tests.support.data_builders import build_in, random_rows, table_data

IDS = ["1", "2", "3"]


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Return the list of all bytes that are decoded from now on."""
    seen: list[bytes] = []
    decode_all = store_module.decode_all

    def watched(data: bytes, limits: ImagesConfig) -> object:
        seen.append(data)
        return decode_all(data, limits)

    monkeypatch.setattr(store_module, "decode_all", watched)
    return seen


def covers(folder: Path) -> Path:
    place = folder / "covers"
    place.mkdir()
    for size, name in ((100, "1.png"), (8, "2.png")):
        Image.new("RGB", (size, size), "red").save(place / name)
    (place / "3.png").write_text("no picture")
    return place


def store(folder: Path, out: str, **limits: int) -> list[StoredImage]:
    find = images_in(folder / "covers", IDS)
    config = ImagesConfig(**{"max_pixels": 1000, **limits})
    return store_all(IDS, find, ImageStore(folder / out, config, folder / "cache"), Reporter(quiet=True))


def test_only_what_failed_is_decoded_again(tmp_path: Path, decoded: list[bytes]) -> None:
    covers(tmp_path)
    first = store(tmp_path, "a")
    assert [one.change for one in first[:2]] == ["shrunk", "copied"]
    assert len(decoded) == 3
    second = store(tmp_path, "b")
    assert decoded[3:] == [b"no picture"]
    assert second == first
    for one in first[:2]:
        assert (tmp_path / "a" / str(one.path)).read_bytes() == (tmp_path / "b" / str(one.path)).read_bytes()


def touch(folder: Path) -> None:
    os.utime(folder / "covers" / "1.png", ns=(1, 1))


def replace(folder: Path) -> None:
    Image.new("RGB", (100, 100), "blue").save(folder / "covers" / "1.png")


def damage(folder: Path) -> None:
    for path in (folder / "cache" / "images").rglob("*.png"):
        path.unlink()
        path.write_bytes(b"damage")


def empty(folder: Path) -> None:
    for path in (folder / "cache" / "images").rglob("*.png"):
        path.unlink()


def forget(folder: Path) -> None:
    (folder / "cache" / "index.jsonl").unlink()


def halve(folder: Path) -> None:
    index = folder / "cache" / "index.jsonl"
    index.write_bytes(index.read_bytes()[:-20])


def nonsense(folder: Path) -> None:
    (folder / "cache" / "index.jsonl").write_bytes(b'\xff\n[]\n{"key": 1}\n{"key": "x", "path": 1, "more": 2}\nnull\n')


@pytest.mark.parametrize(
    ("change", "again"),
    [(touch, 1), (replace, 1), (damage, 2), (empty, 2), (forget, 2), (halve, 1), (nonsense, 2)],
)  # fmt: skip
def test_what_changed_or_got_lost_is_decoded_again(
    tmp_path: Path, decoded: list[bytes], change: Callable[[Path], None], again: int
) -> None:
    covers(tmp_path)
    store(tmp_path, "a")
    change(tmp_path)
    del decoded[:]
    second = store(tmp_path, "b")
    assert len(decoded) == again + 1
    assert [one.fault for one in second] == [None, None, "not_an_image"]
    for one in second[:2]:
        with Image.open(tmp_path / "b" / str(one.path)) as image:
            image.load()
    del decoded[:]
    assert store(tmp_path, "c") == second
    assert len(decoded) == 1


def test_other_limits_are_other_images(tmp_path: Path, decoded: list[bytes]) -> None:
    covers(tmp_path)
    first, second = store(tmp_path, "a"), store(tmp_path, "b", max_pixels=900)
    assert first[0].digest != second[0].digest
    assert store(tmp_path, "c", max_file_pixels=800)[0].fault == "too_large"


def test_without_hard_links_files_are_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoded: list[bytes]
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    covers(tmp_path)
    assert store(tmp_path, "a") == store(tmp_path, "b")
    assert len(decoded) == 4  # the one that is no picture twice


def test_the_stage_hands_its_cache_on(tmp_path: Path, decoded: list[bytes]) -> None:
    place = tmp_path / "covers"
    place.mkdir()
    for n in range(12):
        Image.new("RGB", (50, 50), (n, 0, 0)).save(place / f"i{n:03}.png")
    config = ImagesConfig(folder=place, max_pixels=1000)
    data = table_data(tmp_path, random_rows(30, 12, 4), images=config)
    one = build_in(tmp_path / "1", data, image_cache=tmp_path / "cache")
    assert len(decoded) == 12
    two = build_in(tmp_path / "2", data, image_cache=tmp_path / "cache")
    assert len(decoded) == 12
    assert one.rows("items") == two.rows("items")
    assert one.counts == two.counts
