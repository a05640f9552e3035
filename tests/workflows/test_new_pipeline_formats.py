"""`msr init` knows each layout that people have; what it writes is accepted by `check`, which says the same."""

from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner, Result

from msr_adapter.cli import app
from msr_adapter.data.published_layouts import likely_source
from msr_adapter.data.published_tables import PUBLISHED_TABLES
from tests.support.published_formats import FORMATS, PublishedFormat

OF_SHOPS = {"merchant-feed", "spreadsheet"}
"""Layouts that say nothing of themselves: their columns are called as each shop likes."""


def msr(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_every_layout_with_a_bundled_pipeline_is_known() -> None:
    assert {one.name for one in FORMATS} - OF_SHOPS == {one.name for one in PUBLISHED_TABLES} | {"netflix"}


@pytest.mark.parametrize("case", [one for one in FORMATS if one.name not in OF_SHOPS], ids=lambda case: case.name)
def test_init_check_and_build_data_agree(
    case: PublishedFormat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    case.write(tmp_path / "set")
    found = likely_source(tmp_path / "set")
    assert (found.layout or f"logs/{found.kind}") == f"logs/{case.name}"
    done = msr("init", "set")
    assert done.exit_code == 0, done.output
    recognised = [line for line in done.stdout.splitlines() if " rows; " in line]
    assert recognised
    checked = msr("check", "my.yaml")
    assert checked.exit_code == 0, checked.output
    assert all(line in checked.stdout for line in recognised)
    built = msr("build-data", "my.yaml", "--quiet")
    assert built.exit_code == 0, built.output
    assert pl.read_parquet("runs/my/data/interactions.parquet").height > 0


def test_the_log_alone_brings_the_files_beside_it(tmp_path: Path) -> None:
    case = next(one for one in FORMATS if one.name == "yelp")
    case.write(tmp_path)
    found = likely_source(tmp_path / "yelp_academic_dataset_review.json")
    assert found.settings["items"] == str(tmp_path / "yelp_academic_dataset_business.json")


def test_a_log_without_its_items_is_read_without_titles(tmp_path: Path) -> None:
    case = next(one for one in FORMATS if one.name == "bookcrossing")
    case.write(tmp_path)
    (tmp_path / "BX-Books.csv").unlink()
    settings = likely_source(tmp_path).settings
    assert settings["items"] is None
    assert "items_columns" not in settings


def test_a_log_whose_joined_table_is_absent_is_not_taken_for_one(tmp_path: Path) -> None:
    case = next(one for one in FORMATS if one.name == "instacart")
    case.write(tmp_path)
    (tmp_path / "orders.csv").unlink()
    assert likely_source(tmp_path / "order_products__prior.csv").layout == ""
