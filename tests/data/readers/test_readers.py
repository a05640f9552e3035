"""Readers: every format gives the same corpus; every fault names file, line, field and what is allowed."""

import json
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from msr_adapter.config.schema import (
    ColumnsConfig,
    HMSourceConfig,
    MicroLensSourceConfig,
    SyntheticSourceConfig,
    TableSourceConfig,
)
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.readers.column_names import find_columns
from msr_adapter.data.readers.reader import Corpus
from msr_adapter.data.readers.sources import check_source, read
from msr_adapter.data.readers.value_checks import OR_LEAVE_OUT
from msr_adapter.errors import UserError
from tests.support.data_builders import write_csv

ROWS = [("007", "0042", 1_700_000_000), ("8", "43", 1_700_000_001)]


def table(interactions: Path, items: Path | None = None, **columns: str) -> TableSourceConfig:
    return TableSourceConfig(kind="table", interactions=interactions, items=items, columns=ColumnsConfig(**columns))


def read_one(source: TableSourceConfig | MicroLensSourceConfig | SyntheticSourceConfig) -> Corpus:
    return read(source, 0, Audit())


def problems_of(source: TableSourceConfig | MicroLensSourceConfig) -> list[str]:
    with pytest.raises(UserError) as caught:
        read_one(source)
    return [str(problem) for problem in caught.value.problems]


def write_log(folder: Path, suffix: str) -> Path:
    path = folder / f"log.{suffix}"
    frame = pl.DataFrame(ROWS, schema=["user_id", "item_id", "timestamp"], orient="row")
    if suffix == "parquet":
        frame.write_parquet(path)
    elif suffix == "jsonl":
        frame.write_ndjson(path)
    else:
        frame.write_csv(path, separator="," if suffix == "csv" else "\t")
    return path


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_every_format_gives_the_same_log_and_keeps_leading_zeros(tmp_path: Path, suffix: str) -> None:
    corpus = read_one(table(write_log(tmp_path, suffix)))
    assert corpus.interactions.collect().rows() == [("007", "0042", 1_700_000_000_000), ("8", "43", 1_700_000_001_000)]


@pytest.mark.parametrize(
    "header",
    ["user,item,timestamp", "userID,itemID,time", "uid,movieId,t_dat", "customer_id,article_id,t_dat",
     "user_id:token,video_id:token,timestamp:float", "USER_ID,parent_asin,Timestamp"],
)  # fmt: skip
def test_well_known_column_names_are_found(tmp_path: Path, header: str) -> None:
    path = tmp_path / "log.csv"
    path.write_text(f"rating,{header}\n5,a,b,1700000000\n")
    assert read_one(table(path)).interactions.collect().rows() == [("a", "b", 1_700_000_000_000)]


def test_configured_columns_override_aliases(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "log.csv", ["user", "item", "who"], [["x", "i", "y"]])
    assert read_one(table(path, user="who")).interactions.collect()["user_id"].to_list() == ["y"]


def test_of_two_columns_of_one_name_the_first_counts_and_an_earlier_alias_wins() -> None:
    assert find_columns("log.csv", ["User", "USER", "what"], ("user",), {}) == {"user": "User"}
    assert find_columns("log.csv", ["uid", "user_id"], ("user",), {}) == {"user": "user_id"}


def test_missing_columns_are_told_together_with_a_suggestion() -> None:
    with pytest.raises(UserError) as caught:
        find_columns("log.csv", ["usr_id", "itm", "when"], ("user", "item"), {}, ("timestamp",))
    first, second = map(str, caught.value.problems)
    assert first.startswith("log.csv user: no column for the user; did you mean 'usr_id'?")
    assert "names tried: user_id, uid" in first
    assert "columns found: usr_id, itm, when. Set data.source.columns.user" in first
    assert second.startswith("log.csv item: no column for the item")


def test_a_configured_column_must_exist_even_if_it_is_the_optional_time(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "log.csv", ["user", "item", "time"], [["a", "b", 1]])
    [problem] = problems_of(table(path, timestamp="tiem"))
    assert "timestamp: no column 'tiem'; did you mean 'time'?" in problem


