"""What each reader says of broken files: the file, the row, the field, what is there and what is allowed."""

import gzip
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from msr_adapter.config.schema import (
    AmazonSourceConfig,
    ColumnsConfig,
    HubTableConfig,
    HuggingFaceSourceConfig,
    KuaiRecSourceConfig,
    MicroLensSourceConfig,
    MMRecSourceConfig,
    MovieLensSourceConfig,
    OfficialAmazonSourceConfig,
    RecBoleSourceConfig,
    SourceConfig,
    TableSourceConfig,
)
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.interaction_log import encode
from msr_adapter.data.readers.items import words
from msr_adapter.data.readers.sources import check_source, may_hold_images, read
from msr_adapter.data.readers.value_checks import OR_LEAVE_OUT
from msr_adapter.errors import UserError
from tests.support.reader_fixtures import SOURCES, lines, official, put, review

TIME = (
    "seconds or milliseconds since 1970 (all the same), or an ISO date (2024-01-31, 2024-01-31T12:00:00Z). "
    "Correct the row"
)


def faults(source: SourceConfig, folder: Path) -> list[str]:
    """Return what reading says, with the folder left out of the paths."""
    with pytest.raises(UserError) as caught:
        read(source, 0, Audit())
    return [str(problem).replace(f"{folder}/", "") for problem in caught.value.problems]


def checked(source: SourceConfig, folder: Path) -> list[str]:
    return [str(problem).replace(f"{folder}/", "") for problem in check_source(source)]


def spoiled(folder: Path, name: str, file: str, change: Callable[[str], str]) -> SourceConfig:
    source = SOURCES[name](folder)
    path = folder / file
    text = (gzip.decompress(path.read_bytes()) if file.endswith(".gz") else path.read_bytes()).decode("latin-1")
    put(path, change(text), "latin-1")
    return source


@pytest.mark.parametrize(
    ("name", "file", "row", "message"),
    [
        ("table-csv", "log.csv", "cat,,2024-01-01,5,train\n", f"log.csv:7 item_id: empty; an id. {OR_LEAVE_OUT}"),
        ("table-csv", "log.csv", "cat,1,2024-01-01,5,tset\n",
         "log.csv:7 split: 'tset'; train, validation or test. Correct the row"),
        ("table-csv", "log.csv", "cat,1,2024-01-01,good,train\n", "log.csv:7 stars: 'good'; a number. Correct the row"),
        ("table-csv", "items.csv", ",Nameless,,,\n", f"items.csv:5 item_id: empty; an id. {OR_LEAVE_OUT}"),
        ("table-jsonl-gz", "log.jsonl.gz", '{"userID": "c", "itemID": null, "timestamp": 5}\n',
         f"log.jsonl.gz:4 itemID: empty; an id. {OR_LEAVE_OUT}"),
        ("amazon-2023-jsonl", "Video_Games.jsonl", lines({**review("", "B001", 5)}),
         "Video_Games.jsonl:5 user_id: empty; an id. Correct the row"),
        ("amazon-2023-gz", "meta_Video_Games.jsonl.gz", '{"title": "Orphan"}\n',
         "meta_Video_Games.jsonl.gz:4 parent_asin: empty; an id. Correct the row"),
        ("amazon-2023-jsonl", "Video_Games.jsonl", "{'user_id': 1}\n",
         "Video_Games.jsonl:5: not JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1)); "
         "one JSON object per line"),
        ("mllm-msr-amazon", "Toys_user_items_negs_test.csv", "2\t1,77\t3\n",
         "Toys_user_items_negs_test.csv:2 items: '1,77'; numbers of the item map. Correct the row"),
        ("mllm-msr-amazon", "Toys_user_items_negs_train.csv", "9\t1\t3\n",
         "Toys_user_items_negs_train.csv:3 user: '9'; a number of the user map. Correct the row"),
        ("mllm-msr-amazon", "Toys_user_items_negs_train.csv", "1\n",
         "Toys_user_items_negs_train.csv:3: 1 columns; 3 expected. Complete or remove the row"),
        ("mllm-msr-amazon", "Toys_i_map.tsv", "\t9\n", "Toys_i_map.tsv:7 original: empty; an id. Correct the row"),
        ("movielens-100k", "u.data", "7\t8\t9\n", "u.data:4: 3 columns; 4 expected. Complete or remove the row"),
        ("movielens-1m", "ratings.dat", "7::8::5::soon\n", f"ratings.dat:4 timestamp: 'soon'; {TIME}"),
        ("movielens-1m", "movies.dat", "::Nameless::Drama\n", "movies.dat:3 movieId: empty; an id. Correct the row"),
        ("movielens-20m", "ratings.csv", "1,2,3,4,5\n",
         "ratings.csv:4: 5 columns; 4, as in the header. Quote a field that holds the separator"),
        ("movielens-1m", "ratings.dat", "7::8::5::9::2\n", f"ratings.dat:4 timestamp: '9::2'; {TIME}"),
        ("pixelrec", "item_info.csv", "i9,1,2,3,4,5,6,7,A title, unquoted,tag,text\n",
         "item_info.csv:5: 12 columns; 11, as in the header. Quote a field that holds the separator"),
        ("recbole", "ml.inter", "\t5\t3\t881250949\n", f"ml.inter:3 user_id:token: empty; an id. {OR_LEAVE_OUT}"),
        ("mmrec", "baby.inter", "0\t7\t4.0\t1370476802\t3\n",
         "baby.inter:5 x_label: '3'; train, validation or test. Correct the row"),
        ("pixelrec", "Pixel200K.csv", ",u,1637150736\n", "Pixel200K.csv:4 item_id: empty; an id. Correct the row"),
        ("hm", "transactions_train.csv", "2018-13-01,a,01,1,1\n",
         f"transactions_train.csv:5 t_dat: '2018-13-01'; {TIME}"),
        ("kuairec", "small_matrix.csv", "14,1,1,1,x,y,later,1\n", f"small_matrix.csv:6 timestamp: 'later'; {TIME}"),
    ],
)  # fmt: skip
def test_a_bad_row(name: str, file: str, row: str, message: str, tmp_path: Path) -> None:
    source = spoiled(tmp_path, name, file, lambda text: text + row)
    assert faults(source, tmp_path) == [message]


