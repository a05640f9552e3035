"""Files without a header, and tables whose columns are called otherwise than the log's."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from msr_adapter.config.schema import TableSourceConfig
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.id_list_files import read_later_interactions
from msr_adapter.data.readers.sources import check_source, read
from msr_adapter.errors import UserError

# Taobao's layout: user, item, category, behaviour, time.
TAOBAO = "1,2268318,2520377,pv,1511544070\n1,2333346,2520771,buy,1511561733\n01,2576651,149192,pv,1511572885\n"
NAMES = ["user_id", "item_id", "_", "_", "timestamp"]


def source(folder: Path, text: str, name: str = "log.csv", **keys: Any) -> TableSourceConfig:
    (folder / name).write_text(text)
    return TableSourceConfig.model_validate({"kind": "table", "interactions": folder / name, **keys})


def rows_of(found: TableSourceConfig, audit: Audit | None = None) -> list[tuple[str, str, int]]:
    corpus = read(found, 0, audit or Audit())
    return corpus.interactions.select("user_id", "item_id", "timestamp").collect().rows()


def test_the_first_line_is_a_row(tmp_path: Path) -> None:
    found, audit = source(tmp_path, TAOBAO, names=NAMES), Audit()
    assert check_source(found) == []
    assert rows_of(found, audit) == [
        ("1", "2268318", 1_511_544_070_000), ("1", "2333346", 1_511_561_733_000), ("01", "2576651", 1_511_572_885_000)
    ]  # fmt: skip
    assert audit.recognised[0].rows == 3


@pytest.mark.parametrize(
    ("text", "name", "keys"),
    [
        (TAOBAO.replace(",", "\t"), "log.tsv", {}),
        (TAOBAO.replace(",", ";"), "log.csv", {"delimiter": ";"}),
        (TAOBAO.replace(",", "\t"), "UserBehavior.txt", {}),
        (TAOBAO.replace("pv", '"p,v"'), "log.csv", {}),
        (TAOBAO.replace("pv", '"p\\",v"'), "log.csv", {"escape": "backslash"}),
        (TAOBAO.replace("\n", "\r\n"), "log.csv", {}),
        ("\ufeff" + TAOBAO, "log.csv", {}),
        (TAOBAO + "\n\n", "log.csv", {}),
        (TAOBAO.rstrip("\n"), "log.csv", {}),
    ],
)
def test_in_every_dialect_the_rows_are_the_same(tmp_path: Path, text: str, name: str, keys: dict[str, Any]) -> None:
    assert rows_of(source(tmp_path, text, name, names=NAMES, **keys)) == rows_of(
        source(tmp_path, TAOBAO, "plain.csv", names=NAMES)
    )


def test_without_names_the_row_is_not_taken_for_a_header(tmp_path: Path) -> None:
    found = source(tmp_path, TAOBAO)
    [problem] = check_source(found)
    assert "its first line is a row, not a header: 1, 2268318, 2520377, pv, 1511544070" in problem.found
    assert problem.next_step == "Set data.source.names to the 5 names of its columns, in their order"


@pytest.mark.parametrize("names", [["user_id"], ["user_id", "user_id"], ["user_id", " "], ["_", "_", "user_id"], []])
def test_names_that_name_nothing_are_refused(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(ValueError, match="two different names"):
        source(tmp_path, TAOBAO, names=names)


@pytest.mark.parametrize("names", [["user_id", "item_id", "timestamp"], [*NAMES, "more"]])
def test_names_of_another_number_are_told(tmp_path: Path, names: list[str]) -> None:
    [problem] = check_source(source(tmp_path, TAOBAO, names=names))
    assert problem.where == str(tmp_path / "log.csv")
    assert problem.found == f"{len(names)} names for 5 columns: 1, 2268318, 2520377, pv, 1511544070"


def test_a_row_with_more_fields_than_names_is_told_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"log\.csv:4: 6 columns"):
        rows_of(source(tmp_path, TAOBAO + "1,2,3,pv,1511544070,9\n", names=NAMES))


def test_names_for_a_file_that_names_its_columns_are_refused(tmp_path: Path) -> None:
    lines = '{"user": "a", "item": "x", "timestamp": 1600000000}\n'
    [problem] = check_source(source(tmp_path, lines, "log.jsonl", names=["user", "item"]))
    assert problem.field == "data.source.names"
    pl.DataFrame({"user": ["a"], "item": ["x"]}).write_parquet(tmp_path / "log.parquet")
    parquet = TableSourceConfig.model_validate(
        {"kind": "table", "interactions": tmp_path / "log.parquet", "names": ["user", "item"]}
    )
    assert [one.field for one in check_source(parquet)] == ["data.source.names"]


def test_items_without_a_header(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("2268318,7,Lamp\n2333346,7,Chair\n")
    found = source(tmp_path, TAOBAO, names=NAMES, items=tmp_path / "items.csv",
                   items_format={"names": ["item_id", "_", "title"]})  # fmt: skip
    assert check_source(found) == []
    corpus = read(found, 0, Audit())
    assert corpus.items is not None
    assert corpus.items.select("item_id", "title").rows() == [("2268318", "Lamp"), ("2333346", "Chair")]


def test_names_are_of_the_log_alone(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("item_id,title\n2268318,Lamp\n")
    corpus = read(source(tmp_path, TAOBAO, names=NAMES, items=tmp_path / "items.csv"), 0, Audit())
    assert corpus.items is not None
    assert corpus.items.height == 1


def test_an_items_column_has_another_name_than_the_logs(tmp_path: Path) -> None:
    # Shopify's: orders call it "Lineitem sku", products "Variant SKU".
    (tmp_path / "products.csv").write_text("Handle,Title,Variant SKU,item\nlamp,Lamp,a1,9\nchair,Chair,a2,8\n")
    orders = "Email,Lineitem sku,Created at\nann@shop,a1,2024-01-01\nann@shop,a2,2024-01-02\n"
    columns = {"user": "Email", "item": "Lineitem sku", "timestamp": "Created at"}
    keys = {"items": tmp_path / "products.csv", "columns": columns}
    assert check_source(source(tmp_path, orders, **keys)) != []
    found = source(tmp_path, orders, **keys, items_columns={"item": "Variant SKU", "title": "Title"})
    assert check_source(found) == []
    corpus = read(found, 0, Audit())
    assert corpus.items is not None
    assert corpus.items.select("item_id", "title").rows() == [("a1", "Lamp"), ("a2", "Chair")]


def test_what_items_columns_leaves_out_is_what_columns_says(tmp_path: Path) -> None:
    (tmp_path / "products.csv").write_text("sku,headline\na1,Lamp\n")
    keys = {"items": tmp_path / "products.csv", "columns": {"item": "what", "title": "headline"}}
    found = source(tmp_path, "user,what\nann,a1\n", **keys, items_columns={"item": "sku"})
    corpus = read(found, 0, Audit())
    assert corpus.items is not None
    assert corpus.items["title"].to_list() == ["Lamp"]


@pytest.mark.parametrize("text", [TAOBAO, "user_id,item_id,timestamp\n1,2268318,1511544070\n"])
def test_later_interactions_may_lack_a_header_as_the_log_does(tmp_path: Path, text: str) -> None:
    (tmp_path / "later.csv").write_text(text)
    frame, _ = read_later_interactions(tmp_path / "later.csv", "--interactions", source(tmp_path, TAOBAO, names=NAMES))
    assert frame["item_id"][0] == "2268318"
    assert frame["timestamp"][0] == 1_511_544_070_000
