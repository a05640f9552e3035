"""Images: what is copied, re-encoded and shrunk; every unusable file has its reason and its policy."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from msr_adapter.config.schema import ImagesConfig
from msr_adapter.data.images.decode import target_size
from msr_adapter.data.images.locate import images_in
from msr_adapter.data.images.store import ImageStore, StoredImage, image_counts, store_all, store_placeholder
from msr_adapter.errors import UserError
from msr_adapter.files import file_digest
from msr_adapter.progress import Reporter
from tests.support.data_builders import Built, build_in, random_rows, table_data

BUDGET = 10_000


def picture(width: int = 40, height: int = 30, mode: str = "RGB") -> Image.Image:
    """Left half red, right half blue."""
    image = Image.new("RGB", (width, height), (255, 0, 0))
    image.paste((0, 0, 255), (width // 2, 0, width, height))
    return image.convert(mode)


def store(folder: Path, *ids: str, budget: int = BUDGET) -> list[StoredImage]:
    images = ImageStore(folder / "out", ImagesConfig(max_pixels=budget))
    return store_all(ids, images_in(folder, ids), images, Reporter(quiet=True))


def opened(folder: Path, stored: StoredImage) -> Image.Image:
    assert stored.path is not None
    with Image.open(folder / "out" / stored.path) as image:
        image.load()
        return image.copy()


@pytest.mark.parametrize(("suffix", "kind"), [("jpg", "JPEG"), ("jpeg", "JPEG"), ("png", "PNG"), ("webp", "WEBP")])
def test_a_plain_image_is_copied_byte_for_byte(tmp_path: Path, suffix: str, kind: str) -> None:
    path = tmp_path / f"1.{suffix}"
    picture().save(path, kind)
    [stored] = store(tmp_path, "1")
    copy = tmp_path / "out" / str(stored.path)
    assert stored.change == "copied"
    assert copy.read_bytes() == path.read_bytes()
    assert stored.digest == file_digest(copy) == copy.stem
    assert stored.path == f"images/{copy.stem[:2]}/{copy.name}"


def test_the_real_format_counts_not_the_suffix(tmp_path: Path) -> None:
    picture().save(tmp_path / "1.jpg", "PNG")
    picture().save(tmp_path / "2.png", "GIF")
    one, two = store(tmp_path, "1", "2")
    assert (one.change, Path(str(one.path)).suffix) == ("copied", ".png")
    assert (two.change, opened(tmp_path, two).mode) == ("encoded", "RGB")


def test_transparency_becomes_white(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "1.png")
    half = Image.new("LA", (4, 4), (0, 128))
    half.save(tmp_path / "2.png")
    clear, grey = store(tmp_path, "1", "2")
    assert opened(tmp_path, clear).getpixel((0, 0)) == (255, 255, 255)
    assert opened(tmp_path, grey).getpixel((0, 0)) == (127, 127, 127)


@pytest.mark.parametrize("mode", ["L", "P", "1", "CMYK"])
def test_other_colour_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    suffix = "jpg" if mode == "CMYK" else "png"
    picture(mode=mode).save(tmp_path / f"1.{suffix}")
    [stored] = store(tmp_path, "1")
    assert opened(tmp_path, stored).mode == "RGB"
    assert stored.change == "encoded"


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture(40, 30).save(tmp_path / "1.jpg", exif=exif, quality=95)
    [stored] = store(tmp_path, "1")
    upright = opened(tmp_path, stored)
    # Red stands left in the file: upright it is left, right, top or bottom.
    red_at = {1: (5, 15), 3: (35, 15), 6: (15, 5), 8: (15, 35)}[orientation]
    assert upright.size == ((40, 30) if orientation < 5 else (30, 40))
    pixel = upright.getpixel(red_at)
    assert isinstance(pixel, tuple)
    assert pixel[0] > 200
    assert pixel[2] < 60
    assert upright.getexif().get(0x0112, 1) == 1
    assert stored.change == ("copied" if orientation == 1 else "encoded")


@pytest.mark.parametrize(("suffix", "size"), [("jpg", (800, 400)), ("png", (400, 800)), ("webp", (101, 100))])
def test_large_images_are_shrunk_in_shape(tmp_path: Path, suffix: str, size: tuple[int, int]) -> None:
    picture(*size).save(tmp_path / f"1.{suffix}")
    [stored] = store(tmp_path, "1")
    small = opened(tmp_path, stored)
    assert stored.change == "shrunk"
    assert 0.9 * BUDGET < small.width * small.height <= BUDGET
    assert small.width / small.height == pytest.approx(size[0] / size[1], rel=0.02)
    colours = np.asarray(small.convert("RGB"))
    assert colours[5, 5, 0] > 240
    assert colours[5, -5, 2] > 240


def test_a_large_jpeg_gets_the_size_of_its_true_shape(tmp_path: Path) -> None:
    """It is decoded at a fraction of its size first; rounding there must not show."""
    picture(900, 333).save(tmp_path / "1.jpg")
    [stored] = store(tmp_path, "1", budget=3000)
    assert opened(tmp_path, stored).size == (90, 33)


def test_of_an_animation_the_first_frame_is_kept(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "1.webp", save_all=True, append_images=frames[1:], lossless=True)
    [stored] = store(tmp_path, "1")
    assert stored.change == "encoded"
    assert opened(tmp_path, stored).getpixel((4, 4)) == (255, 0, 0)


@settings(deadline=None)
@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(784, 600_000))
def test_the_target_size_is_within_the_budget_and_tight(width: int, height: int, budget: int) -> None:
    new = target_size((width, height), ImagesConfig(max_pixels=budget, max_side=5000))
    assert 1 <= new[0] * new[1] <= max(budget, 1)
    if width * height <= budget:
        assert new == (width, height)
    else:
        assert (new[0] + 1) * (new[1] + 1) > budget * 0.99 or min(new) == 1


def test_an_extreme_strip_stays_within_the_budget() -> None:
    limits = ImagesConfig(max_pixels=784)
    assert target_size((1, 10_000_000), limits) == (1, 784)
    assert target_size((10_000_000, 1), limits) == (784, 1)


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(28, 3000))
def test_no_side_is_longer_than_asked_for(width: int, height: int, side: int) -> None:
    new = target_size((width, height), ImagesConfig(max_pixels=25_000_000, max_side=side))
    assert min(new) >= 1
    assert max(new) == min(side, max(width, height))
    assert abs(new[0] * height - new[1] * width) <= max(width, height) * (1 + 1e-6)


def damage(folder: Path) -> list[str]:
    """Write one file of each kind of damage and return the item ids in the order of `REASONS`."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 60, 3), dtype=np.uint8))
    for kind, suffix in (("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp")):
        buffer = io.BytesIO()
        noise.save(buffer, kind)
        (folder / f"cut-{suffix}.{suffix}").write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    (folder / "zero.jpg").touch()
    (folder / "text.jpg").write_text("this is not a picture")
    (folder / "folder.jpg").mkdir()
    return ["cut-jpg", "cut-png", "cut-webp", "zero", "text", "folder", "nowhere", "../secret", "/etc/passwd", ""]


