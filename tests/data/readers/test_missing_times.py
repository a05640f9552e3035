"""Times that are no times: what stands for a missing one is told, and what is a time is read, however it is written."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msr_adapter.config.schema import (
    AmazonSourceConfig,
    ColumnsConfig,
    DataConfig,
    HMSourceConfig,
    HubTableConfig,
    HuggingFaceSourceConfig,
    KuaiRecSourceConfig,
    MicroLensSourceConfig,
    MMRecSourceConfig,
    MovieLensSourceConfig,
    PixelRecSourceConfig,
    RecBoleSourceConfig,
    SourceConfig,
    SplitConfig,
    TableSourceConfig,
)
from msr_adapter.config.schema.sources import MissingTimes
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.readers.missing_times import TimeRange, time_ranges
from msr_adapter.data.readers.sources import read
from msr_adapter.data.readers.timestamps import TimeFormat
from msr_adapter.errors import UserError
from tests.support.data_builders import build_in, write_csv
from tests.support.reader_fixtures import lines, put, review

START = datetime(2020, 9, 17, 8, 30, tzinfo=UTC)
MOMENTS = [START + timedelta(hours=7 * row) for row in range(40)]
SECONDS = [round(moment.timestamp()) for moment in MOMENTS]
TRUE = [second * 1000 for second in SECONDS]
LAST = {5, 12, 39}
"""Rows whose times are lost in these tests."""


def source_of(folder: Path, times: list[Any], missing: MissingTimes = "error", **columns: str) -> TableSourceConfig:
    rows = [(f"u{row % 4}", f"i{row}", time) for row, time in enumerate(times)]
    path = write_csv(folder / "log.csv", ["user", "item", "time"], rows)
    return TableSourceConfig(kind="table", interactions=path, missing_times=missing, columns=ColumnsConfig(**columns))


def read_times(source: SourceConfig) -> tuple[list[int | None], Audit]:
    """Return the time of every row of the log, None where it is dropped."""
    audit = Audit()
    log = read(source, 0, audit).interactions.collect()
    if "filtered" not in log.columns:
        return log["timestamp"].to_list(), audit
    return log.select(pl.when(pl.col("filtered").is_null()).then("timestamp")).to_series().to_list(), audit


def refused(source: SourceConfig) -> list[str]:
    with pytest.raises(UserError) as caught:
        read(source, 0, Audit())
    return [str(problem) for problem in caught.value.problems]


def findings(audit: Audit, topic: str) -> list[str]:
    return [f"{found['severity']}: {found['text']}" for found in audit.findings if found["topic"] == topic]


def spoiled(values: list[Any], sentinel: Any) -> list[Any]:
    return [sentinel if row in LAST else value for row, value in enumerate(values)]


ISO = [moment.strftime("%Y-%m-%d %H:%M:%S") for moment in MOMENTS]
SENTINELS: dict[str, tuple[list[Any], Any, str]] = {
    "zero": (SECONDS, 0, "1970-01-01"),
    "minus one": (SECONDS, -1, "1969-12-31"),
    "negative": (SECONDS, -62_135_596_800, "0001-01-01"),
    "zero in milliseconds": (TRUE, 0, "1970-01-01"),
    "minus one in milliseconds": (TRUE, -1, "1969-12-31"),
    "year 1 in milliseconds": (TRUE, -62_135_596_800_000, "0001-01-01"),
    "smallest 64-bit integer": (SECONDS, -(2**63), "a number beyond all dates"),
    "largest 64-bit integer": (SECONDS, 2**63 - 1, "a number beyond all dates"),
    "smallest 32-bit integer": (SECONDS, -(2**31), "1901-12-13"),
    "largest 32-bit integer": (SECONDS, 2**31 - 1, "2038-01-19"),
    "NaT in milliseconds": (TRUE, -9_223_372_036_855, "1677-09-21"),
    "end of the calendar": (SECONDS, 253_402_300_799, "a number beyond all dates"),
    "nines": (SECONDS, 9_999_999_999, "2286-11-20"),
    "nines in milliseconds": (TRUE, 9_999_999_999_999, "2286-11-20"),
    "local epoch": (SECONDS, -19_800, "1969-12-31"),
    "a clock that was reset": (SECONDS, 946_684_800, "2000-01-01"),
    "dawn of 1900": (ISO, "1900-01-01 00:00:00", "1900-01-01"),
    "epoch as text": (ISO, "1970-01-01", "1970-01-01"),
    "epoch with a zone": (ISO, "1970-01-01T00:00:00Z", "1970-01-01"),
    "end as text": (ISO, "9999-12-31", "9999-12-31"),
    "year 1 as text": (ISO, "0001-01-01 00:00:00", "0001-01-01"),
    "date of Excel's zero": (ISO, "1899-12-30", "1899-12-30"),
    "MySQL's zero": (ISO, "0000-00-00 00:00:00", "empty or a word"),
    "empty": (SECONDS, "", "empty or a word"),
    "null": (SECONDS, "NULL", "empty or a word"),
    "None": (ISO, "None", "empty or a word"),
    "nan": (SECONDS, "nan", "empty or a word"),
    "NaT": (ISO, "NaT", "empty or a word"),
    "Hive's null": (SECONDS, r"\N", "empty or a word"),
    "unknown": (ISO, "unknown", "empty or a word"),
}


@pytest.mark.parametrize("name", SENTINELS)
def test_what_stands_for_a_missing_time_is_refused_dropped_or_put_first(name: str, tmp_path: Path) -> None:
    values, sentinel, said = SENTINELS[name]
    times = spoiled(values, sentinel)
    [problem] = refused(source_of(tmp_path, times))
    assert problem.startswith(f"{tmp_path / 'log.csv'}:7 time: ")
    assert "(lines 14, 41 too): 3 of 40 rows without one, " in problem
    assert said in problem
    assert "data.source.missing_times to drop" in problem

    dropped, audit = read_times(source_of(tmp_path, times, "drop"))
    assert dropped == spoiled(TRUE, None)
    [finding] = findings(audit, "missing-times")
    assert finding.startswith("warning: Dropped 3 interactions of log.csv without a time (7.5% of the rows: 3 ")
    assert said in finding

    first, audit = read_times(source_of(tmp_path, times, "first"))
    earliest = min(TRUE[row] for row in range(40) if row not in LAST)
    assert first == spoiled(TRUE, earliest - 1)
    assert audit.counts["interactions_without_time_put_first"] == 3
    assert findings(audit, "missing-times")[0].startswith("warning: Put 3 interactions of log.csv without a time")
    [log] = audit.recognised
    kept = [MOMENTS[row] for row in range(40) if row not in LAST]
    assert (log.first, log.last) == (kept[0].date().isoformat(), kept[-1].date().isoformat())


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.9])
def test_many_zeros_are_no_bulk(share: float, tmp_path: Path) -> None:
    lost = round(40 * share)
    times = [0] * lost + SECONDS[lost:]
    read_back, audit = read_times(source_of(tmp_path, times, "drop"))
    assert read_back == [None] * lost + TRUE[lost:]
    assert findings(audit, "missing-times")[0].startswith("error" if share > 0.25 else "warning")


@pytest.mark.parametrize("value", [0, -1, "", -62_135_596_800, "9999-12-31"])
def test_a_column_without_a_single_time_is_no_column_of_times(value: Any, tmp_path: Path) -> None:
    [problem] = refused(source_of(tmp_path, [value] * 40))
    assert "40 of 40 rows without one" in problem
    first, audit = read_times(source_of(tmp_path, [value] * 40, "first"))
    assert len(set(first)) == 1
    assert audit.recognised[0].first is None
    [problem] = refused(source_of(tmp_path, [value] * 40, "drop"))
    assert problem.endswith("0 are rated too low, 40 untimed. Set data.source.missing_times: first")
    in_order, _ = read_times(source_of(tmp_path, [value] * 40, timestamp=""))
    assert in_order == list(range(40))


@pytest.mark.parametrize(
    "times",
    [
        list(range(40)),  # positions, from 0
        [row - 20 for row in range(40)],  # days before and after something
        [0] * 4 + list(range(36)),  # every user's first position
        [86_400 * row for row in range(40)],  # seconds since the first
        [5_000_000 * row for row in range(40)],  # the same, over six years
        [second - 600_000_000 + 40_000_000 * (row // 8) for row, second in enumerate(SECONDS)],  # 2001 to 2006
        [SECONDS[0] - 300_000_000, *SECONDS[1:]],  # an early one, within ten years
        [*(second - 350_000_000 for second in SECONDS[:20]), *SECONDS[20:]],  # two eras of one size
        [-1_000_000_000 + row for row in range(40)],  # letters of the year 1938
        [0, 1, 2],
        [0],
        [1_600_000_000],
    ],
)
def test_what_may_be_a_time_is_kept(times: list[int], tmp_path: Path) -> None:
    read_back, audit = read_times(source_of(tmp_path, times))
    assert read_back == [time * 1000 for time in times]
    assert not findings(audit, "missing-times")


def test_minus_one_among_positions_is_no_position(tmp_path: Path) -> None:
    times = [-1 if row in LAST else row for row in range(40)]
    assert read_times(source_of(tmp_path, times, "drop"))[0] == [None if t < 0 else t * 1000 for t in times]


@pytest.mark.parametrize("factor", [1000, 1_000_000, 1_000_000_000])
def test_another_unit_is_no_missing_time_but_refused_by_line(factor: int, tmp_path: Path) -> None:
    times = spoiled(SECONDS, 0)
    times[20] = SECONDS[20] * factor
    for missing in ("drop", "first"):
        assert refused(source_of(tmp_path, times, missing)) == [
            f"{tmp_path / 'log.csv'}:22 time: '{times[20]}'; seconds since 1970, as the others. Correct the row"
        ]
    both = refused(source_of(tmp_path, times))
    assert [problem.split(" ")[0].rpartition(":")[2] for problem in both] == ["22", "7"]


@pytest.mark.parametrize("unit", [1, 1000, 1_000_000, 1_000_000_000])
@pytest.mark.parametrize("kind", [pl.Int64, pl.Float64, pl.String])
def test_every_unit_of_epochs_is_read(unit: int, kind: Any, tmp_path: Path) -> None:
    rows = pl.DataFrame({"user": ["a"] * 40, "item": [f"i{row}" for row in range(40)]})
    rows = rows.with_columns(time=pl.Series([second * unit for second in SECONDS]).cast(kind))
    rows.write_parquet(tmp_path / "log.parquet")
    source = TableSourceConfig(kind="table", interactions=tmp_path / "log.parquet")
    assert read_times(source)[0] == TRUE


def serial(moment: datetime) -> str:
    return f"{(moment - datetime(1899, 12, 30, tzinfo=UTC)) / timedelta(days=1):.8f}"


DAYS = [int(moment.replace(hour=0, minute=0).timestamp()) * 1000 for moment in MOMENTS]
HOURS = [int(moment.replace(minute=0).timestamp()) * 1000 for moment in MOMENTS]
MONTHS = [int(moment.replace(day=1, hour=0, minute=0).timestamp()) * 1000 for moment in MOMENTS]
WRITTEN: dict[str, tuple[list[str], list[int], str]] = {
    "YYYYMMDD": ([m.strftime("%Y%m%d") for m in MOMENTS], DAYS, "YYYYMMDD,"),
    "YYYYMMDD.0": ([m.strftime("%Y%m%d.0") for m in MOMENTS], DAYS, "YYYYMMDD,"),
    "YYYYMMDDhhmmss": ([m.strftime("%Y%m%d%H%M%S") for m in MOMENTS], TRUE, "YYYYMMDDhhmmss,"),
    "YYYYMMDDhhmm": ([m.strftime("%Y%m%d%H%M") for m in MOMENTS], TRUE, "YYYYMMDDhhmm,"),
    "YYYYMMDDhhmmssSSS": ([m.strftime("%Y%m%d%H%M%S000") for m in MOMENTS], TRUE, "YYYYMMDDhhmmssSSS,"),
    "YYYYMMDDhh": ([m.strftime("%Y%m%d%H") for m in MOMENTS], HOURS, "YYYYMMDDhh,"),
    "YYYYMM": ([m.strftime("%Y%m") for m in MOMENTS], MONTHS, "YYYYMM,"),
    "Excel": ([serial(m) for m in MOMENTS], TRUE, "Excel,"),
    "Excel days": ([serial(m).partition(".")[0] for m in MOMENTS], DAYS, "Excel,"),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_dates_written_as_numbers_are_dates_and_it_is_said(name: str, tmp_path: Path) -> None:
    values, expected, said = WRITTEN[name]
    times, audit = read_times(source_of(tmp_path, values))
    assert times == expected
    assert said in findings(audit, "source")[0]
    assert audit.recognised[0].first == "2020-09-01" if name == "YYYYMM" else "2020-09-17"
    for sentinel in ("0", "-1", "9" * len(values[0].partition(".")[0])):
        if not (name.startswith("Excel") and sentinel.startswith("9")):
            kept, _ = read_times(source_of(tmp_path, spoiled(values, sentinel), "drop"))
            assert kept == spoiled(expected, None), sentinel


def test_a_number_that_is_no_date_among_dates_is_told_by_its_line(tmp_path: Path) -> None:
    values = [moment.strftime("%Y%m%d") for moment in MOMENTS]
    values[3] = "20201340"
    [problem] = refused(source_of(tmp_path, values))
    assert problem.startswith(f"{tmp_path / 'log.csv'}:5 time: '20201340'; ")


@pytest.mark.parametrize("first", [19_000_000, 20_200_000, 33_000, 190_000, 1_950_000_000])
def test_counters_that_begin_like_a_year_are_no_dates(first: int, tmp_path: Path) -> None:
    times = [first + 997 * row for row in range(40)]
    if first == 33_000:
        times = [first + 1500 * row for row in range(40)]  # up to the year 2150, as days
    assert read_times(source_of(tmp_path, times))[0] == [time * 1000 for time in times]


@pytest.mark.parametrize(
    "form",
    [
        "%Y-%m-%d %H:%M:%S UTC", "%Y-%m-%d %H:%M:%S.000 UTC", "%Y-%m-%d %H:%M:%S GMT", "%Y-%m-%d %H:%M:%SZ",
        "%Y-%m-%d %H:%M:%S +0000", "%Y-%m-%d %H:%M:%S +00:00", "%Y-%m-%d %H:%M:%S+00", "%Y-%m-%d %H:%M UTC",
        "%Y/%m/%d %H:%M:%S", "%Y%m%dT%H%M%SZ", "%Y%m%dT%H%M%S", "%Y-%m-%d %H:%M:%S,000",
        "%a %b %d %H:%M:%S +0000 %Y", "%a, %d %b %Y %H:%M:%S GMT", "%a, %d %b %Y %H:%M:%S +0000",
    ],
)  # fmt: skip
def test_text_of_the_usual_programs_is_read(form: str, tmp_path: Path) -> None:
    values = [f'"{moment.strftime(form)}"' for moment in MOMENTS]
    rows = "".join(f"a,i{row},{value}\n" for row, value in enumerate(values))
    path = put(tmp_path / "log.csv", "user,item,time\n" + rows)
    assert read_times(TableSourceConfig(kind="table", interactions=path))[0] == TRUE


@pytest.mark.parametrize(("zone", "minutes"), [("+0530", 330), (" +05:30", 330), ("-09:30", -570), (" -03", -180)])
def test_zones_of_text_are_counted(zone: str, minutes: int, tmp_path: Path) -> None:
    times, _ = read_times(source_of(tmp_path, [moment.strftime("%Y-%m-%d %H:%M:%S") + zone for moment in MOMENTS]))
    assert times == [time - 60_000 * minutes for time in TRUE]


@pytest.mark.parametrize("form", ["%d/%m/%Y", "%m/%d/%Y %H:%M", "%d.%m.%Y", "%Y-%m-%d %H:%M:%S Europe/Berlin"])
def test_text_with_two_meanings_is_refused_not_guessed(form: str, tmp_path: Path) -> None:
    [problem] = refused(source_of(tmp_path, [moment.strftime(form) for moment in MOMENTS]))
    assert "and 39 more like it" in problem


ZONES = ["+05:30", "-09:30", "+05:45", "+14:00", "-03:00", "+00:00", "UTC", "Z", "+0530", "GMT+5", "CET",
         "Asia/Kolkata", "Mars/Phobos"]  # fmt: skip


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_any_zone_of_parquet_is_read(zone: str, unit: str, tmp_path: Path) -> None:
    """A zone says how a moment is shown; what is stored is the same in all."""
    scale = {"s": 1, "ms": 1000, "us": 10**6, "ns": 10**9}[unit]
    stored = pa.array([second * scale for second in SECONDS], pa.int64()).cast(pa.timestamp(unit, tz=zone))
    columns = {"user": ["a"] * 40, "item": [f"i{row}" for row in range(40)], "time": stored}
    pq.write_table(pa.table(columns), tmp_path / "log.parquet")
    assert read_times(TableSourceConfig(kind="table", interactions=tmp_path / "log.parquet"))[0] == TRUE


def test_missing_times_of_parquet_with_an_odd_zone_are_told_by_row(tmp_path: Path) -> None:
    values = [None if row == 7 else -(2**63) + 1 if row == 9 else second * 10**9 for row, second in enumerate(SECONDS)]
    stored = pa.array(values, pa.int64()).cast(pa.timestamp("ns", tz="+05:30"))
    columns = {"user": ["a"] * 40, "item": [f"i{row}" for row in range(40)], "time": stored}
    pq.write_table(pa.table(columns), tmp_path / "log.parquet")
    source = TableSourceConfig(kind="table", interactions=tmp_path / "log.parquet")
    [problem] = refused(source)
    assert problem.startswith(f"{tmp_path / 'log.parquet'}:8 time: empty is not a time (lines 10 too): 2 of 40 rows")
    assert "1 says 1677-09-21, 1 is empty" in problem


def test_odd_zones_of_hugging_face_and_of_items_are_read(tmp_path: Path) -> None:
    stored = pa.array(TRUE, pa.int64()).cast(pa.timestamp("ms", tz="+05:30"))
    (tmp_path / "log").mkdir()
    columns = {"user": ["a"] * 40, "item": [f"i{row}" for row in range(40)], "time": stored}
    pq.write_table(pa.table(columns), tmp_path / "log" / "train-00000-of-00001.parquet")
    hub = HubTableConfig(path=str(tmp_path / "log"))
    assert read_times(HuggingFaceSourceConfig(kind="huggingface", interactions=hub))[0] == TRUE
    (tmp_path / "items").mkdir()
    pq.write_table(pa.table({"item": columns["item"], "title": columns["item"], "made": stored}),
                   tmp_path / "items" / "part.parquet")  # fmt: skip
    source = TableSourceConfig(
        kind="table", interactions=tmp_path / "log", items=tmp_path / "items", columns=ColumnsConfig(text="made")
    )
    assert read_times(source)[0] == TRUE


def published(folder: Path, name: str, times: list[int], missing: MissingTimes) -> SourceConfig:
    """Write a log of ``times`` in the layout of a kind."""
    rows = [(f"u{row % 4}", f"{row}", time) for row, time in enumerate(times)]
    titles = "item,title\n" + "".join(f"{item},t\n" for _, item, _ in rows)
    if name == "amazon-2023":
        path = put(folder / "R.jsonl", lines(*(review(user, item, time) for user, item, time in rows)))
        return AmazonSourceConfig(kind="amazon-2023", reviews=path, missing_times=missing)
    if name == "microlens":
        pairs = write_csv(folder / "pairs.csv", ["user", "item", "timestamp"], rows)
        return MicroLensSourceConfig(
            kind="microlens", pairs=pairs, titles=put(folder / "titles.csv", titles), missing_times=missing
        )
    if name == "movielens":
        put(folder / "u.data", "".join(f"{user}\t{item}\t5\t{time}\n" for user, item, time in rows))
        put(folder / "u.item", "".join(f"{item}|t||||{'0|' * 18}0\n" for _, item, _ in rows))
        return MovieLensSourceConfig(kind="movielens", folder=folder, missing_times=missing)
    if name in ("recbole", "mmrec"):
        header = "user_id\titem_id\ttimestamp" + ("\tx_label" if name == "mmrec" else "")
        more = "\t0" if name == "mmrec" else ""
        path = put(folder / "a.inter", header + "\n" + "".join(f"{u}\t{i}\t{t}{more}\n" for u, i, t in rows))
        if name == "mmrec":
            return MMRecSourceConfig(kind="mmrec", interactions=path, missing_times=missing)
        return RecBoleSourceConfig(kind="recbole", interactions=path, missing_times=missing)
    if name == "pixelrec":
        path = write_csv(folder / "P.csv", ["user_id", "item_id", "timestamp"], rows)
        return PixelRecSourceConfig(kind="pixelrec", interactions=path, missing_times=missing)
    if name == "hm":
        path = write_csv(folder / "t.csv", ["customer_id", "article_id", "t_dat"], rows)
        return HMSourceConfig(kind="hm", transactions=path, missing_times=missing)
    path = write_csv(folder / "m.csv", ["user_id", "video_id", "timestamp", "watch_ratio"], [(*row, 1) for row in rows])
    return KuaiRecSourceConfig(kind="kuairec", interactions=path, missing_times=missing)


@pytest.mark.parametrize(
    "name", ["amazon-2023", "microlens", "movielens", "recbole", "mmrec", "pixelrec", "hm", "kuairec"]
)
@pytest.mark.parametrize("sentinel", [0, -1, -62_135_596_800])
def test_every_reader_that_has_times_knows_the_missing_ones(name: str, sentinel: int, tmp_path: Path) -> None:
    times = spoiled(SECONDS, sentinel)
    assert "3 of 40 rows without one" in refused(published(tmp_path, name, times, "error"))[0]
    dropped, audit = read_times(published(tmp_path, name, times, "drop"))
    assert dropped == spoiled(TRUE, None)
    assert len(findings(audit, "missing-times")) == 1
    first, _ = read_times(published(tmp_path, name, times, "first"))
    assert first == spoiled(TRUE, TRUE[0] - 1)


def test_a_row_that_is_cut_off_is_no_row_without_a_time(tmp_path: Path) -> None:
    path = put(tmp_path / "log.csv", "user,item,time\n" + "".join(f"a,i{s},{s}\n" for s in SECONDS) + "b,i1\nb,i2,\n")
    assert refused(TableSourceConfig(kind="table", interactions=path)) == [
        f"{path}:42: 2 columns; 3 expected. Complete or remove the row",
        f"{path}:43 time: empty is not a time: 2 of 42 rows without one, 2 are empty or a word for nothing; a time in "
        "each row. Correct them, or set data.source.missing_times to drop (such rows are left out) or first (put "
        "first)",
    ]


def test_histories_and_targets_are_those_of_the_rows_with_a_time(tmp_path: Path) -> None:
    """A lost time at the end of a log moved its target to the front, and another item took its place unsaid."""
    rows = [
        (f"u{user:02}", f"i{(3 * user + row) % 40:02}", SECONDS[row] + user) for user in range(30) for row in range(9)
    ]
    lost = [(user, item, 0 if row % 9 == 8 and row % 2 else time) for row, (user, item, time) in enumerate(rows)]
    for name, log in (("true", rows), ("lost", lost)):
        (tmp_path / name).mkdir()
        write_csv(tmp_path / name / "log.csv", ["user", "item", "time"], log)
    data = {"source": {"kind": "table", "interactions": tmp_path / "lost" / "log.csv", "missing_times": "drop"}}
    built = build_in(tmp_path / "built", DataConfig.model_validate(data), SplitConfig(kind="leave-last-out"))
    dropped = {(user, item) for user, item, time in lost if time == 0}
    users = {row["example_id"]: row["user_id"] for row in built.rows("examples")}
    listed = {(users[row["example_id"]], row["item_id"]) for row in built.rows("candidates")}
    assert dropped
    assert not listed & dropped  # neither targets nor negatives
    assert built.counts["interactions_dropped_no_time"] == len(dropped)
    assert built.result["sources"][0]["last"] == built.audit["sources"][0]["last"] == MOMENTS[7].date().isoformat()


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(10**11, 4 * 10**12), st.integers(0, 10**7)), max_size=6))
def test_missing_times_never_hold_the_bulk(parts: list[tuple[int, int, int]]) -> None:
    years = [TimeRange(rows, first, first + (width if rows > 1 else 0)) for rows, first, width in parts]
    found = time_ranges(years, TimeFormat("number", 1.0))
    assert (found is None) == (not years)
    if found is not None:
        assert all(part.last < found.bulk.first or part.first > found.bulk.last for part in found.missing)
        left = sum(year.rows for year in years) - sum(part.rows for part in found.missing)
        assert left >= found.bulk.rows
