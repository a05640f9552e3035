"""An item without an image is told of the file that is nearly called so; it is not used."""

from pathlib import Path

import pytest

from msr_adapter.config.schema import ImagesConfig
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.images.attach import attach_images
from msr_adapter.data.images.store import ImageStore
from msr_adapter.data.readers.reader import Corpus
from msr_adapter.errors import UserError
from msr_adapter.progress import Reporter
from tests.data.images.test_locate import corpus, put
from tests.support.data_builders import corpus_of

PLAIN = Corpus(corpus_of([]).interactions, None)


def attached(
    folder: Path, ids: list[str], source: Corpus = PLAIN, missing: str = "text-only"
) -> tuple[Audit, list[str | None]]:
    audit = Audit()
    config = ImagesConfig(folder=folder / "images", missing=missing)
    stored = attach_images(ids, source, ImageStore(folder / "out", config, None), audit, Reporter(quiet=True))
    return audit, [one.fault for one in stored]


@pytest.mark.parametrize(
    ("item", "file"),
    [
        ("caf\u00e9", "cafe\u0301.jpg"), ("cafe\u0301", "caf\u00e9.jpg"), ("7", "007.jpg"), ("007", "7.png"),
        ("ABC", "abc.jpg"), ("abc", "sub/ABC.JPG"), ("7.0", "7.jpg"), ("7", "7.0.jpg"), ("x", "x .jpg"),
        ("x", " x.jpg"), ("x", "x\u200b.jpg"), ("x y", "x\u00a0y.jpg"), ("x", "x.pdf"), ("x", "x.jpg.bak"),
        ("x", "x.jpg.jpg"), ("x", "X.Webp"),
        ("x", "deep/er/X.gif"),
    ],
)  # fmt: skip
def test_the_file_that_is_nearly_called_so_is_told_and_not_used(tmp_path: Path, item: str, file: str) -> None:
    put(tmp_path / "images" / file, kind="PNG")
    put(tmp_path / "images" / "other.png")
    audit, faults = attached(tmp_path, [item, "nothing-like-it"])
    assert faults == ["absent", "absent"]
    (found,) = [one for one in audit.findings if one["topic"] == "near-ids"]
    assert found["severity"] == "warning"
    assert found["text"].startswith("1 item without an image has a file that is nearly called so (")
    assert repr(file) in found["text"]
    assert audit.counts["images_absent_but_for_their_form"] == 1
    assert audit.named["images_absent_but_for_their_form"] == [item]


@pytest.mark.parametrize(
    ("item", "file"),
    [("7", "77.jpg"), ("x", "xx.jpg"), ("x", "x1.png"), ("caf\u00e9", "cafe.jpg"), ("x", "y.heic"), ("a1", "a01.jpg")],
)
def test_other_files_are_not_told(tmp_path: Path, item: str, file: str) -> None:
    put(tmp_path / "images" / file)
    audit, faults = attached(tmp_path, [item])
    assert faults == ["absent"]
    assert "near-ids" not in {one["topic"] for one in audit.findings}


def test_a_path_that_differs_in_case_or_accents_is_told(tmp_path: Path) -> None:
    put(tmp_path / "images" / "Covers" / "A.JPG", kind="JPEG")
    put(tmp_path / "images" / "cafe\u0301.png")
    audit, faults = attached(tmp_path, ["i1", "i2"], corpus(i1="covers/a.jpg", i2="caf\u00e9.png"))
    assert faults == ["absent", "absent"]
    (found,) = [one for one in audit.findings if one["topic"] == "near-ids"]
    assert "'covers/a.jpg' and 'Covers/A.JPG'" in found["text"]
    assert audit.counts["images_absent_but_for_their_form"] == 2


def test_where_images_are_a_must_the_file_to_rename_is_named(tmp_path: Path) -> None:
    put(tmp_path / "images" / "7.png")
    with pytest.raises(UserError, match=r"Rename '7\.png', which is nearly called so"):
        attached(tmp_path, ["007"], missing="error")


def test_an_image_of_the_very_name_is_used_without_a_word(tmp_path: Path) -> None:
    put(tmp_path / "images" / "7.png")
    put(tmp_path / "images" / "007.png")
    audit, faults = attached(tmp_path, ["7", "007"])
    assert faults == [None, None]
    assert audit.findings == []
