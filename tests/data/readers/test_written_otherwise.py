"""Files that are written otherwise: encodings, Python's dicts, lists, joined tables, forms of times and numbers."""

import ast
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msr_adapter.config.schema import ColumnsConfig, TableSourceConfig
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.readers.sources import check_source, read, source_files
from msr_adapter.errors import UserError
from msr_adapter.text_tables.python_dicts import as_json

LOG = "user_id,item_id,timestamp\nu1,i1,1700000000\nu1,i2,1700000060\n"


def source(folder: Path, data: str | bytes, name: str = "log.csv", **keys: Any) -> TableSourceConfig:
    (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    return TableSourceConfig.model_validate({"kind": "table", "interactions": folder / name, **keys})


def rows_of(found: TableSourceConfig, audit: Audit | None = None) -> list[tuple[Any, ...]]:
    corpus = read(found, 0, audit or Audit())
    return corpus.interactions.select("user_id", "item_id", "timestamp").collect().rows()


def refusal(found: TableSourceConfig) -> str:
    problems = check_source(found)
    if problems:
        return str(UserError(problems))
    with pytest.raises(UserError) as refused:
        read(found, 0, Audit())
    return str(refused.value)


# Encodings


def test_an_encoding_is_named(tmp_path: Path) -> None:
    found = source(tmp_path, LOG.replace("u1", "Müller").encode("latin-1"), encoding="latin-1")
    assert [row[0] for row in rows_of(found)] == ["Müller", "Müller"]


def test_another_encoding_is_refused_until_it_is_named(tmp_path: Path) -> None:
    found = refusal(source(tmp_path, LOG.replace("u1", "Müller").encode("latin-1")))
    assert "log.csv:2" in found
    assert "is not UTF-8" in found
    assert "data.source.encoding" in found


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le"])
def test_utf16_is_told_by_its_first_bytes_and_said(tmp_path: Path, encoding: str) -> None:
    found, audit = source(tmp_path, ("\ufeff" * (encoding != "utf-16") + LOG).encode(encoding)), Audit()
    assert rows_of(found, audit)[0] == ("u1", "i1", 1_700_000_000_000)
    assert any("is read as UTF-16" in finding["text"] for finding in audit.findings)


def test_bytes_of_another_encoding_are_named_by_line(tmp_path: Path) -> None:
    found = refusal(source(tmp_path, LOG.encode() + b"u2,\x81,1700000000\n", encoding="cp1252"))
    assert f"{tmp_path / 'log.csv'}:4" in found
    assert "byte 0x81 is not cp1252" in found


def test_faults_of_a_copy_are_told_of_the_file_itself(tmp_path: Path) -> None:
    found = refusal(source(tmp_path, (LOG + "u2,,1700000000\n").encode("utf-16"), encoding="utf-16"))
    assert f"{tmp_path / 'log.csv'}:4 item_id: empty" in found


@pytest.mark.parametrize("encoding", ["hex", "utf-99", ""])
def test_what_is_no_encoding_is_refused(tmp_path: Path, encoding: str) -> None:
    with pytest.raises(ValueError, match="expected a name such as utf-8"):
        source(tmp_path, LOG, encoding=encoding)


def test_a_changed_file_is_copied_anew(tmp_path: Path) -> None:
    found = source(tmp_path, LOG.encode("latin-1"), encoding="latin-1")
    assert len(rows_of(found)) == 2
    source(tmp_path, (LOG + "ü,i9,1700000099\n").encode("latin-1"), encoding="latin-1")
    assert rows_of(found)[-1][0] == "ü"


# Python's dicts

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(-1e9, 1e9)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)  # fmt: skip


@given(st.lists(st.dictionaries(st.text(max_size=8), VALUES, max_size=5), min_size=1, max_size=4))
def test_what_python_prints_is_read_as_python_reads_it(dicts: list[dict[str, Any]]) -> None:
    text = "\n".join(map(repr, dicts))
    assert [json.loads(line) for line in as_json(text).split("\n")] == [
        ast.literal_eval(line) for line in text.split("\n")
    ]


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("{u'a': u'caf\\xe9', 'n': 12L, 't': ('x', 1)}", {"a": "café", "n": 12, "t": ["x", 1]}),
        ('{\'a\': "it\'s", "b": \'say "so"\'}', {"a": "it's", "b": 'say "so"'}),
        ("{'a': 'None, (True)', 'b': None}", {"a": "None, (True)", "b": None}),
        ("{'a': '\\d \\\\ \\n \\101 \\U0001f600'}", {"a": "\\d \\ \n A 😀"}),
        ("{'a': '\\ud83d'}", {"a": "\ufffd"}),
        ("{'a': nan}", {"a": None}),
    ],
)
def test_the_grammar_of_both_pythons(written: str, value: Any) -> None:
    assert json.loads(as_json(written)) == value


