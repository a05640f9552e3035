"""Videos and animations of items: found by name, stored frame by frame, reused, refused aloud."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from msr_adapter.config.schema import ImagesConfig
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.images import store as store_module
from msr_adapter.data.images.attach import attach_images
from msr_adapter.data.images.several import find_images
from msr_adapter.data.images.store import ImageStore, ItemImages, store_all
from msr_adapter.data.readers.reader import Corpus
from msr_adapter.errors import UserError
from msr_adapter.progress import Reporter
from msr_adapter.synthetic import Shopping, generate
from tests.data.images.test_frames import animated, filmed
from tests.support.data_builders import corpus_of

PLAIN = Corpus(corpus_of([]).interactions, None)
IDS = ["film", "gif", "picture"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    covers = tmp_path / "covers"
    covers.mkdir()
    filmed(covers / "film.mp4", [number * 6 for number in range(40)])
    (covers / "gif.gif").write_bytes(animated("GIF", 20))
    Image.new("RGB", (8, 8), "red").save(covers / "picture.png")
    filmed(covers / "picture.webm", [200] * 4, "libvpx-vp9")  # beside a picture of the same name, it is not used
    return tmp_path


def attached(folder: Path, **limits: Any) -> tuple[list[ItemImages], Audit]:
    audit, config = Audit(), ImagesConfig(folder=folder / "covers", **limits)
    images = attach_images(IDS, PLAIN, ImageStore(folder / "out", config), audit, Reporter(quiet=True))
    return images, audit


def test_frames_are_images_of_their_item(folder: Path) -> None:
    images, audit = attached(folder, frames=4, max=4)
    assert [len(one.all) for one in images] == [4, 4, 1]
    assert [one.fault for one in images] == [None] * 3
    assert audit.counts["images_frames"] == 8
    assert any("8 images are frames of videos or animations" in one["text"] for one in audit.findings)
    assert all((folder / "out" / str(image.path)).exists() for one in images for image in one.all)


def test_without_frames_a_video_is_told_what_it_takes(folder: Path) -> None:
    images, audit = attached(folder)
    assert [one.fault for one in images] == ["video", None, None]
    assert images[1].animated
    (warning,) = [one["text"] for one in audit.findings if one["severity"] == "warning"]
    assert "video: 1 ('film')" in warning
    assert "set data.images.frames" in warning
    with pytest.raises(UserError, match=r"film: image video.*Set data.images.frames|film: image video.*It is a video"):
        attached(folder, missing="error")


def test_frames_that_the_item_has_no_room_for_are_refused_by_the_config(folder: Path) -> None:
    with pytest.raises(ValueError, match="frames: 4 needs max: 4 or more"):
        ImagesConfig(frames=4, max=3)
    filmed(folder / "covers" / "film_2.mp4", [number * 6 + 3 for number in range(40)])
    images, _ = attached(folder, frames=3, max=4)
    assert (len(images[0].all), images[0].left_out) == (4, 2)


def test_a_damaged_film_beside_another_is_counted(folder: Path) -> None:
    (folder / "covers" / "film_2.mp4").write_bytes((folder / "covers" / "film.mp4").read_bytes()[:500])
    images, _ = attached(folder, frames=2, max=4)
    assert (len(images[0].all), images[0].refused) == (2, ("broken",))


def test_frames_are_reused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = ImagesConfig(folder=folder / "covers", frames=3, max=3)

    def stored(out: str) -> list[ItemImages]:
        store = ImageStore(folder / out, config, folder / "cache")
        return store_all(IDS, find_images(IDS, PLAIN, config), store, Reporter(quiet=True))

    first = stored("one")
    monkeypatch.setattr(store_module, "decode_all", None)  # nothing is decoded again
    assert stored("two") == first
    assert all((folder / "two" / str(image.path)).exists() for one in first for image in one.all)


@pytest.mark.parametrize(("most", "drawn"), [(1, 1), (2, 2), (3, 2)])
def test_synthetic_items_have_as_many_images_as_are_asked_for(tmp_path: Path, most: int, drawn: int) -> None:
    dataset = generate(5, 30, 4, 0.7, 3, Shopping(second_image=True))
    ids = dataset.items["item_id"].to_pylist()
    source, config = Corpus(PLAIN.interactions, None, dataset), ImagesConfig(max=most)
    images = attach_images(ids, source, ImageStore(tmp_path, config), Audit(), Reporter(quiet=True))
    assert {len(one.all) for one in images} == {drawn}
    with Image.open(tmp_path / str(images[3].all[-1].path)) as image:
        assert image.tobytes() == dataset.draw_all(ids[3])[drawn - 1].tobytes()
