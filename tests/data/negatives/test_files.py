"""Candidates that leave and come back: four formats, and every way in which a file can be wrong, at once."""

import tempfile
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msr_adapter.cli.candidates import CandidatesFormat
from msr_adapter.config.schema import NegativesConfig, ProtocolConfig, SplitConfig
from msr_adapter.data.negatives.candidate_files import (
    FORMATS,
    export_candidates,
    format_of,
    lists_of,
    read_lists,
    write_lists,
)
from msr_adapter.errors import UserError
from tests.support.data_builders import Built, Row, build_in, random_rows, table_data

LAST_OUT = SplitConfig(kind="leave-last-out")
NAMES = {"parquet": "lists.parquet", "csv": "lists.csv", "recbole": "lists.inter", "elliot": "lists.tsv"}


def protocol(candidates: Path | None = None, count: int = 4) -> ProtocolConfig:
    return ProtocolConfig(name="test", negatives=NegativesConfig(count=count), candidates=candidates)


def built_with(folder: Path, rows: list[Row], candidates: Path | None = None, **more: int) -> Built:
    return build_in(folder, table_data(folder, rows), LAST_OUT, protocol(candidates, **more))


@pytest.mark.parametrize("kind", [row.name for row in FORMATS])
def test_lists_that_leave_and_come_back_are_the_same(tmp_path: Path, kind: str) -> None:
    rows = random_rows(users=30, items=25, length=5)
    drawn = built_with(tmp_path / "1", rows)
    path = tmp_path / NAMES[kind]
    digest = drawn.result["candidates_digest"]
    assert export_candidates(drawn.out, "test", kind, path) == {
        "format": kind, "users": 30, "rows": 150, "digest": digest,
    }  # fmt: skip
    again = built_with(tmp_path / "2", rows, path)
    assert again.result["candidates_digest"] == drawn.result["candidates_digest"]
    assert again.rows("candidates") == drawn.rows("candidates")
    assert any("are those of evaluate.protocol.candidates" in finding["text"] for finding in again.audit["findings"])
    fewer = built_with(tmp_path / "3", rows, path, count=2)  # the file's lists for the test, two negatives elsewhere
    assert fewer.result["splits"]["test"] == drawn.result["splits"]["test"]
    assert fewer.result["splits"]["validation"]["candidates"] == 3 * 30


def test_the_text_forms_are_those_of_the_tools(tmp_path: Path) -> None:
    lists = pl.DataFrame({"user_id": ["u 1"] * 3 + ["007"] * 2, "item_id": ["a", "b'", "c", "b'", "\u4e2d"],
                          "label": [0, 1, 0, 0, 1]}, schema_overrides={"label": pl.Int8})  # fmt: skip
    for kind, name in NAMES.items():
        write_lists(lists, kind, tmp_path / name)
    assert (tmp_path / "lists.tsv").read_text(encoding="utf-8") == "('u 1',)\ta\tc\n('007',)\tb'\n"
    assert (tmp_path / "lists.inter").read_text(encoding="utf-8") == (
        "user_id:token\titem_id:token\tlabel:float\n"
        "u 1\ta\t0.0\nu 1\tb'\t1.0\nu 1\tc\t0.0\n007\tb'\t0.0\n007\t\u4e2d\t1.0\n"
    )
    back = {kind: read_lists(tmp_path / name).drop("line") for kind, name in NAMES.items()}
    assert back["parquet"].equals(lists)
    assert back["recbole"].equals(lists)
    assert back["csv"].equals(lists)
    assert back["elliot"].equals(lists.filter(pl.col("label") == 0))


ids = st.text(st.characters(blacklist_categories=["Cs", "Cc", "Cf", "Zl", "Zp"]), min_size=1, max_size=5).filter(
    lambda text: text == text.strip()
)


@given(table=st.dictionaries(ids, st.lists(ids, min_size=2, max_size=4, unique=True), min_size=1, max_size=4))
def test_ids_of_any_kind_survive_every_format(table: dict[str, list[str]]) -> None:
    rows = [(user, item, int(place == 1)) for user, items in table.items() for place, item in enumerate(items)]
    lists = pl.DataFrame(rows, schema={"user_id": pl.String, "item_id": pl.String, "label": pl.Int8}, orient="row")
    with tempfile.TemporaryDirectory() as folder:
        for kind, name in NAMES.items():
            write_lists(lists, kind, Path(folder) / name)
            back = read_lists(Path(folder) / name).drop("line")
            assert back.equals(lists if kind != "elliot" else lists.filter(pl.col("label") == 0))


