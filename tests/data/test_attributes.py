"""Columns of items and users for the templates: typed, with missing values, of the items and users of the run."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pydantic import ValidationError

from msr_adapter.config.schema import (
    DataConfig,
    ItemAttributesConfig,
    ProtocolConfig,
    SplitConfig,
    TableSourceConfig,
    UserAttributesConfig,
)
from msr_adapter.config.schema.negatives import NegativesConfig, TrainNegativesConfig
from msr_adapter.data import BuildInputs, build
from msr_adapter.data.attributes import SourceAttributes, read_attributes
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.readers.attribute_values import AttributeValues, typed
from msr_adapter.data.readers.sources import read
from msr_adapter.data.source_look import look_through
from msr_adapter.errors import UserError
from msr_adapter.progress import Reporter
from msr_adapter.prompts.attributes import UsedFields
from msr_adapter.prompts.stage_tables import ItemTable, UserTable
from msr_adapter.stage_arguments import Job
from tests.support.data_builders import write_csv

ALL = UsedFields(None, item=True, user=True)


def values_of(values: Any, declared: Any = None) -> AttributeValues:
    return typed("price", pl.Series("price", values), declared, "items.csv")


@pytest.mark.parametrize(
    ("written", "kind", "expected"),
    [
        (["1", "2", "", None], "number", [1, 2, None, None]),
        (["1.50", "-2", "nan", "1e3"], "number", [1.5, -2.0, None, 1000.0]),
        (["007", "12"], "text", ["007", "12"]),
        (["$12", "13"], "text", ["$12", "13"]),
        (["True", "false", "NULL"], "boolean", [True, False, None]),
        (["2024-06-30", " "], "date", ["2024-06-30", None]),
        (["2024-06-30T01:02:03Z", "2024-06-30 04:05"], "date", ["2024-06-30 01:02:03.000", "2024-06-30 04:05:00.000"]),
        (['["a", "b"]', "[]"], "list", [["a", "b"], None]),
        (["[Used] Game", "x"], "text", ["[Used] Game", "x"]),
        ([["a"], []], "list", [["a"], None]),
        ([1.5, float("nan"), float("inf")], "number", [1.5, None, None]),
        ([True, None], "boolean", [True, None]),
        (["<image>", "None"], "text", ["‹image›", None]),
        ([None, None], "text", [None, None]),
    ],
)  # fmt: skip
def test_a_type_is_told_by_the_values(written: Any, kind: str, expected: Any) -> None:
    found = values_of(written)
    told = found.values.cast(pl.String) if kind == "date" else found.values
    assert (found.kind, told.to_list()) == (kind, expected)


def test_a_declared_type_is_what_values_must_have() -> None:
    assert values_of(["1", "2"], "text").values.to_list() == ["1", "2"]
    assert values_of([1, 2], "text").values.to_list() == ["1", "2"]
    assert values_of(["yes", "0"], "boolean").values.to_list() == [True, False]
    assert values_of(["a|b", "c", "d, e"], "list").values.to_list() == [["a", "b"], ["c"], ["d", "e"]]
    with pytest.raises(
        UserError, match=r"items.csv price: 2 of 3 values are no number: '\$5', 'x'; numbers with a point"
    ):
        values_of(["1", "$5", "x"], "number")


def test_a_column_of_records_is_refused() -> None:
    with pytest.raises(UserError, match="a column of type Struct"):
        values_of([{"a": 1}])


ITEMS = [
    ("i0", "First", "12.50", "Acme", "yes"),
    ("i1", "Second", "", "{{ evil }} <image>", "no"),
    ("i2", "Third", "7", "none", "x"),
    ("i3", "Fourth", "9", "Bolt", "y"),
]


def source(folder: Path, **more: Any) -> DataConfig:
    rows = [(f"u{u}", f"i{(u + k) % 4}", 100 * u + k) for u in range(20) for k in range(3)]
    log = write_csv(folder / "log.csv", ["user_id", "item_id", "timestamp"], rows)
    items = write_csv(
        folder / "items.csv", ["item_id", "title", "Variant Price", "brand", "other"], more.pop("rows", ITEMS)
    )
    return DataConfig(source=TableSourceConfig(kind="table", interactions=log, items=items), **more)


def built(data: DataConfig, out: Path) -> dict[str, Any]:
    out.mkdir()
    protocol = ProtocolConfig(name="p", negatives=NegativesConfig(count=1))
    inputs = BuildInputs(
        data, SplitConfig(fractions=(0.6, 0.2, 0.2), min_history=1), protocol, TrainNegativesConfig(count=1)
    )
    return {**build(inputs, Job(out, Reporter(quiet=True)))}


def test_attributes_are_written_with_their_types_and_read_as_templates_see_them(tmp_path: Path) -> None:
    users = write_csv(tmp_path / "users.csv", ["user_id", "age"], [("u1", "30-39"), ("u2", "nan"), ("u1", "again")])
    data = source(
        tmp_path,
        items=ItemAttributesConfig(attributes={"price": "Variant Price", "brand": "brand"}),  # type: ignore[arg-type]
        users=UserAttributesConfig(path=users, attributes=["age"]),  # type: ignore[arg-type]
    )
    facts = built(data, tmp_path / "out")["attributes"]
    assert {name: (one["type"], one["missing"]) for name, one in facts["item"].items()} == {
        "price": ("number", 0.25), "brand": ("text", 0.25),
    }  # fmt: skip
    assert facts["user"]["age"]["missing"] == 0.95
    items, people = ItemTable(tmp_path / "out", ALL), UserTable(tmp_path / "out", ALL)
    assert (items.of("i0")["price"], str(items.of("i2")["price"])) == (12.5, "7")
    assert items.of("i1")["brand"] == "{ { evil } } ‹image›"
    assert not items.of("i2")["brand"]
    assert (people.of("u1")["age"], bool(people.of("u2")["age"]), bool(people.of("nobody")["age"])) == (
        "30-39",
        False,
        False,
    )
    told = json.loads((tmp_path / "out" / "attributes.json").read_text())
    assert told["counts"] == {"user_rows_dropped_duplicate": 1, "users_without_attributes": 18}


def test_check_lists_them(tmp_path: Path) -> None:
    look = look_through(source(tmp_path, items=ItemAttributesConfig(attributes=["brand"])), SplitConfig())  # type: ignore[arg-type]
    assert "item.brand: text, 25% missing, such as Acme" in look.lines
    assert look.found
    assert look.found.missing == {"item.brand"}
    assert any(
        line.startswith("items.csv: 4 rows; items = item_id, title; not used: Variant Price, other")
        for line in look.lines
    )


def test_all_columns_that_are_not_there_are_told_at_once(tmp_path: Path) -> None:
    users = write_csv(tmp_path / "users.csv", ["user_id", "age"], [("u1", "30")])
    data = source(
        tmp_path,
        items=ItemAttributesConfig(attributes=["Price", "colour"]),  # type: ignore[arg-type]
        users=UserAttributesConfig(path=users, user="uid", attributes=["sex"]),  # type: ignore[arg-type]
    )
    with pytest.raises(UserError) as raised:
        read(data.source, 0, Audit(attributes=data.items.attributes))
    assert [problem.found for problem in raised.value.problems] == ["no column 'Price'", "no column 'colour'"]
    assert "did you mean" not in raised.value.problems[1].allowed
    from msr_adapter.data import check_data

    assert [problem.found for problem in check_data(data)] == ["no column 'uid'", "no column 'sex'"]


def test_a_source_without_such_a_table_says_so(tmp_path: Path) -> None:
    data = source(tmp_path, items=ItemAttributesConfig(attributes=["brand"]))  # type: ignore[arg-type]
    without = data.model_copy(update={"source": data.source.model_copy(update={"items": None})})
    corpus = read(without.source, 0, Audit(attributes=data.items.attributes))
    with pytest.raises(UserError, match="brand: this source has no table of items with such columns"):
        read_attributes(without, corpus)


def test_a_column_that_nobody_uses_changes_nothing_that_is_known_of_the_data(tmp_path: Path) -> None:
    used = ItemAttributesConfig(attributes=["brand"])  # type: ignore[arg-type]
    first = built(source(tmp_path, items=used), tmp_path / "a")
    changed = [(*row[:4], "other") for row in ITEMS]
    second = built(source(tmp_path, items=used, rows=changed), tmp_path / "b")
    third = built(source(tmp_path, items=used, rows=[(*row[:3], "Zeta", row[4]) for row in ITEMS]), tmp_path / "c")
    assert first["attributes"] == second["attributes"] != third["attributes"]
    audits = [(tmp_path / name / "audit.json").read_text() for name in "abc"]
    tables = [(tmp_path / name / "items.parquet").read_bytes() for name in "abc"]
    assert len(set(audits)) == len(set(tables)) == 1


def test_without_attributes_nothing_is_written(tmp_path: Path) -> None:
    assert "attributes" not in built(source(tmp_path), tmp_path / "out")
    assert not list((tmp_path / "out").glob("*attributes*"))
    assert SourceAttributes().lines == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["Variant Price"], "cannot be called in a template; name it: "),
        (["title"], "is what templates call something else"),
        ({"price": " "}, "is no name of a column"),
        ([1], "valid dictionary"),
    ],
)
def test_names_are_checked(given: Any, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ItemAttributesConfig(attributes=given)


def test_a_type_is_of_an_attribute() -> None:
    with pytest.raises(ValidationError, match="types of colour, which `attributes` does not name"):
        ItemAttributesConfig(attributes=["price"], types={"colour": "text"})  # type: ignore[arg-type]