@pytest.mark.parametrize(
    "bad", ["{'a': __import__('os')}", "{'user_id': 'u' + 'v'}", "{'a': [1 for x in y]}", "{'a': 'b}"]
)
def test_what_is_no_literal_is_refused_with_its_line(tmp_path: Path, bad: str) -> None:
    good = "{'user_id': 'u1', 'item_id': 'i1', 'timestamp': 1700000000}\n"
    assert f"{tmp_path / 'log.json'}:2: not JSON" in refusal(source(tmp_path, good + bad + "\n", "log.json"))


def test_that_a_file_holds_dicts_of_python_is_said(tmp_path: Path) -> None:
    audit = Audit()
    rows_of(source(tmp_path, "{'user_id': 'u1', 'item_id': 'i1', 'timestamp': 1700000000}\n", "log.json"), audit)
    assert any("is read as dicts of Python" in finding["text"] for finding in audit.findings)


# Lists, numbers of columns, order


def test_lists_keep_their_order(tmp_path: Path) -> None:
    found = source(tmp_path, "\ufeffu1 i3 i1  i2\n\nu2\nu3\ti1\n", "train.txt", format="lists")
    assert [row[:2] for row in rows_of(found)] == [("u1", "i3"), ("u1", "i1"), ("u1", "i2"), ("u3", "i1")]


def test_columns_by_number(tmp_path: Path) -> None:
    found = source(tmp_path, "5,i1,u1,1700000000\n", header=False, columns={"user": 3, "item": 2, "timestamp": 4})
    assert rows_of(found) == [("u1", "i1", 1_700_000_000_000)]


def test_a_number_beyond_the_columns_is_refused(tmp_path: Path) -> None:
    found = refusal(source(tmp_path, "5,i1,u1\n", header=False, columns={"user": 3, "item": 7}))
    assert "no column '7'" in found
    assert "columns found: 1, 2, 3" in found


def test_rows_of_one_time_are_put_in_order(tmp_path: Path) -> None:
    text = "user_id,item_id,date,place\nu1,late,2024-01-02,2\nu1,early,2024-01-02,1\n"
    rows = rows_of(source(tmp_path, text, columns={"order": "place"}))
    assert rows[0][2] - rows[1][2] == 1


@pytest.mark.parametrize("place", ["-1", "", "x", "86400000"])
def test_a_place_that_is_none_is_refused(tmp_path: Path, place: str) -> None:
    text = f"user_id,item_id,date,place\nu1,i1,2024-01-02,{place}\nu1,i2,2024-01-02,1\n"
    assert "log.csv:2 place" in refusal(source(tmp_path, text, columns={"order": "place"}))


def test_an_order_without_times_is_refused(tmp_path: Path) -> None:
    found = refusal(source(tmp_path, "user_id,item_id,place\nu1,i1,1\n", columns={"order": "place"}))
    assert "there is no time" in found


# Times and numbers


def test_a_form_of_time_decides_what_reads_as_two_dates(tmp_path: Path) -> None:
    text = "user_id,item_id,when\nu1,i1,03/04/2024 1:05 PM\n"
    columns = ColumnsConfig(timestamp="when")
    assert "no time" in refusal(source(tmp_path, text, columns=columns)) or "03/04/2024" in refusal(
        source(tmp_path, text, columns=columns)
    )
    american = rows_of(source(tmp_path, text, columns=columns, timestamp_format="%m/%d/%Y %I:%M %p"))
    assert american[0][2] == 1_709_557_500_000


def test_a_time_of_another_form_is_named(tmp_path: Path) -> None:
    text = "user_id,item_id,date\nu1,i1,31.12.2023 10:00\nu1,i2,2024-01-01\n"
    found = refusal(source(tmp_path, text, timestamp_format="%d.%m.%Y %H:%M"))
    assert "log.csv:3 date: '2024-01-01'; text as %d.%m.%Y %H:%M" in found


@pytest.mark.parametrize("pattern", ["%Q", "%H:%M", "%d.%m", "%"])
def test_a_form_that_reads_no_date_is_refused(tmp_path: Path, pattern: str) -> None:
    assert "data.source.timestamp_format" in refusal(source(tmp_path, LOG, timestamp_format=pattern))


