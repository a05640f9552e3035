"""Logs as people have them: each layout is read by a few lines of YAML, which `msr ls` shows and the docs repeat."""

import os
import re
from pathlib import Path

import polars as pl
import pytest

from msr_adapter.config.bundled import bundled_files
from msr_adapter.config.loader import load_pipeline
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.checks import check_data
from msr_adapter.data.readers.sources import read
from tests.support.paths import ROOT
from tests.support.published_formats import FORMATS, PublishedFormat

DOCS = ROOT / "docs" / "formats.md"
BEGIN, END = "<!-- layouts: written by tests/data/readers/test_published_formats.py -->", "<!-- end of layouts -->"
PATHS = ("interactions", "items", "folder", "kind")


def beside(folder: Path, name: str) -> Path:
    """Return a bundled pipeline as it would lie beside its data in ``folder``."""
    text = next(file.path for file in bundled_files("pipelines") if file.name == f"logs/{name}").read_text()
    path = folder / "my.yaml"
    path.write_text(text.replace("../../data/", ""))
    return path


@pytest.mark.parametrize("case", FORMATS, ids=lambda case: case.name)
def test_each_layout_is_read_by_its_bundled_pipeline(case: PublishedFormat, tmp_path: Path) -> None:
    case.write(tmp_path / case.name)
    data = load_pipeline(str(beside(tmp_path, case.name))).pipeline.data
    assert check_data(data) == []
    corpus = read(data.source, 0, Audit())
    rows = corpus.interactions.collect()
    assert rows.height == case.rows
    assert rows.select("user_id", "item_id", "timestamp").row(0) == case.first
    assert (0 if corpus.items is None else corpus.items.height) == case.items
    if corpus.items is not None:
        assert corpus.items.filter(pl.col("item_id") == case.first[1])["title"].item() == case.title
        assert set(rows["item_id"]) <= set(corpus.items["item_id"])


def source_of(text: str) -> list[str]:
    """Return the lines below `source:` of a pipeline, without their indentation; paths as they are beside the YAML."""
    lines = text[text.index("  source:\n") :].splitlines()[1:]
    return [re.sub(r"\.\./\.\./data/[\w-]+/?", "", line[4:]).replace("folder: ", "folder: .") for line in lines]


def layouts() -> str:
    """Return the section of the docs."""
    files = [file for file in bundled_files("pipelines") if file.name.startswith("logs/")]
    parts = []
    for file in files:
        text = file.path.read_text(encoding="utf-8")
        notes = [line[2:] for line in text.splitlines()[2:] if line.startswith("# ") and "msr init" not in line
                 and "yaml-language-server" not in line]  # fmt: skip
        said = f"{file.description}. {' '.join(notes)}".strip()
        parts.append("\n".join([f"**{file.name}**: {said}", "", "```yaml", *source_of(text), "```", ""]))
    return "\n".join(parts)


def test_the_docs_show_the_yaml_of_each_layout() -> None:
    text = DOCS.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    shown, _, tail = rest.partition(END)
    if os.environ.get("UPDATE_GOLDENS"):
        DOCS.write_text(f"{head}{BEGIN}\n\n{layouts()}\n{END}{tail}", encoding="utf-8")
    else:
        assert shown.strip() == layouts().strip()


@pytest.mark.parametrize("case", FORMATS, ids=lambda case: case.name)
def test_each_layout_takes_five_lines_of_keys_at_most(case: PublishedFormat) -> None:
    text = next(file.path for file in bundled_files("pipelines") if file.name == f"logs/{case.name}").read_text()
    keys = [line for line in source_of(text) if line.partition(":")[0] not in PATHS]
    assert len(keys) <= 5, keys


def test_every_bundled_layout_has_a_fixture() -> None:
    names = {file.name for file in bundled_files("pipelines") if file.name.startswith("logs/")}
    assert names == {f"logs/{case.name}" for case in FORMATS}
