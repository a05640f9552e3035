"""Where images come from: names, paths, URLs and bytes; and that nothing outside the folder is ever read."""

import io
import os
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from msr_adapter.config.schema import ImagesConfig
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.images.attach import attach_images
from msr_adapter.data.images.decode import ImageError, suffixes
from msr_adapter.data.images.locate import (
    DownloadedImage,
    image_finder,
    images_in,
    is_url,
    path_within,
    read_download_index,
    read_image,
    safe_name,
    write_download_index,
)
from msr_adapter.data.images.store import ImageStore, StoredImage
from msr_adapter.data.readers.reader import Corpus
from msr_adapter.errors import UserError
from msr_adapter.progress import Reporter
from tests.support.data_builders import corpus_of


def image_bytes(colour: str = "red", kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(buffer, kind)
    return buffer.getvalue()


def put(path: Path, colour: str = "red", kind: str = "PNG") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(image_bytes(colour, kind))
    return path


def corpus(**images: object) -> Corpus:
    """Return a corpus whose items name images."""
    items = pl.DataFrame({"item_id": list(images), "title": [""] * len(images), "image": list(images.values())})
    return Corpus(corpus_of([]).interactions, items)


def fault(corpus: Corpus, config: ImagesConfig, item: str) -> str:
    with pytest.raises(ImageError) as caught:
        image_finder([item], corpus, config)(item)
    return caught.value.fault


@pytest.mark.parametrize(
    "name", ["7.bmp", "7.GIF", "7.tiff", "7.avif", "deep/er/7.jp2", "010/7.jpeg", "7.ppm", "7.tga"]
)
def test_any_raster_image_is_found_at_any_depth(tmp_path: Path, name: str) -> None:
    put(tmp_path / name)
    assert images_in(tmp_path, ["7"])("7") == tmp_path / name


def test_pillow_formats_that_run_programs_are_not_looked_for() -> None:
    assert suffixes()[:4] == (".jpg", ".jpeg", ".png", ".webp")
    assert not {".eps", ".ps", ".wmf", ".svg", ".pdf", ".mpg"} & set(suffixes())


def test_the_usual_format_then_the_upper_folder_then_the_name_decide(tmp_path: Path) -> None:
    for name in ("1.gif", "b/1.jpg", "a/1.jpg", "2.png", "a/2.png", "a/0/3.png", "b/3.png"):
        put(tmp_path / name)
    find = images_in(tmp_path, ["1", "2", "3"])
    found = [find(item) for item in "123"]
    assert found == [tmp_path / "a/1.jpg", tmp_path / "2.png", tmp_path / "b/3.png"]


def test_linked_files_are_used_if_they_stay_inside(tmp_path: Path) -> None:
    folder = tmp_path / "covers"
    inside, secret = put(folder / "store/x.png"), put(tmp_path / "secret.png")
    (folder / "in.png").symlink_to("store/x.png")
    (folder / "out.png").symlink_to(secret)
    (folder / "chain.png").symlink_to("out.png")
    (folder / "loop").symlink_to(folder)
    (folder / "away").symlink_to(tmp_path)
    (folder / "dangling.png").symlink_to("nowhere.png")
    find = images_in(folder, ["in", "out", "chain", "secret", "dangling"])
    assert find("in") == inside
    faults = []
    for item in ("out", "chain", "secret", "dangling"):
        with pytest.raises(ImageError) as caught:
            find(item)
        faults.append(caught.value.fault)
    assert faults == ["outside", "outside", "absent", "absent"]


def test_the_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    put(tmp_path / "real/1.png")
    (tmp_path / "covers").symlink_to("real")
    assert images_in(tmp_path / "covers", ["1"])("1") == tmp_path / "real/1.png"


@pytest.mark.parametrize(
    "written",
    ["../secret.png", "a/../../secret.png", "a/../1.png", "/etc/passwd", "C:\\secret.png", "..\\secret.png",
     "\\\\host\\share\\1.png", "a\0b.png", "link/secret.png", "out.png"],
)  # fmt: skip
def test_no_path_leads_outside(tmp_path: Path, written: str) -> None:
    folder = tmp_path / "covers"
    put(tmp_path / "secret.png")
    put(folder / "1.png")
    (folder / "link").symlink_to(tmp_path)
    (folder / "out.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(ImageError, match="outside"):
        path_within(folder, written)
    assert fault(corpus(i=written), ImagesConfig(folder=folder), "i") == "outside"


@pytest.mark.parametrize("written", ["a/1.png", "./a//1.png", "a\\1.png", " a/1.png "])
def test_a_path_starts_from_the_folder(tmp_path: Path, written: str) -> None:
    put(tmp_path / "a/1.png")
    assert image_finder(["i"], corpus(i=written), ImagesConfig(folder=tmp_path))("i") == tmp_path / "a/1.png"


def test_a_path_without_a_folder_and_a_url_that_is_not_fetched(tmp_path: Path) -> None:
    assert fault(corpus(i="a/1.png"), ImagesConfig(), "i") == "no_folder"
    assert fault(corpus(i="https://shop.example/1.png"), ImagesConfig(), "i") == "not_fetched"
    assert fault(corpus(i="HTTP://shop.example/1.png"), ImagesConfig(folder=tmp_path), "i") == "not_fetched"
    assert fault(corpus(i="file:///etc/passwd"), ImagesConfig(folder=tmp_path), "i") == "not_fetched"


def test_what_is_a_url() -> None:
    assert all(map(is_url, ("https://a/b", " S3://a/b", "a://", "file:///etc/passwd")))
    assert not any(map(is_url, ("a/b.jpg", "c:\\b.jpg", "//host/b.jpg", "")))


def test_an_item_that_names_no_image_is_found_by_its_name(tmp_path: Path) -> None:
    put(tmp_path / "1.png")
    put(tmp_path / "2.png")
    find = image_finder(["1", "2", "3"], corpus(**{"1": None, "3": ""}), ImagesConfig(folder=tmp_path))
    assert [find("1"), find("2")] == [tmp_path / "1.png", tmp_path / "2.png"]
    with pytest.raises(ImageError, match="absent"):
        find("3")


def test_a_fetched_url_is_a_file_of_the_folder(tmp_path: Path) -> None:
    url = "https://shop.example/1.png"
    entries = [
        DownloadedImage("1", url, "1.png"), DownloadedImage("2", url + "?old", "2.png"),
        DownloadedImage("3", url, reason="http_404"), DownloadedImage("4", url, "../secret.png"),
    ]  # fmt: skip
    put(tmp_path / "1.png")
    put(tmp_path / "2.png")
    put(tmp_path / "5.png")
    write_download_index(tmp_path, {one.item_id: one for one in entries})
    named = corpus(**dict.fromkeys("12345", url))
    config = ImagesConfig(folder=tmp_path)
    assert image_finder("12345", named, config)("1") == tmp_path / "1.png"
    assert [fault(named, config, item) for item in "234"] == ["not_fetched", "not_fetched", "outside"]
    assert image_finder("5", named, config)("5") == tmp_path / "5.png"


def test_the_index_survives_what_a_killed_process_left(tmp_path: Path) -> None:
    one = DownloadedImage("é\n", "http://a/1", "_x.png", 3, "d")
    write_download_index(tmp_path, {one.item_id: one, "2": DownloadedImage("2", "http://a/2", reason="timeout")})
    with (tmp_path / "fetched.jsonl").open("ab") as file:
        file.write(b'{"item_id": "2", "url": "http://a/3", "file": "2.png"}\n{"item_id": "3", "ur\xff')
    index = read_download_index(tmp_path)
    assert index == {one.item_id: one, "2": DownloadedImage("2", "http://a/3", "2.png")}
    assert read_download_index(tmp_path / "nowhere") == {}


def test_names_of_files_are_safe() -> None:
    assert safe_name("B00-x_1.2") == "B00-x_1.2"
    bad = ["../../etc/passwd", "", ".", "..", ".hidden", "a/b", "a\0", "ä", "x" * 101, "a b", "con\n", "_a"]
    names = [safe_name(item) for item in bad]
    assert len(set(names)) == len(bad)
    assert all(name.startswith("_") and name[1:].isalnum() and len(name) == 33 for name in names)


def stored(folder: Path, corpus: Corpus, config: ImagesConfig) -> tuple[list[StoredImage], Audit]:
    audit = Audit()
    ids = [] if corpus.items is None else corpus.items["item_id"].to_list()
    return attach_images(ids, corpus, ImageStore(folder / "out", config), audit, Reporter(quiet=True)), audit


@pytest.mark.parametrize("wrap", [lambda data: data, lambda data: {"bytes": data, "path": "ignored.png"}])
def test_bytes_in_the_table_need_no_folder(tmp_path: Path, wrap: object) -> None:
    assert callable(wrap)
    named = corpus(a=wrap(image_bytes()), b=wrap(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), c=None)
    results, audit = stored(tmp_path, named, ImagesConfig())
    assert [one.fault for one in results] == [None, "not_an_image", "absent"]
    assert (tmp_path / "out" / str(results[0].path)).read_bytes() == image_bytes()
    assert audit.counts == {"images_copied": 1, "image_files": 1, "images_missing_not_an_image": 1,
                            "images_missing_absent": 1, "items_text_only": 2}  # fmt: skip


def test_a_struct_without_bytes_is_a_path(tmp_path: Path) -> None:
    path = put(tmp_path / "a/1.png")
    named = corpus(i={"bytes": None, "path": "a/1.png"})
    assert image_finder(["i"], named, ImagesConfig(folder=tmp_path))("i") == path


def test_the_audit_says_what_to_do(tmp_path: Path) -> None:
    named = corpus(a="http://shop.example/a.png", b="/etc/passwd", c="c.png")
    _, audit = stored(tmp_path, named, ImagesConfig())
    text = audit.findings[-1]["text"]
    assert text.startswith(
        "3 of 3 items have no usable image (no_folder: 2 (such as 'b'), not_fetched: 1 ('a')) and are text only."
    )
    assert "run `msr fetch-images` with this pipeline" in text
    _, audit = stored(tmp_path, named, ImagesConfig(folder=tmp_path))
    assert "outside: they name or link to a file outside data.images.folder" in audit.findings[-1]["text"]
    with pytest.raises(UserError, match=r"a: image not fetched; .* Run `msr fetch-images` with this pipeline"):
        stored(tmp_path, named, ImagesConfig(missing="error"))


def test_an_image_for_every_item_cannot_come_from_nowhere(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data.images.folder: not given, and no item names an image"):
        stored(tmp_path, corpus(a=None), ImagesConfig(missing="error"))


def test_only_regular_files_up_to_the_limit_are_read(tmp_path: Path) -> None:
    path = put(tmp_path / "1.png")
    size = path.stat().st_size
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to(path)
    assert read_image(path, size) == path.read_bytes()
    faults = []
    for name, limit in (
        ("1.png", size - 1),
        ("pipe.png", 99),
        ("", 99),
        ("link.png", 99),
        ("no.png", 99),
        ("1.png/x", 9),
    ):
        with pytest.raises(ImageError) as caught:
            read_image(tmp_path / name, limit)
        faults.append(caught.value.fault)
    assert faults == ["too_large", "absent", "absent", "unreadable", "absent", "absent"]


def test_the_limit_on_bytes_holds_for_files_and_tables(tmp_path: Path) -> None:
    noise = os.urandom(2**20 + 1)
    (tmp_path / "a.png").write_bytes(noise)
    assert [
        one.fault for one in stored(tmp_path, corpus(a="a.png"), ImagesConfig(folder=tmp_path, max_file_mb=1))[0]
    ] == ["too_large"]
    assert stored(tmp_path, corpus(a=noise), ImagesConfig(max_file_mb=1))[0][0].fault == "too_large"
    assert stored(tmp_path, corpus(a=noise), ImagesConfig())[0][0].fault == "not_an_image"


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(st.sampled_from(["..", ".", "", "in", "out", "up", "1.png", "C:", "~", "\0", "a b"]), max_size=6),
       separator=st.sampled_from(["/", "\\", "//"]), start=st.sampled_from(["", "/", "\\", " "]))  # fmt: skip
def test_no_combination_leads_outside(tmp_path: Path, parts: list[str], separator: str, start: str) -> None:
    folder = tmp_path / "covers"
    if not folder.exists():
        (folder / "in" / "in").mkdir(parents=True)
        (folder / "out").symlink_to(tmp_path)
        (folder / "in" / "up").symlink_to("../..")
        (folder / "in" / "in" / "up").symlink_to("..")
        put(tmp_path / "1.png")
    try:
        found = path_within(folder, start + separator.join(parts))
    except ImageError as error:
        outside = error.fault == "outside"
        assert outside
    else:
        assert Path(os.path.realpath(found)).is_relative_to(folder)