def test_decimal_commas(tmp_path: Path) -> None:
    text = 'user_id;item_id;timestamp;rating\nu1;i1;1700000000;"2,5"\nu1;i2;1700000001;4,0\n'
    found = source(tmp_path, text, delimiter=";", min_rating=3, decimal=",")
    assert read(found, 0, Audit()).interactions.collect()["filtered"].to_list() == ["low_rating", None]
    assert "a number" in refusal(source(tmp_path, text, delimiter=";", min_rating=3))


# Joined tables

BASKETS = "order_id,item_id\n1,i1\n1,i2\n2,i3\n"
ORDERS = "id,user_id,timestamp\n2,u2,1700000100\n1,u1,1700000000\n"


def baskets(folder: Path, orders: str = ORDERS, log: str = BASKETS, **keys: Any) -> TableSourceConfig:
    (folder / "orders.csv").write_text(orders)
    join = {"path": folder / "orders.csv", "by": "order_id", "key": "id"}
    return source(folder, log, join=join, **keys)


def test_columns_of_another_table_are_joined(tmp_path: Path) -> None:
    found = baskets(tmp_path)
    assert check_source(found) == []
    assert [row[:2] for row in rows_of(found)] == [("u1", "i1"), ("u1", "i2"), ("u2", "i3")]
    assert tmp_path / "orders.csv" in source_files(found).values()


def test_rows_without_a_partner_are_counted_and_refused_by_their_line(tmp_path: Path) -> None:
    lost = baskets(tmp_path, log=BASKETS + "9,i4\n")
    assert "log.csv:5 user_id: empty" in refusal(lost)
    found, audit = baskets(tmp_path, log=BASKETS + "9,i4\n", drop_without_id=True), Audit()
    assert len(rows_of(found, audit)) == 3
    assert any("1 row of log.csv: their order_id is not in orders.csv" in one["text"] for one in audit.findings)


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    found = refusal(baskets(tmp_path, ORDERS + "1,u7,1700000200\n"))
    assert "orders.csv id: '1' stands in 2 rows; one row for each key" in found


def test_what_a_join_lacks_is_told_before_rows_are_read(tmp_path: Path) -> None:
    [problem] = check_source(baskets(tmp_path, ORDERS.replace("id,user", "number,user", 1)))
    assert (problem.field, problem.found) == ("data.source.join.key", "no column 'id'")
    found = baskets(tmp_path)
    (tmp_path / "orders.csv").unlink()
    [problem] = check_source(found)
    assert problem.field == "data.source.join.path"


# Separators


@pytest.mark.parametrize(("separator", "called"), [(";", "';'"), ("\t", "tabs"), ("|", "'|'")])
def test_a_csv_that_is_separated_otherwise_is_read_as_it_is_and_said(
    tmp_path: Path, separator: str, called: str
) -> None:
    rows = [["user_id", "item_id", "timestamp"], ["u1", "i1", "1700000000"]]
    if separator != "\t":  # between tabs, quotation marks may be text
        rows[0].append('"note, if any"')
        rows[1].append('"a, b"')
    found, audit = source(tmp_path, "\n".join(map(separator.join, rows)) + "\n"), Audit()
    assert check_source(found) == []
    assert rows_of(found, audit) == [("u1", "i1", 1_700_000_000_000)]
    told = f"log.csv is read as a table of fields between {called}: that is what it holds."
    assert told in [finding["text"] for finding in audit.findings]


def test_each_table_is_separated_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text('item_id,title\ni1,"One; two, three"\ni2,Four\n')
    found = source(tmp_path, LOG.replace(",", ";"), items=tmp_path / "items.csv")
    corpus = read(found, 0, Audit())
    assert corpus.interactions.collect().height == 2
    assert corpus.items["title"].to_list() == ["One; two, three", "Four"]


@pytest.mark.parametrize("delimiter", [",", ";"])
def test_a_separator_that_is_named_is_not_told_by_the_file(tmp_path: Path, delimiter: str) -> None:
    found, audit = source(tmp_path, LOG.replace(",", ";"), delimiter=delimiter), Audit()
    if delimiter == ",":
        assert "it is separated by ';'" in refusal(found)
    else:
        assert len(rows_of(found, audit)) == 2
        assert not any("is read as" in finding["text"] for finding in audit.findings)


def test_a_mark_in_the_header_alone_separates_nothing(tmp_path: Path) -> None:
    assert "it is separated by ';'" in refusal(source(tmp_path, "user_id;item_id\nu1\nu2\n"))
