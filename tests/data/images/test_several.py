"""Several images of an item: which, in which order, and what is said of those that are not used."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from PIL import Image

from msr_adapter.config.schema import ImagesConfig
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.images.attach import attach_images
from msr_adapter.data.images.locate import DownloadedImage, write_download_index
from msr_adapter.data.images.several import find_images, image_names
from msr_adapter.data.images.store import ImageStore, ItemImages
from msr_adapter.data.readers.reader import Corpus
from msr_adapter.errors import UserError
from msr_adapter.progress import Reporter
from tests.support.data_builders import build_in, corpus_of, random_rows, table_data

A, B, C = ("https://shop.example/a.jpg", "https://shop.example/b.jpg", "https://shop.example/c.jpg?x=1,2")


def put(path: Path, colour: str = "red") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), colour).save(path)
    return path


def corpus(**images: Any) -> Corpus:
    rows = {"item_id": list(images), "title": [""] * len(images), "image": list(images.values())}
    return Corpus(corpus_of([]).interactions, pl.DataFrame(rows))


def attached(folder: Path, named: Corpus, **limits: Any) -> tuple[list[ItemImages], Audit]:
    assert named.items is not None
    audit, config = Audit(), ImagesConfig(folder=folder / "covers", **limits)
    store = ImageStore(folder / "out", config)
    return attach_images(named.items["item_id"].to_list(), named, store, audit, Reporter(quiet=True)), audit


@pytest.mark.parametrize(
    ("said", "names"),
    [
        (None, []), ("", []), ("[]", []), ("  ", []), ("a.jpg", ["a.jpg"]), ("[a] b.jpg", ["[a] b.jpg"]),
        (["a.jpg", None, "b.jpg"], ["a.jpg", "b.jpg"]), ("a, b.jpg", ["a, b.jpg"]),
        ('["a.jpg", "b c.jpg"]', ["a.jpg", "b c.jpg"]), ("['a.jpg', 'b.jpg']", ["a.jpg", "b.jpg"]),
        ("a.jpg|b.jpg | c.jpg|", ["a.jpg", "b.jpg", "c.jpg"]),
        (f"{A} {B}", [A, B]), (f"{A}, {B};{C}", [A, B, C]), (f"{A}|{B}", [A, B]), (C, [C]),
        (b"\xff\xd8", [b"\xff\xd8"]), ([{"bytes": b"x", "path": "a"}, {"bytes": None, "path": "b"}], [b"x", "b"]),
        ('[{"src": "a.jpg"}, {"url": "b.jpg"}]', ["a.jpg", "b.jpg"]),
        ('[{"thumb": "t", "large": "s", "variant": "PT01"}, {"large": "m", "variant": "MAIN"}]', ["m", "s"]),
        ('{"large": ["l1", null], "thumb": ["t1", "t2"]}', ["l1", "t2"]), ("[" * 100_000, ["[" * 100_000]),
    ],
)  # fmt: skip
def test_what_a_column_says(said: Any, names: list[str]) -> None:
    assert image_names(said) == names


def test_files_are_in_the_order_of_their_numbers_and_a_longer_id_has_its_own(tmp_path: Path) -> None:
    files = ["7_10.png", "7_2.png", "7.png", "x/7/b.png", "x/7/a.png", "7_1.png", "7_1_back.png", "70.png", "8_1.png",
             "9/7.png", "notes.png"]  # fmt: skip
    for file in files:
        put(tmp_path / file)
    find = find_images(["7", "7_1", "9"], corpus(), ImagesConfig(folder=tmp_path, max=9))
    named = {item: [str(Path(str(one)).relative_to(tmp_path)) for one in find(item)] for item in ("7", "7_1", "9")}  # type: ignore[union-attr]
    assert named == {"7": ["7.png", "x/7/a.png", "x/7/b.png", "7_2.png", "7_10.png"],
                     "7_1": ["7_1.png", "7_1_back.png"], "9": ["9/7.png"]}  # fmt: skip


def test_one_image_in_two_formats_counts_once(tmp_path: Path) -> None:
    for file in ("7_1.webp", "7_1.png", "7_1.jpg", "deep/7_1.jpg"):
        put(tmp_path / file)
    assert find_images(["7"], corpus(), ImagesConfig(folder=tmp_path, max=9))("7") == [tmp_path / "7_1.jpg"]


def test_each_damaged_image_is_counted_and_equal_ones_are_used_once(tmp_path: Path) -> None:
    folder = tmp_path / "covers"
    for name, colour in (("a", "red"), ("again", "red"), ("b", "blue"), ("c", "green"), ("d", "black")):
        put(folder / f"{name}.png", colour)
    (folder / "text.png").write_text("no image")
    (folder / "cut.png").write_bytes((folder / "a.png").read_bytes()[:44])
    named = corpus(i="text.png|a.png|again.png|b.png|cut.png|c.png|d.png", j="b.png", k="gone.png|cut.png|../x.png",
                   m="d.png|https://shop.example/x.png")  # fmt: skip
    (i, j, k, m), audit = attached(tmp_path, named, max=3)
    assert [Image.open(tmp_path / "out" / str(one.path)).getpixel((0, 0)) for one in i.all] == [
        (255, 0, 0), (0, 0, 255), (0, 128, 0),
    ]  # fmt: skip
    assert (i.refused, i.repeated, i.left_out) == (("not_an_image", "broken"), 1, 1)
    assert (j.more, k.path, k.fault, k.refused) == ((), None, "absent", ("absent", "broken", "outside"))
    assert m.refused == ("not_fetched",)
    wanted = {"images_copied": 5, "images_missing_absent": 1, "images_refused_broken": 1, "image_files": 4,
              "images_refused_not_an_image": 1, "images_refused_not_fetched": 1, "images_repeated": 1,
              "images_beyond_max": 1, "items_with_several_images": 1, "items_text_only": 1}  # fmt: skip
    assert audit.counts == wanted
    said = " ".join(finding["text"] for finding in audit.findings)
    assert (
        "3 images of items that have others cannot be used (broken, not_an_image, not_fetched; such as of 'i')" in said
    )
    assert "1 image left out: equal, byte for byte" in said
    assert "1 image left out: data.images.max is 3" in said
    assert audit.named["images_refused"] == ["i", "m"]


def test_where_a_missing_image_is_an_error_each_that_is_named_has_to_be_there(tmp_path: Path) -> None:
    put(tmp_path / "covers/a.png")
    with pytest.raises(UserError, match=r"i: image absent; data.images.missing: error wants an image"):
        attached(tmp_path, corpus(i="a.png|gone.png", j="a.png"), max=2, missing="error")
    assert len(attached(tmp_path, corpus(i="a.png|gone.png", j="a.png"), max=1)[0]) == 2


def test_downloaded_images_of_one_item(tmp_path: Path) -> None:
    put(tmp_path / "i.png"), put(tmp_path / "i_2.png")
    entries = [DownloadedImage("i", A, "i.png"), DownloadedImage("i", B, "i_2.png", number=2),
               DownloadedImage("i", C, reason="http_404", number=3)]  # fmt: skip
    write_download_index(tmp_path, {one.key: one for one in entries})
    find = find_images(["i", "j"], corpus(i=f"{B}|{A}|{C}", j=A), ImagesConfig(folder=tmp_path, max=3))
    *files, missing = find("i")  # type: ignore[misc]
    assert files == [tmp_path / "i_2.png", tmp_path / "i.png"]
    assert str(missing) == "not_fetched"
    put(tmp_path / "j_1.png")
    find = find_images(["i", "j"], corpus(i=A, j=A), ImagesConfig(folder=tmp_path, max=3))
    assert find("j") == [tmp_path / "j_1.png"]  # downloaded by other means


COLUMNS = {
    "list": (pl.DataFrame({"item_id": ["i000", "i001"], "images": [["a.png", "b.png"], ["c.png"]]}), ()),
    "columns": (
        pl.DataFrame({"item_id": ["i000", "i001"], "image": ["a.png", "c.png"], "back": ["b.png", None]}),
        ("back",),
    ),
    "json": (pl.DataFrame({"item_id": ["i000", "i001"], "image": ['["a.png", "b.png"]', '["c.png"]']}), ()),
}


@pytest.mark.parametrize("kind", COLUMNS)
@pytest.mark.parametrize("most", [1, 3])
def test_a_build_writes_them_in_order(tmp_path: Path, kind: str, most: int) -> None:
    items, columns = COLUMNS[kind]
    for name, colour in (("a", "red"), ("b", "blue"), ("c", "green")):
        put(tmp_path / f"covers/{name}.png", colour)
    others = pl.DataFrame({"item_id": [f"i{number:03}" for number in range(2, 12)]})
    items = pl.concat([items, others], how="diagonal").with_columns(title=pl.lit("T"))
    items.write_parquet(tmp_path / "items.parquet")
    images = ImagesConfig(folder=tmp_path / "covers", max=most, columns=columns)
    data = table_data(tmp_path, random_rows(30, 12, 4), images=images)
    source = data.source.model_copy(update={"items": tmp_path / "items.parquet"})
    made = build_in(tmp_path, data.model_copy(update={"source": source}))
    first, second = made.rows("items")[:2]
    assert Image.open(made.out / first["image"]).getpixel((0, 0)) == (255, 0, 0)
    assert second["more_images"] is None
    if most == 1:
        assert first["more_images"] is None
    else:
        [more] = first["more_images"]
        assert Image.open(made.out / more["path"]).getpixel((0, 0)) == (0, 0, 255)
        assert more["digest"] in more["path"]
