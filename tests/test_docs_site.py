"""The site: it builds without a warning, asks no other host, and every command on it is one that exists."""

import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import typer.core
import typer.main

import msr_adapter
from msr_adapter.cli import app
from tests.support.paths import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
INLINE = re.compile(r"`(msr [^`\n]*)`")
FENCED = re.compile(r"^```[^\n]*\n(.*?)^```", re.M | re.S)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site as `make docs` does; under `--strict` a dead link or anchor, or a page in no menu, is an error."""
    out = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=300,
        env={"NO_MKDOCS_2_WARNING": "1", "PATH": str(Path(sys.executable).parent), "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return out


class Fetched(HTMLParser):
    """What a browser asks for by itself when it shows a page."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag in {"script", "img", "iframe", "source", "video"} and "src" in given:
            self.addresses.append(given["src"])
        if tag == "link" and given.get("rel") != "canonical":
            self.addresses.append(given.get("href", ""))


def test_no_page_asks_another_host_for_anything(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > len(PAGES)
    for page in pages:
        parser = Fetched()
        parser.feed(page.read_text(encoding="utf-8"))
        assert parser.addresses
        assert [address for address in parser.addresses if re.match(r"(https?:)?//", address)] == [], page.name
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//|@import", sheet.read_text(encoding="utf-8")), sheet.name


def test_the_first_page_is_the_readme_and_the_commands_are_all_there(site: Path) -> None:
    assert "make demo" in (site / "index.html").read_text(encoding="utf-8")
    commands = (site / "commands.html").read_text(encoding="utf-8")
    root = typer.main.get_command(app)
    assert isinstance(root, typer.core.TyperGroup)
    assert [name for name in root.commands if f">msr {name}<" not in commands] == []


def test_the_reference_of_python_has_every_public_name_and_member(site: Path) -> None:
    page = (site / "reference.html").read_text(encoding="utf-8")
    headings = set(re.findall(r'id="msr_adapter\.api\.([\w.]+)"', page))
    assert set(msr_adapter.__all__) - {"__version__"} <= headings
    members = {f"{owner.__name__}.{name}" for owner in (msr_adapter.Pipeline, msr_adapter.Run)
               for name in vars(owner) if not name.startswith("_")}  # fmt: skip
    assert len(members) > 15
    assert members <= headings


def written_commands() -> list[tuple[str, list[str]]]:
    """Return each `msr ...` of the pages without comments, up to what a shell would put after it."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        lines = [line for block in FENCED.findall(text) for line in block.replace("\\\n", " ").splitlines()]
        for line in [*lines, *(each.replace("\\|", "|") for each in INLINE.findall(FENCED.sub("", text)))]:
            parts = (part.strip() for part in re.split(r"&&|\|\||;", line.split(" #")[0]))
            asked = (re.split(r" [>|] ", part)[0] for part in parts if part.startswith("msr "))
            found += [(page.name, shlex.split(each)[1:]) for each in asked]
    return found


def unknown(words: list[str]) -> str | None:
    """Return what of a command line `msr` does not have: a command or an option."""
    command = typer.main.get_command(app)
    words = list(words)
    while isinstance(command, typer.core.TyperGroup) and words and not words[0].startswith("-"):
        names = words.pop(0).split("|")  # `cache ls|prune`: either
        if missing := [name for name in names if name not in command.commands]:
            return missing[0]
        command = command.commands[names[0]]
    options = {option for each in command.params for option in (*each.opts, *each.secondary_opts)}
    options |= {"--help", "-h", "--version", "--install-completion"}
    return next((word for word in words if word.startswith("--") and word.split("=")[0] not in options), None)


def test_every_command_of_the_documents_exists_with_its_options() -> None:
    found = written_commands()
    assert len(found) > 60
    assert [(page, " ".join(words), missing) for page, words in found if (missing := unknown(words))] == []


def test_what_does_not_exist_is_seen() -> None:
    assert unknown(["recomend", "my.yaml"]) == "recomend"
    assert unknown(["run", "my.yaml", "--forse", "train"]) == "--forse"
    assert unknown(["cache", "emptied"]) == "emptied"
