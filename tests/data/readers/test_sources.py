"""The table of sources: its rows are the kinds that the config allows, and each row is whole."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from msr_adapter.config.error_messages import kind_of
from msr_adapter.config.schema import SourceConfig, SyntheticSourceConfig
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.readers.sources import (
    SOURCES,
    check_source,
    draws_images,
    may_hold_images,
    read,
    source_files,
)
from msr_adapter.errors import UserError
from msr_adapter.synthetic import Shopping, generate
from tests.support.paths import ROOT
from tests.support.reader_fixtures import SOURCES as WRITTEN

ROWS = {row.kind: row for row in SOURCES}


def test_the_kinds_that_the_config_allows_are_exactly_the_rows() -> None:
    allowed = get_args(get_args(SourceConfig)[0])
    assert [row.config for row in SOURCES] == list(allowed)
    assert [row.kind for row in SOURCES] == [kind_of(config) for config in allowed]


def test_the_docs_have_a_row_for_each_kind_in_the_same_order() -> None:
    page = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    assert [line.split("`")[1] for line in page.splitlines() if line.startswith("| `")] == list(ROWS)


@pytest.mark.parametrize("row", SOURCES, ids=lambda row: row.kind)
def test_the_table_of_items_is_a_key_of_the_config(row: object) -> None:
    [row] = [one for one in SOURCES if one is row]
    assert row.items is None or row.items in row.config.model_fields


def test_which_kinds_let_columns_be_named() -> None:
    assert {row.kind for row in SOURCES if row.names_columns} == {"table", "recbole", "mmrec", "sql", "huggingface"}


@pytest.mark.parametrize("name", WRITTEN)
def test_every_other_kind_has_files_that_identify_it_and_draws_nothing(name: str, tmp_path: Path) -> None:
    source = WRITTEN[name](tmp_path)
    assert [path for path in source_files(source).values() if path is not None]
    assert not draws_images(source)


def test_the_synthetic_dataset_is_a_source_like_the_others() -> None:
    source = SyntheticSourceConfig(kind="synthetic", users=9, items=40, interactions_per_user=5)
    corpus, dataset = read(source, 3, Audit()), generate(9, 40, 5, source.noise, 3)
    assert check_source(source) == []
    assert source_files(source) == {}
    assert draws_images(source)
    assert not may_hold_images(source)
    assert corpus.interactions.collect().to_dicts() == dataset.interactions.to_pylist()
    assert corpus.items is not None
    assert corpus.items.to_dicts() == dataset.items.to_pylist()
    assert corpus.synthetic is not None
    assert np.array_equal(np.asarray(corpus.synthetic.draw("i07")), np.asarray(dataset.draw("i07")))


def test_templates_may_say_the_price_and_brand_of_synthetic_items() -> None:
    source = SyntheticSourceConfig(kind="synthetic", users=9, items=40, interactions_per_user=5, attributes=True)
    audit = Audit()
    audit.attributes = {"price": "price", "publisher": "brand"}
    corpus, dataset = read(source, 3, audit), generate(9, 40, 5, 1.0, 3, Shopping(attributes=True))
    assert corpus.items is not None
    assert corpus.items["attribute publisher"].to_list() == dataset.items["brand"].to_pylist()
    assert corpus.items["attribute price"].to_list() == dataset.items["price"].to_pylist()
    audit.attributes = {"price": "price", "size": "size"}
    with pytest.raises(UserError, match=r"data.items.attributes: size: synthetic items have price and brand"):
        read(source, 3, audit)
    with pytest.raises(UserError, match=r"Set data.source.attributes: true"):
        read(source.model_copy(update={"attributes": False}), 3, audit)
