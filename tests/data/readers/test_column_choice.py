"""Columns that are found by name and by what they hold: what is taken is said, what is not taken is not passed over."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from msr_adapter.config.schema import AmazonSourceConfig, ColumnsConfig, DataConfig, SplitConfig, TableSourceConfig
from msr_adapter.data.audit.recognition import Recognition, recognition_lines
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.readers.column_choice import _is_called_time
from msr_adapter.data.readers.sources import check_source, read
from msr_adapter.data.source_look import look_through
from msr_adapter.errors import UserError
from tests.support.data_builders import build_in, write_csv
from tests.support.reader_fixtures import SOURCES, lines, put, review

START = datetime(2021, 3, 1, 9, 15, tzinfo=UTC)
TIMES = [round((START + timedelta(hours=5 * row)).timestamp()) for row in range(30)]
DATES = [(START + timedelta(days=row)).date().isoformat() for row in range(30)]
STAMPS = [(START + timedelta(hours=5 * row)).isoformat() for row in range(30)]
USERS, ITEMS = [f"u{row % 5}" for row in range(30)], [f"i{row}" for row in range(30)]


def log_of(folder: Path, columns: dict[str, list[Any]], *, newest_first: bool = False) -> Path:
    frame = pl.DataFrame({"user": USERS, "item": ITEMS, **columns}, strict=False)
    (frame.reverse() if newest_first else frame).write_csv(folder / "log.csv")
    return folder / "log.csv"


def source_of(path: Path, items: Path | None = None, **columns: str) -> TableSourceConfig:
    return TableSourceConfig(kind="table", interactions=path, items=items, columns=ColumnsConfig(**columns))


def read_log(source: TableSourceConfig) -> tuple[pl.DataFrame, Audit]:
    audit = Audit()
    return read(source, 0, audit).interactions.collect(), audit


def said(audit: Audit) -> list[str]:
    return [f"{found['severity']}: {found['text']}" for found in audit.findings if found["topic"] == "columns"]


def refused(source: TableSourceConfig) -> list[str]:
    with pytest.raises(UserError) as caught:
        read(source, 0, Audit())
    problems = [str(problem) for problem in caught.value.problems]
    assert [str(problem) for problem in check_source(source)] == problems  # `msr check` says it too
    return problems


@pytest.mark.parametrize(
    "name",
    ["created_at", "event_time", "ts", "time_ms", "date_added", "createdAt", "EventTime", "Unix Timestamp", "played_at",
     "purchase-date", "order_date", "review_date", "InvoiceDate", "creation_time", "click_time", "epoch",
     "eventTimestamp", "timestamp:float", "DATE", "rated_at"],
)  # fmt: skip
@pytest.mark.parametrize("newest_first", [False, True])
def test_times_are_known_by_the_names_that_files_have(name: str, newest_first: bool, tmp_path: Path) -> None:
    log, audit = read_log(source_of(log_of(tmp_path, {name: TIMES}, newest_first=newest_first)))
    order = TIMES[::-1] if newest_first else TIMES
    assert log["timestamp"].to_list() == [1000 * time for time in order]
    assert audit.recognised[0].columns["timestamp"] == name
    assert said(audit) == []


@pytest.mark.parametrize(
    ("others", "best"),
    [
        ({"time": [3.5 * row for row in range(30)], "date": DATES}, "date"),  # seconds watched
        ({"time": list(range(30)), "created_at": TIMES}, "created_at"),
        ({"timestamp": ["soon"] * 30, "event_time": STAMPS}, "event_time"),
        ({"date": DATES, "event_time": STAMPS}, "event_time"),  # a time of day says more than its day
        ({"timestamp": [None] * 30, "ts": TIMES}, "ts"),
        ({"time": ["09:15"] * 30, "date": DATES}, "date"),
        ({"timestamp": TIMES, "date": DATES}, "timestamp"),
        ({"date": DATES, "time": STAMPS}, "time"),
        ({"ts": [0] * 30, "created": [date.replace("-", "") for date in DATES]}, "created"),
        ({"time": TIMES, "timestamp": STAMPS}, "timestamp"),
        ({"time_ms": [17] * 30, "datetime": STAMPS}, "datetime"),
    ],
)
def test_of_several_times_the_better_one_is_taken_and_it_is_said(
    others: dict[str, list[Any]], best: str, tmp_path: Path
) -> None:
    _, audit = read_log(source_of(log_of(tmp_path, others)))
    [log] = audit.recognised
    assert log.columns["timestamp"] == best
    assert log.passed_over["timestamp"] == tuple(name for name in others if name != best)
    assert f"not {next(name for name in others if name != best)}" in next(recognition_lines([log]))
    first = next(name for name in ("timestamp", "time", "event_time", "ts", "time_ms", "datetime") if name in others)
    if first != best:
        assert said(audit)[0].startswith(f"info: log.csv: the time is read from `{best}`, which holds ")
    else:
        assert said(audit) == []


@pytest.mark.parametrize(
    ("names", "user", "item"),
    [
        (["user", "user_id", "item"], "user_id", "item"),
        (["user_id", "user", "item"], "user_id", "item"),
        (["username", "uid", "item"], "uid", "item"),
        (["user", "customer_id", "item"], "customer_id", "item"),
        (["reviewer", "reviewerID", "asin"], "reviewerID", "asin"),
        (["profileName", "userId", "item"], "userId", "item"),
        (["user", "item", "item_id"], "user", "item_id"),
        (["user", "product", "product_id"], "user", "product_id"),
        (["user", "movie", "movieId"], "user", "movieId"),
        (["user", "asin", "parent_asin"], "user", "parent_asin"),
        (["visitorid", "itemid"], "visitorid", "itemid"),
        (["member", "sku"], "member", "sku"),
    ],
)
def test_an_id_beats_a_name_that_is_shown(names: list[str], user: str, item: str, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "log.csv", [*names, "time"], [[*(f"{name}{n}" for name in names), n] for n in range(3)])
    log, audit = read_log(source_of(path))
    assert log.rows() == [(f"{user}{n}", f"{item}{n}", 1000 * n) for n in range(3)]
    taken = audit.recognised[0]
    assert (taken.columns["user"], taken.columns["item"]) == (user, item)
    over = {name for columns in taken.passed_over.values() for name in columns}
    assert over == set(names) - {user, item}
    assert set(taken.unused) == over


def test_the_id_that_log_and_items_share_is_the_one_that_is_meant(tmp_path: Path) -> None:
    items = write_csv(tmp_path / "items.csv", ["sku", "item", "title"], [["k1", "a", "A"], ["k2", "b", "B"]])
    log = write_csv(tmp_path / "log.csv", ["user", "item", "time"], [["u", "a", 1], ["u", "b", 2]])
    corpus = read(source_of(log, items), 0, Audit())
    assert corpus.items is not None
    assert corpus.items["item_id"].to_list() == ["a", "b"]
    log = write_csv(tmp_path / "log.csv", ["user", "item", "sku", "time"], [["u", "a name", "k1", 1]])
    items = write_csv(tmp_path / "items.csv", ["sku", "title"], [["k1", "A"]])
    assert read(source_of(log, items), 0, Audit()).interactions.collect()["item_id"].to_list() == ["k1"]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("zeit", TIMES), ("fecha", STAMPS), ("when", DATES), ("x", STAMPS), ("happened", DATES),
        ("moment_of_click", [time * 1000 for time in TIMES]), ("visit_day", [d.replace("-", "") for d in DATES]),
        ("c3", [f"{stamp[:19].replace('T', ' ')} UTC" for stamp in STAMPS]), ("logged", [f"{t}.5" for t in TIMES]),
        ("t", [time * 1_000_000 for time in TIMES]), ("date_of_visit", [44_000.25 + row for row in range(30)]),
    ],
)  # fmt: skip
def test_a_column_that_looks_like_a_time_is_not_passed_over(name: str, values: list[Any], tmp_path: Path) -> None:
    """In the order of the rows it is a warning; newest first, the log is refused: every target would be wrong."""
    _, audit = read_log(source_of(log_of(tmp_path, {name: values})))
    [warning] = said(audit)
    assert warning.startswith(f"warning: log.csv: `{name}` looks like a time and is not read: the log has no time")
    path = log_of(tmp_path, {name: values}, newest_first=True)
    [problem] = refused(source_of(path))
    assert f"no known column of times, `{name}` looks like one, and by it the rows are newest first" in problem
    assert f"Set data.source.columns.timestamp to {name}" in problem
    log, audit = read_log(source_of(path, timestamp=name))
    assert log["timestamp"].is_sorted(descending=True)
    assert said(audit) == []
    in_order, audit = read_log(source_of(path, timestamp=""))
    assert in_order["timestamp"].to_list() == list(range(30))
    assert said(audit) == []


def test_a_log_in_no_order_at_all_is_refused_too(tmp_path: Path) -> None:
    shuffled = pl.Series(TIMES).shuffle(seed=3).to_list()
    [problem] = refused(source_of(log_of(tmp_path, {"zeit": shuffled})))
    texts = [datetime.fromtimestamp(time, UTC).isoformat() for time in shuffled]
    assert len(refused(source_of(log_of(tmp_path, {"x": texts})))) == 1
    assert "rows are earlier than the row before of the same user" in problem


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("price", [9.5 + row for row in range(30)]), ("session", list(range(100, 130))), ("rating", [4] * 30),
        ("count", [7_000_000_000 + row for row in range(30)]), ("note", ["see 2021-03-01"] * 30),
        ("flag", ["yes"] * 30), ("salary", [40_000.5 + 7 * (row % 3) for row in range(30)]),
        ("cost", [41_000 - row for row in range(30)]),
        ("postcode", [44_135 + 11 * (row % 4) for row in range(30)]),
        ("watch_duration", list(range(30))), ("play_time_spent", [3.5] * 30), ("empty", [None] * 30),
        ("zip", [10_115 + row for row in range(30)]), ("quantity", [20_210_301] * 2 + [5] * 28), ("hex", ["0x1f"] * 30),
    ],
)  # fmt: skip
def test_other_columns_are_no_times(name: str, values: list[Any], tmp_path: Path) -> None:
    for newest_first in (False, True):
        _, audit = read_log(source_of(log_of(tmp_path, {name: values}, newest_first=newest_first)))
        assert said(audit) == []
        assert audit.recognised[0].unused == (name,)
        assert "no time: the order of the rows" in next(recognition_lines(audit.recognised))


def test_numbers_in_no_order_are_at_most_a_warning(tmp_path: Path) -> None:
    sessions = [1_400_000_000 + 7_919_000 * (row * 13 % 30) for row in range(30)]
    log, audit = read_log(source_of(log_of(tmp_path, {"session": sessions})))
    assert log["timestamp"].to_list() == list(range(30))
    assert "`session` looks like a time" in said(audit)[0]


def test_a_column_that_is_only_called_like_a_time_is_a_warning(tmp_path: Path) -> None:
    values = [f"{row % 28 + 1}/3/2021 at nine" for row in range(30)]
    _, audit = read_log(source_of(log_of(tmp_path, {"the time of it": values})))
    assert said(audit)[0].startswith("warning: log.csv: `the time of it` is called like a time and is not read")


@pytest.mark.parametrize(
    ("names", "called"),
    [
        (["visit time", "visitTime", "VISIT_TIME", "visittime", "loggedAt", "logged_at", "my-date", "TS", "unixts",
          "day"],
         True),
        (["sentiment", "lat", "format", "candidate", "update", "runtime", "watch_time", "time_spent", "weekday", "at"],
         False),
    ],
)  # fmt: skip
def test_what_is_called_like_a_time(names: list[str], called: bool) -> None:
    assert [_is_called_time(name) for name in names] == [called] * len(names)


def test_the_date_of_a_release_says_nothing_of_the_order(tmp_path: Path) -> None:
    items = [f"i{row % 10}" for row in range(30)]
    released = [DATES[(7 * int(item[1:])) % 30] for item in items]
    pl.DataFrame({"user": USERS, "item": items, "released": released}).write_csv(tmp_path / "log.csv")
    _, audit = read_log(source_of(tmp_path / "log.csv"))
    assert "`released` looks like a time" in said(audit)[0]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("bild", ["a.jpg", "b.png"]), ("photo_file", ["a", "b"]), ("main_picture", ["x/1", "x/2"]),
        ("url", ["https://h/a.webp?w=2", "https://h/b.jpeg"]), ("front_cover", ["1", "2"]), ("thumb", ["1", "2"]),
        ("images_json", ['["a.jpg"]', "[]"]), ("IMG_2", ["x", None]), ("posterFile", ["p", "q"]),
        ("media", ["A.JPG", ""]),
    ],
)  # fmt: skip
def test_a_column_that_looks_like_an_image_is_a_warning(name: str, values: list[Any], tmp_path: Path) -> None:
    log = write_csv(tmp_path / "log.csv", ["user", "item", "time"], [["u", "1", 5], ["u", "2", 6]])
    pl.DataFrame({"item": ["1", "2"], "title": ["A", "B"], name: values}).write_csv(tmp_path / "items.csv")
    _, audit = read_log(source_of(log, tmp_path / "items.csv"))
    assert said(audit) == [
        f"warning: items.csv: `{name}` looks like an image and is not read. Set data.source.columns.image to read it."
    ]
    _, audit = read_log(source_of(log, tmp_path / "items.csv", image=name))
    assert said(audit) == []


@pytest.mark.parametrize("name", ["coverage", "imagination", "colour", "url_of_page", "plot"])
def test_other_columns_are_no_images(name: str, tmp_path: Path) -> None:
    log = write_csv(tmp_path / "log.csv", ["user", "item", "time"], [["u", "1", 5]])
    items = write_csv(tmp_path / "items.csv", ["item", "title", name], [["1", "A", "see a.jpg there"]])
    _, audit = read_log(source_of(log, items))
    assert said(audit) == []


@pytest.mark.parametrize("suffix", ["tsv", "jsonl", "parquet"])
def test_every_format_is_looked_at_alike(suffix: str, tmp_path: Path) -> None:
    frame = pl.DataFrame({"user": USERS, "item": ITEMS, "zeit": TIMES, "price": [1.5] * 30}).reverse()
    path = tmp_path / f"log.{suffix}"
    if suffix == "parquet":
        frame.with_columns(pl.from_epoch("zeit"), tags=pl.lit(["a"])).write_parquet(path)
    elif suffix == "jsonl":
        frame.write_ndjson(path)
    else:
        frame.write_csv(path, separator="\t")
    assert "`zeit` looks like one, and by it the rows are newest first" in refused(source_of(path))[0]


def test_recognitions_say_all_in_a_line() -> None:
    log = Recognition(
        "log.csv", {"user": "user_id", "item": "item", "timestamp": "date"}, 1234, "dates as text", "2020-01-01",
        "2021-01-01", ("user", "time", *(f"c{n}" for n in range(9))), {"timestamp": ("time",), "user": ("user",)},
    )  # fmt: skip
    order = Recognition("log.csv", {"user": "user", "item": "item"}, 1)
    assert list(recognition_lines([log, order])) == [
        "log.csv: 1,234 rows; users = user_id (not user), items = item, time = date (dates as text, not time); from "
        "2020-01-01 to 2021-01-01; not used: user, time, c0, c1, c2, c3, c4, c5 and 3 more",
        "log.csv: 1 row; users = user, items = item; no time: the order of the rows",
    ]


@pytest.mark.parametrize("name", SOURCES)
def test_readers_of_every_kind_say_what_they_took(name: str, tmp_path: Path) -> None:
    source, audit = SOURCES[name](tmp_path), Audit()
    corpus = read(source, 0, audit)
    logs = [found for found in audit.recognised if "user" in found.columns]
    assert logs
    assert all(found.rows > 0 and {"user", "item"} <= set(found.columns) for found in logs)
    described = [found for found in audit.recognised if "title" in found.columns]
    assert bool(described) == (corpus.items is not None and name != "mllm-msr-amazon-bare")
    assert json.loads(json.dumps(audit.as_json()["sources"])) == [found.as_json() for found in audit.recognised]


def test_a_check_says_what_a_build_says(tmp_path: Path) -> None:
    source = source_of(log_of(tmp_path, {"zeit": STAMPS, "price": [1.5] * 30}))
    look = look_through(DataConfig(source=source), SplitConfig())
    assert look.lines[0] == (
        "log.csv: 30 rows; users = user, items = item; no time: the order of the rows; not used: zeit, price"
    )
    assert look.lines[1].startswith("warning: log.csv: `zeit` looks like a time")
    built = build_in(tmp_path, DataConfig(source=source), SplitConfig(kind="leave-last-out"))
    assert built.audit["sources"] == built.result["sources"] == [found.as_json() for found in look.recognised]


def test_a_check_finds_the_rows_that_a_build_refuses(tmp_path: Path) -> None:
    times = [0, *TIMES[1:]]
    look = look_through(DataConfig(source=source_of(log_of(tmp_path, {"ts": times}))), SplitConfig())
    assert str(look.problems[0]).startswith(f"{tmp_path / 'log.csv'}:2 ts: '0' is not a time")


def test_a_check_looks_through_no_large_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("msr_adapter.data.source_look._MOST", 100)
    look = look_through(DataConfig(source=source_of(log_of(tmp_path, {"ts": [0, *TIMES[1:]]}))), SplitConfig())
    assert look.problems == []
    assert look.lines == ["About 0 MiB of data are not looked through here; `msr build-data` begins with it and says "
                          "what they hold."]  # fmt: skip


def test_the_item_of_amazon_is_said(tmp_path: Path) -> None:
    reviews = put(tmp_path / "R.jsonl", lines(review("u", "B1", 1_600_000_000_000)))
    audit = Audit()
    read(AmazonSourceConfig(kind="amazon-2023", reviews=reviews), 0, audit)
    assert "items = parent_asin (not asin)" in next(recognition_lines(audit.recognised))