def test_elliot_files_as_found(tmp_path: Path) -> None:
    path = tmp_path / "test_negative.tsv"
    path.write_text("(1,)\t10\t11\n(0, 25)\t1064\t174\r\n\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"test_negative.tsv:3 user: the text ''; a tuple such as \('u1',\)"):
        read_lists(path)
    path.write_text("(1,)\t10\t11\n(0, 25)\t1064\t174\r\n", encoding="utf-8")
    assert read_lists(path).rows() == [
        (1, "1", "10", 0), (1, "1", "11", 0), (2, "0", "25", 1), (2, "0", "1064", 0), (2, "0", "174", 0)
    ]  # fmt: skip


def test_tuples_under_the_name_of_a_csv_are_still_read(tmp_path: Path) -> None:
    path = tmp_path / "lists.csv"
    path.write_text("('u1',)\ta\tb\n", encoding="utf-8")
    assert read_lists(path).rows() == [(1, "u1", "a", 0), (1, "u1", "b", 0)]


def test_what_a_text_cannot_hold_and_a_name_that_misleads_are_refused(tmp_path: Path) -> None:
    lists = pl.DataFrame({"user_id": ["u"], "item_id": ["a\tb"], "label": [1]}, schema_overrides={"label": pl.Int8})
    with pytest.raises(UserError, match="item_id: 1 id holds a tab or a line break, such as 'a\\\\tb'"):
        write_lists(lists, "recbole", tmp_path / "x.inter")
    built = built_with(tmp_path, random_rows(users=9, items=20, length=5))
    with pytest.raises(UserError, match=r"x.parquet --out: the name of a file of the format parquet, not elliot. Name"):
        export_candidates(built.out, "test", "elliot", tmp_path / "x.parquet")
    with pytest.raises(UserError, match=r"--out: cannot be written"):
        export_candidates(built.out, "test", "elliot", tmp_path / "log.csv" / "x.tsv")


def test_validation_lists_can_be_exported_too(tmp_path: Path) -> None:
    built = built_with(tmp_path, random_rows(users=9, items=20, length=5))
    lists = lists_of(built.out, "validation")
    assert lists.height == 9 * 5
    assert lists.filter(pl.col("label") == 1).height == 9


def write_inter(path: Path, rows: list[tuple[str, str, str]]) -> Path:
    lines = ["user_id:token\titem_id:token\tlabel:float", *("\t".join(row) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_everything_wrong_with_a_file_is_said_at_once_with_its_rows(tmp_path: Path) -> None:
    log = [(user, item, time) for user in ("u", "v", "w", "x") for time, item in enumerate("abcd")]
    log += [("short", "e", 1), ("z", "f", 1), ("z", "g", 2)]
    path = write_inter(
        tmp_path / "lists.inter",
        [
            ("u", "d", "1"), ("u", "e", "0"), ("u", "a", "0"), ("u", "gone", "0"),  # 4 seen, 5 unknown item
            ("v", "e", "0"), ("v", "f", "0"), ("v", "f", "0"),  # 6 no positive, 8 twice
            ("w", "d", "1"), ("w", "c", "1"), ("w", "g", "x"),  # two positives, 10 another target, 11 no label
            ("ghost", "e", "0"), ("short", "f", "1"), ("x", "d", "1"),  # 12 unknown, 13 untested, 14 no negative
        ],
    )  # fmt: skip
    with pytest.raises(UserError) as caught:
        built_with(tmp_path, log, path, count=1)
    told = [str(problem).replace(str(tmp_path) + "/", "").partition(". Use")[0] for problem in caught.value.problems]
    assert told == [
        "lists.inter:11 label: neither 0 nor 1",
        "lists.inter:12 user_id: unknown user 'ghost'",
        "lists.inter:13 user_id: the user 'short' is not tested",
        "lists.inter:5 item_id: unknown item 'gone'",
        "lists.inter:4 item_id: the user 'u' interacted with the negative 'a'",
        "lists.inter:8 item_id: the item 'f' is twice in the list of 'v'",
        "lists.inter:10 item_id: the positive 'c' of the user 'w' is not the target of the split",
        "lists.inter:6 label: 0 positives for the user 'v'; exactly one is needed",
        "lists.inter:9 label: 2 positives for the user 'w'; exactly one is needed",
        "lists.inter:9 label: no negative for the user 'w'",
        "lists.inter:14 label: no negative for the user 'x'",
        "lists.inter: 1 of 5 test users have no list (such as 'z'); a list for every test user",
    ]


def test_ids_that_the_log_has_in_another_form_are_told_beside_their_rows(tmp_path: Path) -> None:
    log = [(user, item, time) for user in ("1", "2", "3") for time, item in enumerate(("1", "7", "8", "9"))]
    log += [("4", "5", 1), ("4", "6", 2)]
    rows = [("1.0", "9", "1"), ("1.0", "5", "0"), ("2", "9", "1"), ("2", "005", "0")]
    with pytest.raises(UserError) as caught:
        built_with(tmp_path, log, write_inter(tmp_path / "lists.inter", rows), count=1)
    told = {problem.field: problem for problem in caught.value.problems if "in another form" in problem.found}
    assert told["user_id"].found == "1 of 1 unknown user is in the log in another form ('1.0' and '1')"
    assert told["user_id"].next_step.startswith(
        "Write them as the log does: one is written as a fraction or a power of ten, so "
    )
    assert told["item_id"].found == "1 of 1 unknown item is in the log in another form ('005' and '5')"


def test_ids_in_a_column_with_gaps_are_whole_numbers(tmp_path: Path) -> None:
    ids = pl.Series([1.0, 20.0, 1.5])
    pl.DataFrame({"user_id": ids, "item_id": ids, "label": [1, 0, 0]}).write_parquet(tmp_path / "lists.parquet")
    assert read_lists(tmp_path / "lists.parquet")["item_id"].to_list() == ["1", "20", "1.5"]


def test_a_byte_order_mark_is_no_part_of_an_id(tmp_path: Path) -> None:
    for name, text in (
        ("a.inter", "user_id:token\titem_id:token\tlabel:float\nu1\ti1\t0\n"),
        ("a.tsv", "('u1',)\ti1\n"),
    ):
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + text.encode())
        assert read_lists(tmp_path / name).select("user_id", "item_id").rows() == [("u1", "i1")]


def test_many_bad_rows_are_counted(tmp_path: Path) -> None:
    path = write_inter(tmp_path / "lists.inter", [(f"ghost{n}", "i001", "0") for n in range(50)])
    with pytest.raises(UserError) as caught:
        built_with(tmp_path, random_rows(users=9, items=20, length=5), path)
    told = [str(problem) for problem in caught.value.problems if "ghost" in str(problem) or "more" in str(problem)]
    assert len(told) == 21
    assert told[-1].endswith("lists.inter user_id: and 30 more like these")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.inter", b"user_id:token\titem_id:token\nu\ti\n", "label: no such column; columns found: user_id:token"),
        ("b.parquet", b"no parquet", "cannot be read"),
        ("c.tsv", b"\xff\xfe\n", "cannot be read"),
    ],
)
def test_what_is_no_list_is_told(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_lists(tmp_path / name)


def test_files_that_are_not_there_are_known_before_anything_is_read(tmp_path: Path) -> None:
    wanted = ProtocolConfig(name="test", candidates=tmp_path / "none.inter",
                      negatives=NegativesConfig(kind="hard", scores=tmp_path / "none.csv"))  # fmt: skip
    with pytest.raises(UserError) as caught:
        build_in(tmp_path, table_data(tmp_path, random_rows(4, 9, 3)), LAST_OUT, wanted)
    assert [problem.field for problem in caught.value.problems] == [
        "evaluate.protocol.candidates", "evaluate.protocol.negatives.scores"
    ]  # fmt: skip


def test_the_formats_that_the_command_knows_are_those_of_the_table() -> None:
    assert {row.name for row in FORMATS} == {kind.value for kind in CandidatesFormat}
    assert [format_of(Path(name)).name for name in ("a.parquet", "a.CSV", "a.INTER", "a.tsv", "a.txt", "a")] == [
        "parquet", "csv", "recbole", "elliot", "elliot", "elliot",
    ]  # fmt: skip