REASONS = ["broken", "broken", "broken", "empty", "not_an_image", *["absent"] * 5]


def test_every_kind_of_damage_has_its_reason(tmp_path: Path) -> None:
    covers = tmp_path / "covers"
    covers.mkdir()
    picture().save(tmp_path / "secret.jpg")
    results = store(covers, *damage(covers))
    assert [one.fault for one in results] == REASONS
    assert all(one.path is None and one.digest is None for one in results)
    assert not (covers / "out").exists()


def test_a_decompression_bomb_is_not_opened(tmp_path: Path) -> None:
    Image.new("1", (10_000, 9_000)).save(tmp_path / "warned.png")
    Image.new("1", (20_000, 10_000)).save(tmp_path / "refused.png")
    assert [one.fault for one in store(tmp_path, "warned", "refused")] == ["too_large", "too_large"]


def test_an_unreadable_file_is_no_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture().save(tmp_path / "1.png")

    def refuse(*_: object) -> int:
        raise PermissionError("no")

    monkeypatch.setattr(os, "open", refuse)
    assert [one.fault for one in store(tmp_path, "1")] == ["unreadable"]


def test_the_first_suffix_wins_and_capitals_are_fine(tmp_path: Path) -> None:
    picture(20, 20).save(tmp_path / "1.png")
    picture(30, 20).save(tmp_path / "1.jpg")
    picture(10, 20).save(tmp_path / "2.JPG", "JPEG")
    picture(10, 10).save(tmp_path / "a.b.png")
    assert [opened(tmp_path, one).width for one in store(tmp_path, "1", "2", "a.b")] == [30, 10, 10]


