"""The times of a log: how its column tells time, which rows have none, and what becomes of those."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import polars as pl

from msr_adapter.data.audit.report import Audit
from msr_adapter.data.readers.missing_times import YEAR, TimeRange, TimeRanges, day, time_ranges
from msr_adapter.data.readers.table_layout import Table
from msr_adapter.data.readers.table_scan import collect
from msr_adapter.data.readers.timestamps import (
    TimeFormat,
    are_dates,
    calendar_numbers,
    is_midnight,
    is_no_time,
    milliseconds,
    time_format,
    time_numbers,
)


@dataclass(frozen=True)
class LogTimes:
    """The column of times of a log, as it is read."""

    column: str
    dtype: pl.DataType
    format: TimeFormat
    ranges: TimeRanges | None = None
    """Its bulk and what stands for missing times; None = not known yet, or there is no time at all."""

    @property
    def moment(self) -> pl.Expr:
        """Milliseconds since 1970, null where a value is no time."""
        return milliseconds(pl.col(self.column), self.dtype, self.format)

    @property
    def absent(self) -> pl.Expr:
        """Whether a value says that there is no time."""
        return is_no_time(pl.col(self.column), self.dtype)

    @property
    def in_another_unit(self) -> pl.Expr:
        """Whether a number is a time of the log only in another unit than the others."""
        number = time_numbers(pl.col(self.column), self.dtype)
        if self.ranges is None or number is None:
            return pl.lit(False)
        return self.ranges.in_another_unit(number, self.format)

    @property
    def missing(self) -> pl.Expr:
        """Whether a row has no time: a word for none, or a value that stands for none."""
        if self.ranges is None or not self.ranges.missing:
            return self.absent
        return self.absent | (self.ranges.is_missing(self.moment) & ~self.in_another_unit)

    @property
    def unreadable(self) -> pl.Expr:
        """Whether a value is no time, though it is there."""
        return self.moment.is_null() & ~self.absent

    @property
    def moment_or_first(self) -> pl.Expr:
        """The moment, one before all others where it is missing."""
        if self.ranges is None:
            return pl.when(~self.missing).then(self.moment).otherwise(0)
        return pl.when(~self.missing).then(self.moment).otherwise(self.ranges.bulk.first - 1)

    def looked_at_again(self, counted: "CountedRows") -> "LogTimes":
        """Return the times once the rows are counted: with rarer forms, or with what stands for missing times."""
        if self.ranges is not None:
            return self
        if self.format.form == "iso" and counted.unreadable and not self.format.more_forms:
            return replace(self, format=replace(self.format, more_forms=True))
        return replace(self, ranges=time_ranges(counted.years, self.format))

    def changes_the_count(self, before: "LogTimes", counted: "CountedRows") -> bool:
        """Return whether rows count otherwise than they did ``before``."""
        if self.format != before.format or self.ranges is None:
            return self.format != before.format
        return bool(self.ranges.missing) or counted.timed > self.ranges.bulk.rows

    @property
    def days(self) -> tuple[str, str] | None:
        """First and last day; None where the times are an order alone, or there are none."""
        if self.ranges is None or self.ranges.is_order or self.ranges.bulk in self.ranges.missing:
            return None
        return day(self.ranges.bulk.first), day(self.ranges.bulk.last)

    @property
    def said(self) -> str:
        """How the times are written, in words."""
        if self.format.form == "number" and self.ranges is not None and self.ranges.is_order:
            return "numbers too small for dates: an order alone"
        return self.format.said


@dataclass(frozen=True)
class CountedRows:
    """How many rows of a log are what; a row that is bad counts nowhere else."""

    rows: int
    bad: int
    """Bad, or blank."""
    low: int
    """Rated too low."""
    missing: int
    """Without a time, and not rated too low."""
    unreadable: int
    """With something that is no time."""
    within_a_day: int
    """With a time that is not midnight."""
    years: tuple[TimeRange, ...]
    """The rows with a time, by its year."""

    @property
    def timed(self) -> int:
        """How many rows have a time."""
        return sum(year.rows for year in self.years)


NOTHING_COUNTED = CountedRows(0, 0, 0, 0, 0, 0, ())


@dataclass(frozen=True)
class RowFlags:
    """What `count_rows` counts; never null."""

    bad: pl.Expr
    low: pl.Expr


def told_format(
    table: Table, source: pl.LazyFrame, column: str, facts: Mapping[str, int], pattern: str = ""
) -> LogTimes:
    """Return how a column tells time; numbers that look like dates are read once more, to see whether they are.

    A ``pattern`` of the pipeline decides for what is no typed date.
    """
    dtype = source.collect_schema()[column]
    if pattern and dtype not in (pl.Date, pl.Datetime):
        return LogTimes(column, dtype, TimeFormat("given", pattern=pattern))
    if (dates := calendar_numbers(facts)) is not None:
        times = LogTimes(column, dtype, dates)
        number = time_numbers(pl.col(column), dtype)
        assert number is not None
        if collect(table, source.select(are_dates(times.moment, number, dates))).item():
            return times
    return LogTimes(column, dtype, time_format(dtype, facts))


def count_rows(table: Table, source: pl.LazyFrame, flags: RowFlags, times: LogTimes | None) -> CountedRows:
    """Count the rows of a log in one streaming pass, those with a time by its year."""
    moment = pl.lit(None, dtype=pl.Int64) if times is None else times.moment
    missing = pl.lit(False) if times is None else times.missing
    absent = pl.lit(False) if times is None else times.absent
    rows = source.select(bad=flags.bad, low=flags.low, missing=missing, absent=absent, moment=moment)
    good, timed = ~pl.col("bad"), pl.col("moment").is_not_null()
    rows = rows.with_columns(year=pl.when(good & timed).then(pl.col("moment") // YEAR))
    grouped = rows.group_by("year").agg(
        rows=pl.len(), bad=pl.col("bad").sum(), low=(good & pl.col("low")).sum(),
        missing=(good & ~pl.col("low") & pl.col("missing")).sum(),
        unreadable=(~timed & ~pl.col("absent")).sum(),
        within=(good & ~pl.col("missing") & ~is_midnight(pl.col("moment"))).sum(),
        first=pl.col("moment").min(), last=pl.col("moment").max(),
    )  # fmt: skip
    found = collect(table, grouped).sort("year", nulls_last=True)
    years = found.filter(pl.col("year").is_not_null()).select("rows", "first", "last")
    sums = found.select(pl.col("rows", "bad", "low", "missing", "unreadable", "within").sum()).rows()
    [(total, bad, low, gone, unreadable, within)] = sums
    return CountedRows(
        total, bad, low, gone, 0 if times is None else unreadable, within,
        tuple(TimeRange(*year) for year in years.iter_rows()),
    )  # fmt: skip


def kinds_of_missing(times: LogTimes, counted: CountedRows) -> str:
    """Return what stands where a time is missing: `38 say 1970-01-01, 3 are empty or a word for none`."""
    parts = () if times.ranges is None else times.ranges.missing
    said = [f"{part.rows:,} {'says' if part.rows == 1 else 'say'} {part.said}" for part in parts]
    if (empty := counted.missing - sum(part.rows for part in parts)) > 0:
        said.append(f"{empty:,} {'is' if empty == 1 else 'are'} empty or a word for nothing")
    return ", ".join(said)


def tell_times(name: str, times: LogTimes, counted: CountedRows, audit: Audit) -> None:
    """Say what was taken for times where it could be something else, and what their midnights mean."""
    form = times.format.form
    if form == "compact" and times.days:
        audit.find("info", f"The times of {name} are numbers that are dates: they are read as {times.format.said}, "
                   f"from {times.days[0]} to {times.days[1]}.")  # fmt: skip
    if form == "excel" and times.days:
        audit.find("warning", f"The times of {name} are read as serial days of Excel, from {times.days[0]} to "
                   f"{times.days[1]}: if they are something else, write them as ISO dates.")  # fmt: skip
    if times.days and times.days[1] > "2100":
        audit.find("warning", f"The times of {name} reach to {times.days[1]}, read as {times.format.said}: is that how "
                   "they are meant?")  # fmt: skip
    if times.format.says_days and counted.timed and not counted.within_a_day:
        audit.find("info", f"The times of {name} are whole days: within a day, a user's interactions are in the order "
                   "of the rows.")  # fmt: skip
