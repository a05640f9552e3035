"""What may lie in a folder of images: it is used or named as missing, and never ends the command."""

import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.hostile_files import msr, nested, write_inputs

BUILD = "build-data p.yaml --run-dir run"


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    write_inputs(tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    yield tmp_path / "here" / "images"
    os.system(f"rm -rf {tmp_path / 'here' / 'images'}")


def not_utf_8(images: Path) -> None:
    shutil.copy(images / "i0.png", os.fsdecode(os.fsencode(images) + b"/cover\xff.png"))


def linked_to_itself(images: Path) -> None:
    (images / "i5.png").symlink_to("i5.png")


def loop_of_folders(images: Path) -> None:
    (images / "a").symlink_to("b")
    (images / "b").symlink_to("a")
    (images / "c").symlink_to(".")


def deep_folders(images: Path) -> None:
    nested(images / "deep", None)


def pipe(images: Path) -> None:
    os.mkfifo(images / "i5.png")


def endless(images: Path) -> None:
    (images / "i5.png").symlink_to("/dev/zero")


def folder(images: Path) -> None:
    (images / "i5.png").mkdir()


def open_socket(images: Path) -> None:
    here = Path.cwd()
    os.chdir(images)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("i5.png")
    os.chdir(here)


ALL = [not_utf_8, linked_to_itself, loop_of_folders, deep_folders, pipe, endless, folder, open_socket]


@pytest.mark.parametrize("put", ALL)
def test_the_build_uses_what_is_an_image(images: Path, put: Callable[[Path], None]) -> None:
    put(images)
    code, said, bug = msr(BUILD)
    assert (code, bug) == (0, None), said
    counts = json.loads(Path("run/data/audit.json").read_text())["counts"]
    assert counts["images_copied"] == 3
    assert msr(BUILD)[1].count("up to date") == 5
    assert msr("check p.yaml --run-dir run")[2] is None


@pytest.mark.parametrize("put", [pipe, folder, linked_to_itself])
def test_an_image_folder_that_is_none_is_told(images: Path, put: Callable[[Path], None]) -> None:
    shutil.rmtree(images)
    images.mkdir()
    put(images)
    (images / "i5.png").rename(images.parent / "moved")
    images.rmdir()
    if put is linked_to_itself:
        images.symlink_to("images")
    else:
        (images.parent / "moved").rename(images)
    code, said, bug = msr(BUILD)
    assert bug is None
    assert code in (0, 2), said
