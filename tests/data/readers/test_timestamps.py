"""Timestamps: many forms, one unit for a column, and what stands out from it."""

from pathlib import Path

import polars as pl
import pytest

from msr_adapter.config.schema import TableSourceConfig
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.readers.interactions import LogColumns, read_log
from msr_adapter.data.readers.sources import read
from msr_adapter.data.readers.table_layout import Layout, Table
from msr_adapter.data.readers.timestamps import milliseconds, time_format, time_numbers, time_statistics
from msr_adapter.errors import UserError
from tests.support.data_builders import write_csv
from tests.support.reader_fixtures import put


def to_milliseconds(values: pl.Series) -> pl.Series:
    frame, column = values.to_frame("t"), pl.col("t")
    number = time_numbers(column, values.dtype)
    assert number is not None
    facts = frame.select(**time_statistics(column, values.dtype, number)).to_dicts()
    return frame.select(milliseconds(column, values.dtype, time_format(values.dtype, facts[0]))).to_series()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1700000000", 1_700_000_000_000),
        ("1700000000.25", 1_700_000_000_250),
        ("1.7e9", 1_700_000_000_000),
        ("1700000000123", 1_700_000_000_123),
        ("1700000000123456", 1_700_000_000_123),
        ("1700000000123456789", 1_700_000_000_123),
        (" 12 ", 12_000),
        ("-5", -5000),
        ("2023-11-14", 1_699_920_000_000),
        ("2023-11-14T22:13", 1_699_999_980_000),
        ("2023-11-14 22:13:20", 1_700_000_000_000),
        ("2023-11-14T22:13:20.500Z", 1_700_000_000_500),
        ("2023-11-15T00:13:20+02:00", 1_700_000_000_000),
        ("tomorrow", None),
        ("2023-13-01", None),
        ("nan", None),
        ("1e300", 10**14),
        ("", None),
    ],
)
def test_timestamps_of_many_forms(value: str, expected: int | None) -> None:
    assert to_milliseconds(pl.Series([value])).to_list() == [expected]


def test_big_integer_timestamps_lose_no_precision() -> None:
    values = pl.Series(["1700000000000001", "1700000000000999", "1700000000001000"])
    assert to_milliseconds(values).to_list() == [1_700_000_000_000, 1_700_000_000_000, 1_700_000_000_001]
    assert to_milliseconds(pl.Series([2**53 + 1, 2**53 + 3]) // 1000).diff().to_list()[1] == 0


def test_one_bad_number_is_reported_not_taken_for_a_change_of_format() -> None:
    assert to_milliseconds(pl.Series(["1", "2", "2024-01-01"])).to_list() == [1000, 2000, None]
    assert to_milliseconds(pl.Series(["2024-01-01", "2024-01-02", "7"])).null_count() == 1


def units_of_times(folder: Path, times: list[int]) -> tuple[list[str], list[str]]:
    """Read a log of these times; return the problems and the findings."""
    audit, path = Audit(), write_csv(folder / "log.csv", ["user", "item", "time"], [("a", "b", time) for time in times])
    try:
        read(TableSourceConfig(kind="table", interactions=path), 0, audit)
    except UserError as error:
        return [str(problem) for problem in error.problems], []
    return [], [finding["text"] for finding in audit.findings if "table of items" not in finding["text"]]


def test_milliseconds_among_seconds_are_told_by_their_line(tmp_path: Path) -> None:
    problems, _ = units_of_times(tmp_path, [1_600_000_000, 1_600_000_001, 1_600_000_002_000])
    [problem] = problems
    assert problem.startswith(f"{tmp_path / 'log.csv'}:4 time: '1600000002000'; seconds since 1970, as the others.")


def test_seconds_among_milliseconds_are_told_by_their_line(tmp_path: Path) -> None:
    assert units_of_times(tmp_path, [1_600_000_000_000, 1_600_000_001_000]) == ([], [])
    [problem], _ = units_of_times(tmp_path, [1_600_000_000_000, 1_600_000_001_000, 1_600_000_002])
    assert problem.startswith(f"{tmp_path / 'log.csv'}:4 time: '1600000002'; milliseconds since 1970, as the others.")


def test_times_of_a_log_are_read_alike_whatever_the_order_of_its_rows(tmp_path: Path) -> None:
    """One unit for the column: that of its median, not of its first rows."""
    times = [100_000_000_005, 1_700_000_000_000, 1_700_000_000_001]
    seen = []
    for order in ([0, 1, 2], [2, 1, 0]):
        rows = "".join(f"a,{n},{times[n]}\n" for n in order)
        table = Table(put(tmp_path / "log.csv", "user,item,time\n" + rows), Layout("delimited"))
        log = read_log(table, LogColumns({"user": "user", "item": "item", "timestamp": "time"}), Audit())
        seen.append(sorted(log.collect()["timestamp"].to_list()))
    assert seen == [times, times]
