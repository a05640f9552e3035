"""Rows whose user or item is empty or a word for nothing: refused, told, or left out where that is asked for."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from msr_adapter.config.schema import RecBoleSourceConfig, TableSourceConfig
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.readers.reader import Corpus
from msr_adapter.data.readers.sources import read
from msr_adapter.errors import UserError
from tests.support.reader_fixtures import put

GOOD = [("u1", "i1", 1_700_000_000), ("u1", "i2", 1_700_000_100), ("u2", "i1", 1_700_000_200)]
LACKING = [("", "i1"), ("u3", ""), ("nan", "i1"), ("u3", "NULL"), ("None", "i2"), ("\\N", "i2"), ("NA", "nan"),
           (" ", "i1"), ("<NA>", "i1"), ("u3", "N/A")]  # fmt: skip
ROWS: list[tuple[Any, ...]] = [
    row for n, pair in enumerate(LACKING) for row in ((*pair, 1_700_001_000 + n), GOOD[n % 3])
]  # fmt: skip
"""Rows that lack an id among others, and each of `GOOD` several times."""


def csv_of(rows: list[tuple[Any, ...]]) -> str:
    return "user,item,timestamp\n" + "".join(f"{u},{i},{t}\n" for u, i, t in rows)


def reading(folder: Path, kind: str, rows: list[tuple[Any, ...]], **settings: Any) -> tuple[Corpus, Audit]:
    """Return the corpus of a log of ``kind``, and the audit of reading it."""
    if kind == "csv":
        path = put(folder / "log.csv", csv_of(rows))
    elif kind == "jsonl":
        keys = ("user", "item", "timestamp")
        path = put(folder / "log.jsonl", "".join(json.dumps(dict(zip(keys, row, strict=True))) + "\n" for row in rows))
    else:
        path = folder / "log.parquet"
        pl.DataFrame(rows, schema=["user", "item", "timestamp"], orient="row").write_parquet(path)
    audit = Audit()
    return read(TableSourceConfig(kind="table", interactions=path, **settings), 0, audit), audit


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_they_are_left_out_and_counted_where_that_is_asked_for(tmp_path: Path, kind: str) -> None:
    corpus, audit = reading(tmp_path, kind, ROWS, drop_without_id=True)
    left = corpus.interactions.collect()
    assert left.select("user_id", "item_id").rows() == [row[:2] for row in (GOOD * 4)[:10]]
    assert left.columns == ["user_id", "item_id", "timestamp"]
    assert audit.counts["interactions_dropped_no_id"] == 10
    assert audit.counts["interactions_read"] == 10  # before the others arrive
    assert [one["text"] for one in audit.findings if one["topic"] == "null-ids"] == [
        f"Dropped 10 interactions of {next(tmp_path.iterdir()).name} whose user or item is empty or a word for nothing "
        "(data.source.drop_without_id)."
    ]
    assert not [one for one in audit.findings if "were read" in one["text"]]


def test_an_empty_id_is_refused_and_a_word_kept_where_it_is_not(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        reading(tmp_path, "csv", ROWS)
    said = str(caught.value).replace(f"{tmp_path}/", "")
    assert "log.csv:2 user: empty" in said
    assert "log.csv:4 item: empty" in said
    assert "log.csv:16" in said or "line 16" in said
    words = [row for row in ROWS if row[0].strip() and row[1].strip()]
    corpus, audit = reading(tmp_path, "csv", words)
    assert set(corpus.interactions.collect()["user_id"]) == {"u1", "u2", "u3", "nan", "None", "\\N", "NA", "<NA>"}
    assert "interactions_dropped_no_id" not in audit.counts


def test_other_faults_are_still_found_by_line_and_those_of_rows_left_out_are_none(tmp_path: Path) -> None:
    rows = [("nan", "i1", "never"), *GOOD, ("u2", "i2", "soon"), ("", "i9", "")]
    with pytest.raises(UserError) as caught:
        reading(tmp_path, "csv", rows, drop_without_id=True)
    (problem,) = caught.value.problems
    assert problem.where == f"{tmp_path / 'log.csv'}:6"
    assert problem.field == "timestamp"
    rows = [("nan", "i1", ""), *GOOD, ("u2", "i2", ""), ("", "i9", "0")]
    with pytest.raises(UserError, match=r"log\.csv:6 timestamp: .* 1 of 4 rows"):
        reading(tmp_path, "csv", rows, drop_without_id=True)


def test_blank_lines_are_no_rows_that_lack_an_id(tmp_path: Path) -> None:
    path = put(tmp_path / "log.csv", csv_of(GOOD) + "\n\n,i1,1700000000\n\n")
    audit = Audit()
    read(TableSourceConfig(kind="table", interactions=path, drop_without_id=True), 0, audit)
    assert audit.counts["interactions_dropped_no_id"] == 1


def test_a_log_of_such_rows_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no interactions"):
        reading(tmp_path, "csv", [("nan", "i1", 1), ("", "i2", 2)], drop_without_id=True)


def test_items_without_an_id_are_left_out_too(tmp_path: Path) -> None:
    items = put(tmp_path / "items.csv", "item,title\ni1,One\n,None\nnan,Nothing\ni2,Two\n")
    corpus, audit = reading(tmp_path, "csv", GOOD, items=items, drop_without_id=True)
    assert corpus.items is not None
    assert corpus.items["item_id"].to_list() == ["i1", "i2"]
    assert audit.counts["titles_dropped_no_id"] == 2
    with pytest.raises(UserError, match=r"items\.csv:3 item: empty"):
        reading(tmp_path, "csv", GOOD, items=items)


def test_atomic_files_have_the_key_too(tmp_path: Path) -> None:
    text = (
        "user_id:token\titem_id:token\ttimestamp:float\nu1\ti1\t1700000000\nnan\ti1\t1700000001\nu2\ti2\t1700000002\n"
    )
    source = RecBoleSourceConfig(kind="recbole", interactions=put(tmp_path / "a.inter", text), drop_without_id=True)
    audit = Audit()
    assert read(source, 0, audit).interactions.collect()["user_id"].to_list() == ["u1", "u2"]
    assert audit.counts["interactions_dropped_no_id"] == 1


def test_typed_columns_with_gaps(tmp_path: Path) -> None:
    rows = [
        (1.0, 7, 1_700_000_000),
        (None, 7, 1_700_000_001),
        (float("nan"), 8, 1_700_000_002),
        (2.0, None, 1_700_000_003),
    ]
    corpus, audit = reading(tmp_path, "parquet", rows, drop_without_id=True)
    assert corpus.interactions.collect().select("user_id", "item_id").rows() == [("1", "7")]
    assert audit.counts["interactions_dropped_no_id"] == 3


@pytest.mark.parametrize(
    ("dtype", "ids", "number"),
    [
        (pl.Float64, [2.0**53, 2.0**53 + 2, 5.0], 2), (pl.Float64, [1e15, 5.0, 2.0**52], 0),
        (pl.Float64, [1.2345678901234568e18, 7.0, 8.0], 1), (pl.Float32, [16777216.0, 16777218.0, 5.0], 2),
        (pl.Float32, [16777214.0, 5.0, 6.0], 0), (pl.Float64, [1e20, 2e20, 3.0], 2),
        (pl.Int64, [2**53 + 1, 2**60, 5], 0),
        (pl.UInt64, [2**63, 2**64 - 1, 5], 0), (pl.String, ["9007199254740993", "5", "6"], 0),
        (pl.Float64, [-(2.0**60), 1.0, 2.0], 1),
    ],
)  # fmt: skip
def test_floats_that_cannot_hold_such_ids_are_told(tmp_path: Path, dtype: Any, ids: list[Any], number: int) -> None:
    frame = pl.DataFrame(
        {"user": pl.Series(ids, dtype=dtype), "item": ["a", "b", "c"], "timestamp": [1_700_000_000] * 3}
    )
    frame.write_parquet(tmp_path / "log.parquet")
    audit = Audit()
    corpus = read(TableSourceConfig(kind="table", interactions=tmp_path / "log.parquet"), 0, audit)
    users = corpus.interactions.collect()["user_id"]
    assert users.null_count() == 0
    assert users.n_unique() == 3
    assert audit.counts.get("users_rounded", 0) == number
    told = [one["text"] for one in audit.findings if one["topic"] == "lossy-ids"]
    assert len(told) == (number > 0)
    assert all(text.startswith("The column user of log.parquet is of floats. ") for text in told)
