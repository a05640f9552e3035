"""A template of the user's that cannot be used is an error, never the bundled one in its place."""

from collections.abc import Callable
from pathlib import Path

import pytest

from msr_adapter.prompts import Prompts
from tests.support.paths import ROOT

GOOD = "{% if image %}<image>{% endif %}{{ user_summary }} {{ title }}?"


def write(folder: Path, name: str, text: bytes = GOOD.encode()) -> None:
    (folder / name).parent.mkdir(exist_ok=True, parents=True)
    (folder / name).write_bytes(text)


CASES: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "dangling link": (lambda f: (f / "recommend.j2").symlink_to("gone"), "recommend.j2", "a link to nothing"),
    "folder": (lambda f: (f / "recommend.j2").mkdir(), "recommend.j2", "no file"),
    "text": (lambda f: write(f, "recommend.txt"), "recommend.txt", "Rename the file to recommend.j2"),
    "jinja": (lambda f: write(f, "history.jinja"), "history.jinja", "Rename the file to history.j2"),
    "no suffix": (lambda f: write(f, "user_summary"), "user_summary", "Rename the file to user_summary.j2"),
    "capital": (lambda f: write(f, "Recommend.J2"), "Recommend.J2", "Rename the file to recommend.j2"),
    "page": (lambda f: write(f, "report.html"), "report.html", "Rename the file to report.html.j2"),
    "page's link": (lambda f: (f / "report.html.j2").symlink_to("gone"), "report.html.j2", "a link to nothing"),
    "page's bytes": (lambda f: write(f, "report.html.j2", b"\xff"), "report.html.j2", "cannot be read"),
    "folder below": (lambda f: write(f, "mine/recommend.j2"), "mine/recommend.j2", "lies in a folder below"),
    "bytes": (lambda f: write(f, "recommend.j2", b"\xe9t\xe9 {{ title }}"), "recommend.j2", "not UTF-8"),
    "empty": (lambda f: write(f, "history.j2", b""), "history.j2", "prints nothing"),
    "comment": (lambda f: write(f, "history.j2", b"{# to do #}\n"), "history.j2", "prints nothing"),
    "sometimes": (lambda f: write(f, "user_summary.j2", b"{{ previous }}"), "user_summary.j2", "for some inputs"),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_named(case: str, tmp_path: Path) -> None:
    make, file, said = CASES[case]
    make(tmp_path)
    [problem] = map(str, Prompts(tmp_path).check())
    assert file in problem
    assert said in problem


def test_what_lies_beside_or_is_included_is_left_alone(tmp_path: Path) -> None:
    write(tmp_path, "recommend.j2", b'{% include "parts/history.j2" %}' + GOOD.encode())
    write(tmp_path, "parts/history.j2", b"Hello")
    for name in ("recommend.txt", "old/recommend.j2", "history.csv", "README.md", "report/style.css.j2", "item.png"):
        write(tmp_path, name)
    assert Prompts(tmp_path).check() == []


BUNDLED = [path for path in sorted((ROOT / "templates").glob("*/*.j2")) if path.parent.name not in ("report", "serve")]


@pytest.mark.parametrize("path", BUNDLED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_file_of_a_bundled_folder_is_a_template_or_part_of_one(path: Path) -> None:
    beside = [other.read_text(encoding="utf-8") for other in path.parent.glob("*.j2") if other != path]
    named = f'"{path.parent.name}/{path.name}"'
    assert (ROOT / "templates" / path.name).is_file() or any(named in text for text in beside)