def test_without_time_the_order_of_rows_counts(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "log.csv", ["user", "item"], [["a", "z"], ["b", "y"], ["a", "x"]])
    audit = Audit()
    assert read(table(path), 0, audit).interactions.collect()["timestamp"].to_list() == [0, 1, 2]
    assert any("no time" in finding["text"] for finding in audit.findings)


def test_ids_are_stripped_and_blank_lines_ignored(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(b"\xef\xbb\xbfuser,item,timestamp\r\n 1 , 02,1\r\n\r\n3,4,2\r\n\r\n")
    assert read_one(table(path)).interactions.collect().rows() == [("1", "02", 1000), ("3", "4", 2000)]


def test_whole_floats_of_parquet_are_ids_without_a_fraction(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    pl.DataFrame({"user": [1.0, 2.0], "item": [7, 8], "time": [1.5, 2.0]}).write_parquet(path)
    assert read_one(table(path)).interactions.collect().rows() == [("1", "7", 1500), ("2", "8", 2000)]


def test_a_nested_parquet_column_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    pl.DataFrame({"user": ["a"], "item": [["b", "c"]]}).write_parquet(path)
    [problem] = problems_of(table(path))
    assert "item: a column of type List(String); text, numbers or dates" in problem


def test_parquet_dates_and_bad_rows(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    moment = datetime(2024, 1, 2, tzinfo=UTC)
    pl.DataFrame({"user": ["a", "b"], "item": ["x", "y"], "time": [moment, None]}).write_parquet(path)
    assert problems_of(table(path))[0].startswith(
        f"{path}:2 time: empty is not a time: 1 of 2 rows without one, 1 is empty"
    )


def test_all_bad_rows_are_told_with_line_field_value_and_remedy(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("user,item,timestamp\na,b,1\nc,d\n\n,e,3\nf,g,soon\nh,i,4\n")
    assert problems_of(table(path)) == [
        f"{path}:3: 2 columns; 3 expected. Complete or remove the row",
        f"{path}:5 user: empty; an id. {OR_LEAVE_OUT}",
        f"{path}:6 timestamp: 'soon'; seconds or milliseconds since 1970 (all the same), or an ISO date "
        "(2024-01-31, 2024-01-31T12:00:00Z). Correct the row",
    ]


def test_a_fault_that_repeats_is_told_once_with_its_number(tmp_path: Path) -> None:
    path = write_csv(
        tmp_path / "log.csv", ["user", "item", "time"], [["a", "b", n] for n in range(40)] + [["a", "b", "x"]] * 33
    )
    [problem] = problems_of(table(path))
    assert problem.startswith(
        f"{path}:42 time: 'x', and 32 more like it (lines 43, 44, 45, ...); seconds or millisecon"
    )


def test_a_quoted_line_break_does_not_shift_the_reported_line(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_text('item,title\n1,"two\nlines"\n,"no id"\n')
    log = write_csv(tmp_path / "log.csv", ["user", "item"], [["a", "1"]])
    assert problems_of(table(log, path)) == [f"{path}:4 item: empty; an id. {OR_LEAVE_OUT}"]


def test_too_many_columns_and_an_open_quote_are_explained(tmp_path: Path) -> None:
    long = tmp_path / "long.csv"
    long.write_text("user,item,timestamp\na,b,1\na,b,c,2\n")
    assert problems_of(table(long)) == [
        f"{long}:3: 4 columns; 3, as in the header. Quote a field that holds the separator"
    ]
    quote = tmp_path / "quote.csv"
    quote.write_text('user,item\n"a,b\nc,d\n')
    assert "Look for a quotation mark that is never closed" in problems_of(table(quote))[0]


def test_text_that_is_not_utf8_is_told_by_line(tmp_path: Path) -> None:
    for name, start in (("log.csv", b"user,item\n"), ("log.jsonl", b'{"user":"a","item":"b"}\n')):
        path = tmp_path / name
        path.write_bytes(start + b"caf\xe9,3\n")
        assert problems_of(table(path)) == [
            f"{path}:2: byte 0xe9 at column 4 is not UTF-8; text in UTF-8. Save the file as UTF-8, "
            "or set data.source.encoding of a table of your own"
        ]


def test_bad_json_lines_are_told_by_line(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"user": 1, "item": 2}\n\n{"user": 1,\n[1]\n{"user": 3, "item": 4}\n')
    first, second = problems_of(table(path))
    assert first.startswith(f"{path}:3: not JSON (")
    assert second == f"{path}:4: a JSON list; one JSON object per line"


def test_json_rows_that_lack_a_key(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"user": 1, "item": "02", "extra": {"a": 1}}\n\n{"user": 5}\n')
    assert problems_of(table(path)) == [f"{path}:3 item: empty; an id. {OR_LEAVE_OUT}"]


def test_a_parquet_file_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    path.write_text("user,item")
    assert problems_of(table(path))[0].startswith(f"{path}: not a readable Parquet file")


@pytest.mark.parametrize("content", ["user,item,timestamp\n", "user,item,timestamp\n\n\n"])
def test_a_log_without_rows(tmp_path: Path, content: str) -> None:
    path = tmp_path / "log.csv"
    path.write_text(content)
    assert problems_of(table(path)) == [f"{path}: no interactions; at least one row below the header"]


def test_problems_of_both_files_come_together(tmp_path: Path) -> None:
    log = write_csv(tmp_path / "log.csv", ["user", "item", "time"], [["a", "b", "x"]])
    items = write_csv(tmp_path / "items.csv", ["item", "price"], [["b", 3]])
    first, second = problems_of(table(log, items))
    assert first.startswith(f"{log}:2 time")
    assert "title: no column for the title" in second


def test_repeated_titles_keep_the_first_and_are_counted(tmp_path: Path) -> None:
    log = write_csv(tmp_path / "log.csv", ["user", "item"], [["a", "1"]])
    items = write_csv(tmp_path / "items.csv", ["item_id", "name"], [["1", "one"], ["1", "uno"], ["2", ""]])
    audit = Audit()
    corpus = read(table(log, items), 0, audit)
    assert corpus.items is not None
    assert corpus.items.rows() == [("1", "one"), ("2", None)]
    assert (audit.counts["titles_read"], audit.counts["titles_dropped_duplicate"]) == (3, 1)


def microlens(folder: Path, pairs: str, titles: str, suffix: str) -> MicroLensSourceConfig:
    folder.mkdir(exist_ok=True)
    (folder / f"pairs.{suffix}").write_bytes(pairs.encode())
    (folder / "titles.csv").write_bytes(titles.encode())
    return MicroLensSourceConfig(kind="microlens", pairs=folder / f"pairs.{suffix}", titles=folder / "titles.csv")


def test_microlens_tsv_positions_are_times(tmp_path: Path) -> None:
    source = microlens(tmp_path, "1\t19 2 30\r\n2\t7\r\n1\t 8  9 \r\n\r\n", 'item,title\r\n2,"a, ""b"""\r\n', "tsv")
    corpus = read_one(source)
    assert corpus.interactions.collect().rows() == [
        ("1", "19", 0), ("1", "2", 1), ("1", "30", 2), ("2", "7", 0), ("1", "8", 3), ("1", "9", 4)
    ]  # fmt: skip
    assert corpus.items is not None
    assert corpus.items.rows() == [("2", 'a, "b"')]


def test_microlens_csv_pairs(tmp_path: Path) -> None:
    source = microlens(tmp_path, "user,item,timestamp\n1,19,1583378629552\n", "item,title\n19,x\n", "csv")
    assert read_one(source).interactions.collect().rows() == [("1", "19", 1_583_378_629_552)]


def test_microlens_titles_without_header_or_quotes(tmp_path: Path) -> None:
    source = microlens(tmp_path, "1\t2 3\n", "2,one, two\n3\n", "tsv")
    corpus = read_one(source)
    assert corpus.items is not None
    assert corpus.items.rows() == [("2", "one, two"), ("3", "")]


def test_microlens_faults_of_both_files_come_together(tmp_path: Path) -> None:
    source = microlens(tmp_path, "1\t2 3\n4\n\n\t5\n", "item,title\n ,x\n3,y\n", "tsv")
    assert problems_of(source) == [
        f"{source.pairs}:2: 1 columns; 2 expected. Complete or remove the row",
        f"{source.pairs}:4 user: empty; an id. Correct the row",
        f"{source.titles}:2 item: empty; an id. Correct the row",
    ]


def test_microlens_lines_without_any_tab(tmp_path: Path) -> None:
    source = microlens(tmp_path, "1 2 3\n4 5 6\n", "item,title\n3,y\n", "tsv")
    assert problems_of(source) == [
        f"{source.pairs}:1: 1 columns, and 1 more like it (line 2); 2 expected. Complete or remove the row"
    ]


def test_check_finds_faults_without_reading_rows(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").touch()
    (tmp_path / "log.xlsx").write_text("x")
    log = write_csv(tmp_path / "log.csv", ["who", "item"], [])
    found = [
        check_source(table(tmp_path / "none.csv", tmp_path)),
        check_source(table(tmp_path / "empty.csv", tmp_path / "log.xlsx")),
        check_source(table(log)),
        check_source(MicroLensSourceConfig(kind="microlens", pairs=log, titles=tmp_path / "nowhere" / "t.csv")),
    ]
    texts = [[str(problem) for problem in problems] for problems in found]
    assert "data.source.interactions: no such file; files there: empty.csv, log.csv" in texts[0][0]
    assert "data.source.items: not a file" in texts[0][1]
    assert "the file is empty" in texts[1][0]
    assert "unknown kind of file '.xlsx'; one of .csv, .tsv, .jsonl, .parquet" in texts[1][1]
    assert "no column for the user" in texts[2][0]
    assert "no column for the user" in texts[3][0]
    assert "data.source.titles: no such file" in texts[3][1]
    assert check_source(table(write_log(tmp_path, "jsonl"))) == []


def test_a_synthetic_dataset_whose_numbers_do_not_go_together_is_a_user_error() -> None:
    source = SyntheticSourceConfig(kind="synthetic", users=3, items=30, interactions_per_user=40)
    with pytest.raises(UserError, match=r"data.source.interactions_per_user: logs of up to 50"):
        read_one(source)


def test_a_very_long_field_does_not_break_the_explanation(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_text(f"item,title\n1,{'x' * 200_000}\n,y\n")
    log = tmp_path / "log.jsonl"
    log.write_text(json.dumps({"user": "a", "item": "1"}))
    assert problems_of(table(log, path)) == [f"{path}:3 item: empty; an id. {OR_LEAVE_OUT}"]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"user;item;time", "the header is one column, 'user;item;time': it is separated by ';'; ',' in a .csv"),
        (b"user\titem\ttime", "the header is one column, 'user\\titem\\ttime': it is separated by tabs; ',' in a"),
        ("user,item,time".encode("utf-16-le"), "the header holds zero bytes; text in UTF-8. Save the file as UTF-8"),
        (b"user,item,time,user", "user: two columns have this name. Rename or remove one of them"),
    ],
)
def test_a_header_that_is_none_is_told_for_what_it_is(tmp_path: Path, header: bytes, expected: str) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(header + b"\na,b,1,c\n")
    for problems in ([str(problem) for problem in check_source(table(path))], problems_of(table(path))):
        [problem] = problems
        assert problem.startswith(f"{path} {expected}" if expected.startswith("user:") else f"{path}: {expected}")


def test_columns_found_are_listed_as_far_as_one_reads() -> None:
    with pytest.raises(UserError, match=r"columns found: c0, .*, c29 and 70 more\. Set"):
        find_columns("log.csv", [f"c{number}" for number in range(100)], ("user",), {})


def test_a_kind_whose_columns_have_fixed_names_does_not_ask_to_name_them(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "transactions_train.csv", ["user", "item", "time"], [["a", "b", 1]])
    source = HMSourceConfig(kind="hm", transactions=path)
    with pytest.raises(UserError) as caught:
        read(source, 0, Audit())
    for problems in (check_source(source), caught.value.problems):
        steps = {problem.next_step for problem in problems}
        assert steps == {"Give the file as `hm` publishes it, or read a file of your own as kind: table"}