def test_equal_images_share_one_file(tmp_path: Path) -> None:
    for name in "123":
        picture().save(tmp_path / f"{name}.png")
    results = store(tmp_path, "1", "2", "3")
    assert len({one.path for one in results}) == 1
    assert image_counts(results) == {"images_copied": 3, "image_files": 1}


def test_the_placeholder_is_grey_and_within_the_budget(tmp_path: Path) -> None:
    stored = store_placeholder(ImageStore(tmp_path / "out", ImagesConfig(max_pixels=784)))
    assert opened(tmp_path, stored).size == (28, 28)
    assert opened(tmp_path, stored).getpixel((3, 3)) == (128, 128, 128)


def with_images(folder: Path, policy: str) -> Built:
    """Build a log of 12 items of which i000 has an image, i001 a text file and the others nothing."""
    covers = folder / "covers"
    covers.mkdir(parents=True)
    picture().save(covers / "i000.jpg")
    (covers / "i001.jpg").write_text("oops")
    images = ImagesConfig.model_validate({"folder": covers, "missing": policy, "max_pixels": 784})
    return build_in(folder, table_data(folder, random_rows(30, 12, 4), images=images))


def test_policy_text_only(tmp_path: Path) -> None:
    built = with_images(tmp_path, "text-only")
    first, *others = built.rows("items")
    assert first["image"].startswith("images/")
    assert all(row["image"] is None and row["image_digest"] is None for row in others)
    assert built.counts["images_missing_absent"] == 10
    assert built.counts["images_missing_not_an_image"] == 1
    assert built.counts["items_text_only"] == 11
    said = " ".join(finding["text"] for finding in built.audit["findings"])
    assert "11 of 12 items have no usable image (absent: 10 (such as 'i002'), not_an_image: 1 ('i001'))" in said
    assert built.audit["named"]["images_missing_not_an_image"] == ["i001"]
    assert built.audit["named"]["images_missing_absent"] == [f"i{number:03}" for number in range(2, 12)]


def test_policy_placeholder(tmp_path: Path) -> None:
    built = with_images(tmp_path, "placeholder")
    first, *others = built.rows("items")
    assert len({row["image"] for row in others}) == 1
    assert others[0]["image"] != first["image"]
    assert file_digest(built.out / others[0]["image"]) == others[0]["image_digest"]
    assert built.counts["items_placeholder"] == 11


def test_policy_error_lists_each_item(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        with_images(tmp_path, "error")
    assert len(caught.value.problems) == 11
    assert str(caught.value.problems[0]) == (
        f"{tmp_path / 'covers'} i001: image not an image; data.images.missing: error wants an image for every item. "
        "Add the file, or set data.images.missing to text-only or placeholder"
    )


def test_the_audit_names_the_one_damaged_image_and_the_one_empty_title(tmp_path: Path) -> None:
    covers, rows = tmp_path / "covers", random_rows(60, 40, 4)
    covers.mkdir()
    for number in range(40):
        Image.new("RGB", (8, 8), (number, 40, 90)).save(covers / f"i{number:03}.png")
    (covers / "i007.png").write_bytes((covers / "i008.png").read_bytes()[:-30])
    titles = {f"i{number:03}": "" if number in (7, 9) else f"Title {number}" for number in range(40)}
    data = table_data(
        tmp_path, [*rows, ("u000", "gone", 1), ("new", "i001", 1)], titles, images=ImagesConfig(folder=covers)
    )
    audit = build_in(tmp_path, data).audit
    assert audit["named"] == {
        "images_missing_broken": ["i007"],
        "items_dropped_unknown_item": ["gone"],
        "items_with_nothing_to_show": ["i007"],
        "titles_empty": ["i007", "i009"],
        "users_without_example": ["new"],
    }
    said = " ".join(finding["text"] for finding in audit["findings"])
    assert (
        "1 of 40 items have no usable image (broken: 1 ('i007')) and are text only. broken: the file does not" in said
    )
    assert "1 of 40 items have an image but no title ('i009')." in said
    assert "1 of 40 items have neither a title nor an image ('i007'):" in said
