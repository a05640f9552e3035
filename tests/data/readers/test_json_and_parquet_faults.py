"""JSON that is not quite JSON, names that mislead, parts of Parquet that are broken: read and told, or named."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from msr_adapter.config.schema import TableSourceConfig
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.readers.log_and_items import read_named_items
from msr_adapter.data.readers.reader import Corpus
from msr_adapter.data.readers.sources import check_source, naming_files, read
from msr_adapter.data.readers.table_layout import table_at
from msr_adapter.data.readers.table_scan import column_names
from msr_adapter.errors import UserError
from tests.support.paths import shared_data

ROWS = [{"user": f"u{n % 5}", "item": f"i{n % 7}", "timestamp": 1_600_000_000 + n} for n in range(40)]
PAIRS = [(str(row["user"]), str(row["item"])) for row in ROWS]


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def opened(path: Path, **keys: object) -> tuple[Corpus, list[str]]:
    audit = Audit()
    corpus = read(TableSourceConfig.model_validate({"kind": "table", "interactions": path, **keys}), 0, audit)
    return corpus, [finding["text"] for finding in audit.findings if finding["severity"] == "warning"]


def pairs_of(corpus: Corpus) -> list[tuple[str, str]]:
    return corpus.interactions.select("user_id", "item_id").collect().rows()


def refusal(path: Path, **keys: object) -> list[str]:
    with pytest.raises(UserError) as caught:
        opened(path, **keys)
    return [str(problem).replace(f"{path.parent}/", "") for problem in caught.value.problems]


def put(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda text: "\ufeff" + text, ""),
        (lambda text: text.replace("}\n", ', "rating": NaN}\n'), "holds NaN or Infinity 40 times (first in line 1)"),
        (lambda text: text.replace("}\n", ', "rating": -Infinity}\n', 1), "Infinity 1 time (first in line 1)"),
        (lambda text: text.replace("}\n", ', "x": {"y": [NaN]}}\n', 3), "NaN or Infinity 3 times"),
        (lambda text: text.replace("}\n", ', "note": "NaN: \\"Infinity\\""}\n'), ""),
        (lambda text: text.replace("}\n", ', "note": "\\\\ud83d"}\n'), ""),
        (lambda text: text.replace("}\n", ', "note": "\\ud83d\\ude00"}\n'), ""),
        (lambda text: text.replace("}\n", ', "note": "\\ud83d"}\n', 2), "of characters 2 times (first in line 1)"),
        (lambda text: text.replace("}\n", ', "user": "other"}\n', 1), "the key 'user' twice in line 1"),
        (lambda text: text.replace("}\n", ', "a": {"user": 1, "b": [{"user": 2}]}}\n'), ""),
        (lambda text: text.replace("\n", "\r\n"), ""),
        (lambda text: text.replace("\n", "\n\n  \n"), ""),
        (lambda text: text.removesuffix("\n"), ""),
        (lambda text: text.replace(": ", ":").replace(", ", " ,\t"), ""),
        (lambda text: text.replace('": ', '" : '), ""),
        (lambda text: text.replace("}\n", ', "deep": ' + "[" * 500 + "]" * 500 + "}\n", 1), ""),
        (lambda text: text.replace("}\n", ', "text": "' + "long " * 300_000 + '"}\n', 1), ""),
    ],
)  # fmt: skip
def test_json_lines_of_other_writers(tmp_path: Path, change: Callable[[str], str], told: str) -> None:
    path = put(tmp_path / "log.jsonl", change(lines(ROWS)).encode("utf-8", "surrogatepass"))
    corpus, said = opened(path)
    assert pairs_of(corpus) == PAIRS
    assert corpus.interactions.select("timestamp").collect().to_series().to_list()[:2] == [
        1_600_000_000_000,
        1_600_000_001_000,
    ]
    assert (told in said[0]) if told else said == []


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("{'user': 1}", "not JSON (Expecting property name"),
        ('{"user": 1, "item": 2', "not JSON"),
        ('{"user": 1} {"user": 2}', "not JSON (Extra data"),
        ('{"user": 1},', "not JSON (Extra data"),
        ("[1, 2]", "a JSON list"),
        ('"text"', "a JSON str"),
        ("null", "a JSON NoneType"),
        ('{"user": 1, "item": 1e999}', "cannot be read (InvalidNumber"),
        ('{"user": 1, "item": ' + "[" * 1500 + "]" * 1500 + "}", ""),
        ('{"user": "a\tb"}', "not JSON (Invalid control character"),
        ('{"user": 01}', "not JSON"),
        ('{"user": .5}', "not JSON"),
        ("# a comment", "not JSON"),
        ('{"user": "open}', "not JSON"),
    ],
)
def test_the_line_that_is_no_json_is_named(tmp_path: Path, line: str, found: str) -> None:
    text = lines(ROWS[:20]) + line + "\n" + lines(ROWS[20:])
    [problem] = refusal(put(tmp_path / "log.jsonl", text))
    assert problem.startswith(f"log.jsonl:21: {found}")
    assert "TapeError" not in problem


def test_many_broken_lines_are_one_problem(tmp_path: Path) -> None:
    text = lines(ROWS) + '{"user": \n' * 300 + "[1]\n" * 50
    found = refusal(put(tmp_path / "log.jsonl", text))
    assert len(found) == 2
    assert found[0].startswith("log.jsonl:41: not JSON")
    assert "and 299 more like it (lines 42, 43, 44, ...)" in found[0]
    assert found[1].startswith("log.jsonl:341: a JSON list, and 49 more like it (lines 342, 343, 344, ...)")


@pytest.mark.parametrize("at", [1, 999, 1000, 1001, 2500, 39_999])
@pytest.mark.parametrize("key", ["timestamp", "event \\u0074ime", "unixReviewTime"])
def test_a_key_counts_wherever_it_first_appears(tmp_path: Path, at: int, key: str) -> None:
    with (tmp_path / "log.jsonl").open("w") as file:
        for n in range(40_000):
            late = f', "{key}": {1_700_000_000 - n}' if n >= at else ""
            file.write(
                f'{{"user": "u{n % 50}", "item": "i{n % 70}", "a": {{"{key}": 1, "b": "\\"{key}\\": 2"}}{late}}}\n'
            )
    source = TableSourceConfig(kind="table", interactions=tmp_path / "log.jsonl")
    assert column_names(table_at(source.interactions)) == ["user", "item", "a", json.loads(f'"{key}"')]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("log.json", lines(ROWS).encode(), ""),
        ("log.ndjson", lines(ROWS).encode(), ""),
        ("log.json.gz", gzip.compress(lines(ROWS).encode()), ""),
        ("log.NDJSON.GZ", gzip.compress(lines(ROWS).encode()), ""),
        ("log.json", json.dumps(ROWS, indent=2).encode(), ""),
        ("log.jsonl", json.dumps(ROWS).encode(), ""),
        ("log.jsonl", gzip.compress(lines(ROWS).encode()), ""),
        ("log.txt", lines(ROWS).encode(), "log.txt is read as JSON lines"),
        ("log.csv", lines(ROWS).encode(), "log.csv is read as JSON lines"),
        ("log.tsv.gz", gzip.compress(lines(ROWS).encode()), "log.tsv.gz is read as JSON lines"),
        ("log.txt", pl.DataFrame(ROWS).write_csv().encode(), "log.txt is read as a table of fields between commas"),
        ("log.txt", pl.DataFrame(ROWS).write_csv(separator="\t").encode(), "a table of fields between tabs"),
        ("log.dat", pl.DataFrame(ROWS).write_csv(separator="|").encode(), "a table of fields between '|'"),
        ("log.txt.gz", gzip.compress(pl.DataFrame(ROWS).write_csv(separator=";").encode()), "between ';'"),
        ("log.csv", b"\xef\xbb\xbf" + pl.DataFrame(ROWS).write_csv().encode(), ""),
    ],
)
def test_what_a_file_holds_counts_for_more_than_its_name(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    path = put(tmp_path / name, content)
    assert check_source(TableSourceConfig(kind="table", interactions=path)) == []
    corpus, said = opened(path)
    assert pairs_of(corpus) == PAIRS
    assert (told in said[0]) if told else said == []


def test_parquet_under_another_name_and_a_format_that_is_said(tmp_path: Path) -> None:
    pl.DataFrame(ROWS).write_parquet(tmp_path / "log.csv")
    corpus, said = opened(tmp_path / "log.csv")
    assert (pairs_of(corpus), said) == (PAIRS, ["log.csv is read as Parquet: that is what it holds."])
    path = put(tmp_path / "log.unheard-of", pl.DataFrame(ROWS).write_csv(separator="\t"))
    assert (
        "unknown kind of file '.unheard-of'"
        in check_source(TableSourceConfig(kind="table", interactions=path))[0].found
    )
    assert pairs_of(opened(path, format="tsv")[0]) == PAIRS
    items = put(tmp_path / "items.csv", "item,title\ni1,One\n")
    log = put(tmp_path / "reviews", lines(ROWS))
    corpus, _ = opened(log, format="jsonl", items=items)
    assert corpus.items is not None
    assert (pairs_of(corpus), corpus.items.height) == (PAIRS, 1)


def parts(folder: Path) -> Path:
    log = folder / "log"
    log.mkdir()
    for n in range(4):
        pl.DataFrame(ROWS[n * 10 : n * 10 + 10]).write_parquet(log / f"part-{n}.parquet")
    return log


def _other_type(part: Path) -> None:
    pl.DataFrame(ROWS[:3]).with_columns(pl.col("item").str.len_chars()).write_parquet(part)


def _fewer_columns(part: Path) -> None:
    pl.DataFrame(ROWS[:3]).select("user", "timestamp").write_parquet(part)


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lambda part: part.write_bytes(b""), "0 bytes; a Parquet file"),
        (lambda part: part.write_bytes(part.read_bytes()[:-50]), "not a readable Parquet file"),
        (lambda part: part.write_bytes(b"PAR1" + bytes(300) + b"PAR1"), "not a readable Parquet file"),
        (lambda part: part.write_bytes(b"user,item\na,b\n"), "not a readable Parquet file"),
        (lambda part: part.write_bytes(part.read_bytes()[:60] + bytes(100) + part.read_bytes()[160:]),
         "not a readable Parquet file"),
        (lambda part: part.write_bytes(part.read_bytes()[:4] + part.read_bytes()[500:]), ""),
        (_other_type, "a column of type UInt32; String in part-0.parquet"),
        (_fewer_columns, "no such column; String in part-0.parquet"),
    ],
)  # fmt: skip
def test_the_part_that_is_broken_is_named(tmp_path: Path, spoil: Callable[[Path], None], found: str) -> None:
    log = parts(tmp_path)
    assert pairs_of(opened(log)[0]) == PAIRS
    spoil(log / "part-2.parquet")
    problems = refusal(log)
    assert all(problem.startswith("log/part-2.parquet") for problem in problems)
    assert found in problems[0]
    assert "panic" not in problems[0].lower()


@pytest.mark.parametrize("name", ["log_bom.jsonl", "log_nan_rating.jsonl"])
def test_json_that_people_have(name: str) -> None:
    folder = shared_data("").parent / "faults" / "07-jsonl-nan-and-bom"
    if not folder.is_dir():
        pytest.skip("the shared inputs are not here")
    assert len(pairs_of(opened(folder / name)[0])) == 410


@pytest.mark.parametrize("name", ["reviews.json", "reviews.json.gz"])
def test_suffixes_that_people_have(name: str) -> None:
    folder = shared_data("").parent / "faults" / "12-suffixes"
    if not folder.is_dir():
        pytest.skip("the shared inputs are not here")
    corpus, said = opened(folder / name, items=folder / "items.csv")
    assert (len(pairs_of(corpus)), said) == (410, [])


def test_late_keys_that_people_have() -> None:
    folder = shared_data("").parent / "faults" / "13-late-json-keys"
    if not folder.is_dir():
        pytest.skip("the shared inputs are not here")
    assert column_names(table_at(folder / "log.jsonl")) == ["user", "item", "timestamp"]
    items = read_named_items(table_at(folder / "items.jsonl"), {}, Audit())
    assert items["category"].null_count() == 1000
    assert items["image"].null_count() == 1000


def test_a_fault_that_comes_late_names_the_files(tmp_path: Path) -> None:
    class PanicException(BaseException):
        """What a fault within Polars is."""

    source = TableSourceConfig(kind="table", interactions=tmp_path / "log.csv", items=tmp_path / "items.csv")
    for error in (PanicException("index out of bounds"), pl.exceptions.ComputeError("broken\nand more")):
        with (
            pytest.raises(UserError, match=r"log.csv, .*items.csv: cannot be read; (index|broken)"),
            naming_files(source),
        ):
            raise error
    with pytest.raises(KeyboardInterrupt), naming_files(source):
        raise KeyboardInterrupt