@pytest.mark.parametrize("name", ["movielens-100k", "movielens-1m", "table-csv", "mmrec", "mllm-msr-amazon"])
def test_blank_lines_are_no_rows(name: str, tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    file = {
        "movielens-100k": "u.data", "movielens-1m": "ratings.dat", "table-csv": "log.csv", "mmrec": "baby.inter",
        "mllm-msr-amazon": "Toys_user_items_negs_train.csv",
    }[name]  # fmt: skip
    plain = read(SOURCES[name](tmp_path / "1"), 0, Audit())
    blank = read(spoiled(tmp_path / "2", name, file, lambda text: text.replace("\n", "\n\n")), 0, Audit())
    assert plain.interactions.collect().equals(blank.interactions.collect())


@pytest.mark.parametrize("name", [name for name in SOURCES if not name.startswith(("huggingface", "table-parquet"))])
def test_windows_line_ends_change_nothing(name: str, tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    plain = read(SOURCES[name](tmp_path / "1"), 0, Audit())
    source = SOURCES[name](tmp_path / "2")
    for path in (tmp_path / "2").iterdir():
        if path.suffix != ".gz":
            path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    other = read(source, 0, Audit())
    assert plain.interactions.collect().equals(other.interactions.collect())
    if plain.items is not None:
        assert other.items is not None
        assert plain.items.equals(other.items.with_columns(pl.selectors.string().str.replace_all("\r\n", "\n")))


def test_many_bad_rows_of_one_kind_are_one_problem_with_their_number(tmp_path: Path) -> None:
    rows = "".join(f"a,{'' if n % 2 else n},{n}\n" for n in range(100_000))
    source = TableSourceConfig(kind="table", interactions=put(tmp_path / "log.csv", "user,item,time\n" + rows))
    assert faults(source, tmp_path) == [
        f"log.csv:3 item: empty, and 49,999 more like it (lines 5, 7, 9, ...); an id. {OR_LEAVE_OUT}"
    ]


def test_a_split_column_that_was_merely_found_is_passed_over_when_it_says_something_else(tmp_path: Path) -> None:
    log = put(tmp_path / "log.csv", "user,item,time,subset\na,1,5,adults\na,2,6,test\n")
    audit = Audit()
    corpus = read(TableSourceConfig(kind="table", interactions=log), 0, audit)
    assert corpus.interactions.collect_schema().names() == ["user_id", "item_id", "timestamp"]
    assert "The column subset of log.csv is ignored" in audit.findings[0]["text"]
    source = TableSourceConfig(kind="table", interactions=log, columns=ColumnsConfig(split="subset"))
    assert faults(source, tmp_path) == ["log.csv:2 subset: 'adults'; train, validation or test. Correct the row"]


def test_a_least_rating_needs_a_rating_and_something_left(tmp_path: Path) -> None:
    log = put(tmp_path / "log.csv", "user,item,time,rating\na,1,5,3\na,2,6,2.5\n")
    keep = TableSourceConfig(kind="table", interactions=log, min_rating=3)
    audit = Audit()
    corpus = read(keep, 0, audit)
    assert corpus.interactions.collect().rows() == [("a", "1", 5000, None), ("a", "2", 6000, "low_rating")]
    assert audit.findings[0]["text"].startswith("1 interaction of log.csv rated below 3: no history and no target")
    encode(corpus, audit)
    assert audit.counts == {"interactions_read": 2, "users_read": 1, "items_read": 2,
                            "interactions_dropped_low_rating": 1, "interactions_dropped_duplicate": 0,
                            "users_dropped_row_filter": 0, "items_dropped_row_filter": 1}  # fmt: skip
    assert faults(keep.model_copy(update={"min_rating": 4}), tmp_path) == [
        "log.csv: none of 2 rows is left: 2 are rated too low, 0 untimed. Lower the least rating that is kept"
    ]
    bare = put(tmp_path / "bare.csv", "user,item,time\na,1,5\n")
    [problem] = checked(TableSourceConfig(kind="table", interactions=bare, min_rating=3), tmp_path)
    assert problem.startswith("bare.csv rating: no column for the rating; names tried: rating, overall")


def test_rows_without_a_time_are_dropped_by_kuairec_alone(tmp_path: Path) -> None:
    text = "user_id,video_id,timestamp,watch_ratio\n1,2,,0.5\n"
    path = put(tmp_path / "big_matrix.csv", text)
    assert faults(KuaiRecSourceConfig(kind="kuairec", interactions=path), tmp_path) == [
        "big_matrix.csv: none of 1 row is left: 0 are rated too low, 1 untimed. Set data.source.missing_times: first"
    ]
    assert faults(TableSourceConfig(kind="table", interactions=path), tmp_path) == [
        "big_matrix.csv:2 timestamp: empty is not a time: 1 of 1 row without one, 1 is empty or a word for nothing; a "
        "time in each row. Correct them, or set data.source.missing_times to drop (such rows are left out) or first "
        "(put first)"
    ]


def test_a_truncated_gzip_file_is_named(tmp_path: Path) -> None:
    path = put(tmp_path / "Toys.jsonl.gz", lines(*(review(f"u{n}", "B1", n) for n in range(2000))))
    path.write_bytes(path.read_bytes()[:-200])
    [problem] = faults(AmazonSourceConfig(kind="amazon-2023", reviews=path), tmp_path)
    assert problem.startswith("Toys.jsonl.gz: cannot be unpacked (Compressed file ended")


def test_the_files_of_the_official_repository_must_be_all_there(tmp_path: Path) -> None:
    source = official(tmp_path / "a", maps=False, meta=False)
    (tmp_path / "a" / "Toys_i_map.tsv").unlink()
    assert checked(source, tmp_path) == [
        "a data.source.folder: lacks Toys_i_map.tsv. Put the files of a category side by side"
    ]
    put(tmp_path / "a" / "Games_user_items_negs_train.csv", "")
    assert checked(source, tmp_path) == [
        "a data.source.category: categories there: Games, Toys; one with *_user_items_negs_train.csv. Name one category"
    ]
    nowhere = OfficialAmazonSourceConfig(kind="mllm-msr-amazon", folder=tmp_path / "b")
    assert "b data.source.folder: no such folder" in checked(nowhere, tmp_path)[0]
    assert faults(nowhere, tmp_path) == checked(nowhere, tmp_path)


def test_movielens_says_which_files_it_looks_for(tmp_path: Path) -> None:
    source = MovieLensSourceConfig(kind="movielens", folder=tmp_path)
    [problem] = checked(source, tmp_path)
    assert "no ratings there; u.data and u.item, or ratings.dat and movies.dat, or ratings.csv" in problem
    put(tmp_path / "u.data", "")
    assert "u.data without u.item. Add the other file" in checked(source, tmp_path)[0]
    put(tmp_path / "u.item", "1|x\n")
    assert checked(source, tmp_path) == ["u.data data.source.folder: the file is empty; a header and rows"]


def test_suffixes_and_columns_are_checked_before_a_row_is_read(tmp_path: Path) -> None:
    log = put(tmp_path / "log.csv", "who,what\n")
    assert "unknown kind of file '.csv'; one of .inter" in checked(
        RecBoleSourceConfig(kind="recbole", interactions=log), tmp_path
    )[0]  # fmt: skip
    inter = put(tmp_path / "x.inter", "userID\titemID\ttimestamp\n")
    [problem] = checked(MMRecSourceConfig(kind="mmrec", interactions=inter), tmp_path)
    assert problem.startswith("x.inter split: no column 'x_label'; columns found: userID, itemID, timestamp")
    pairs = put(tmp_path / "pairs.txt", "1\t2\n")
    found = checked(MicroLensSourceConfig(kind="microlens", pairs=pairs, titles=pairs), tmp_path)
    assert [text.split(": ", 1)[1].split(";")[0] for text in found] == ["unknown kind of file '.txt'"] * 2


def test_a_hugging_face_data_set_that_is_not_there(tmp_path: Path) -> None:
    rows = pl.DataFrame({"user": ["a"], "item": ["b"]})
    (tmp_path / "log").mkdir()
    rows.write_parquet(tmp_path / "log" / "train-00000-of-00001.parquet")
    gone = HuggingFaceSourceConfig(kind="huggingface", interactions=HubTableConfig(path=str(tmp_path / "gone")))
    assert "gone data.source.interactions.path: no such folder" in checked(gone, tmp_path)[0]
    assert checked(gone, tmp_path) == faults(gone, tmp_path)
    split = HubTableConfig(path=str(tmp_path / "log"), split="test")
    assert checked(HuggingFaceSourceConfig(kind="huggingface", interactions=split), tmp_path) == [
        "log data.source.interactions.split: no split 'test'; splits there: train. Name one, or none for all"
    ]
    whole = HubTableConfig(path=str(tmp_path / "log"))
    found = checked(
        HuggingFaceSourceConfig(kind="huggingface", interactions=whole, columns=ColumnsConfig(user="who")), tmp_path
    )
    assert found[0].startswith("log user: no column 'who'; columns found: user, item")


def test_a_name_on_the_hub_that_cannot_be_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `load_dataset` raises comes as a problem of the setting."""

    def refuse(*arguments: object, **options: object) -> None:
        raise FileNotFoundError("Couldn't find 'someone/log' on the hub\nand more")

    monkeypatch.setattr("datasets.load_dataset", refuse)
    source = HuggingFaceSourceConfig(kind="huggingface", interactions=HubTableConfig(path="someone/log"))
    assert checked(source, tmp_path) == []
    [problem] = faults(source, tmp_path)
    assert problem.startswith("someone/log data.source.interactions: cannot be loaded (Couldn't find 'someone/log' on")


def test_which_sources_may_name_images(tmp_path: Path) -> None:
    may = set()
    for name, make in SOURCES.items():
        (tmp_path / name).mkdir()
        may |= {name} if may_hold_images(make(tmp_path / name)) else set()
    assert may >= {"amazon-2023-gz", "table-csv", "huggingface-saved"}
    assert not may & {
        "microlens-100k",
        "movielens-1m",
        "hm",
        "kuairec",
        "amazon-2023-benchmark",
        "mllm-msr-amazon-bare",
    }


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ('["a", "b"]', "a b"),
        ('["a", null, ""]', "a "),
        (r'["say \"hi\"\n", "b\\c"]', 'say "hi"\n b\\c'),
        ("[]", None),
        ("[null]", None),
        ("[1, 2]", "[1, 2]"),
        ('["a" b]', '["a" b]'),
        ('["a"', '["a"'),
        ('["a",]', '["a",]'),
        (r'["\ud83d"]', r'["\ud83d"]'),
        ("[Used] Lamp", "[Used] Lamp"),
        ("  ", None),
        (None, None),
    ],
)
def test_lists_that_json_wrote_are_joined_and_nothing_else_is(written: str | None, text: str | None) -> None:
    frame = pl.DataFrame({"x": [written]}, schema={"x": pl.String})
    assert frame.select(words("x", pl.String())).item() == text
