"""Times that are no times: which values of a column stand for a time that is missing.

Programs write 0, -1, 1970-01-01, 9999-12-31 or the smallest integer where they know no time, and read as moments they
change histories and targets. One value alone proves nothing: 0 is the first position of a list. So the column as a
whole decides: its times are gathered by years, the years that most rows are in are its bulk, and what lies apart from
the bulk is missing if it is before March 1973, after 2100, one value again and again, or a small share of the rows.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import polars as pl

from msr_adapter.data.readers.timestamps import DAY, LARGEST, ORDER_ONLY, PER_MILLISECOND, TimeFormat

YEAR = 31_557_600_000
"""Milliseconds: 365.25 days."""

_APART = 10
"""Years without a row on both sides of which times do not belong together."""
_APART_REPEATED = 3
"""The same where one side is one and the same value in `_REPEATED` rows or more."""
_REPEATED, _BULK = 3, 20
"""Rows; a bulk of fewer says nothing of values that could be times."""
_FEW = 0.1
"""Share of the rows up to which values far from all others are no second era of the log."""
_FAR_FUTURE = 4_102_444_800_000
"""Milliseconds of the year 2100."""
_CALENDAR = -62_135_596_800_000, 253_402_300_799_999
"""Milliseconds of the years 1 and 9999, where calendars begin and end."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class TimeRange:
    """Rows of times that lie together."""

    rows: int
    first: int
    """Milliseconds, as `last`."""
    last: int

    @property
    def said(self) -> str:
        """Its days, as dates: `1970-01-01`, or `2021-03-01 to 2021-05-30`."""
        return " to ".join(dict.fromkeys((day(self.first), day(self.last))))


@dataclass(frozen=True)
class TimeRanges:
    """What a column of times holds: its bulk, and what stands for times that are missing."""

    bulk: TimeRange
    missing: tuple[TimeRange, ...] = ()

    @property
    def is_order(self) -> bool:
        """Whether the numbers are too small for moments, and mean an order alone."""
        return self.bulk.last < ORDER_ONLY

    def is_missing(self, moment: pl.Expr) -> pl.Expr:
        """Return which of the milliseconds stand for a missing time; never null."""
        if not self.missing:
            return pl.lit(False)
        return pl.any_horizontal(moment.is_between(part.first, part.last) for part in self.missing).fill_null(False)

    def in_another_unit(self, number: pl.Expr, time: TimeFormat) -> pl.Expr:
        """Return which numbers are times of the bulk once they are read in another unit than the others; never null."""
        if time.form != "number" or self.is_order:
            return pl.lit(False)
        low, high = max(self.bulk.first - YEAR, ORDER_ONLY), self.bulk.last + YEAR
        units = (number / unit for unit in PER_MILLISECOND if unit != time.unit)
        return pl.any_horizontal(other.is_between(low, high) for other in units).fill_null(False)


def day(moment: int) -> str:
    """Return the day of milliseconds since 1970, or in words that no calendar has it."""
    if abs(moment) == LARGEST or not _CALENDAR[0] <= moment <= _CALENDAR[1]:
        return "a number beyond all dates"
    return (_EPOCH + timedelta(milliseconds=moment)).date().isoformat()


def time_ranges(years: Iterable[TimeRange], time: TimeFormat) -> TimeRanges | None:
    """Return the bulk of a column and its missing times, from its rows by years; None where it has no time at all."""
    clusters = _clusters(sorted(years, key=lambda year: year.first))
    if not clusters:
        return None
    parts = [_whole(cluster) for cluster in clusters]
    total = sum(part.rows for part in parts)
    best = max(range(len(parts)), key=lambda place: _weight(parts[place], total, time))
    bulk, others = parts[best], [part for place, part in enumerate(parts) if place != best]
    missing = [part for part in others if _is_missing(part, bulk, total)]
    if _is_sentinel(bulk, time) and bulk.first == bulk.last and bulk.rows >= _REPEATED:
        return TimeRanges(bulk, (*missing, bulk))  # the same word for nothing in every row
    kept, repeated = _without_repeated_ends(clusters[best])
    return TimeRanges(_whole(kept), (*missing, *repeated, *_minus_one(kept, time)))


def _clusters(years: Sequence[TimeRange]) -> list[list[TimeRange]]:
    clusters: list[list[TimeRange]] = []
    for year in years:
        if not clusters or year.first - clusters[-1][-1].last >= _APART * YEAR:
            clusters.append([])
        clusters[-1].append(year)
    return clusters


def _whole(years: Sequence[TimeRange]) -> TimeRange:
    return TimeRange(sum(year.rows for year in years), years[0].first, years[-1].last)


def _is_sentinel(part: TimeRange, time: TimeFormat) -> bool:
    """Return whether times would be wrong for most rows of any log: none after 1970 begins, or none before 2100."""
    one_of_1970 = part.first == part.last < DAY
    # The unit is that of the median: in milliseconds, most numbers are later than March 1973.
    too_small = part.last < ORDER_ONLY and time.form == "number" and time.unit >= 1
    return part.last <= 0 or one_of_1970 or too_small or part.first >= _FAR_FUTURE


def _weight(part: TimeRange, total: int, time: TimeFormat) -> tuple[bool, bool, int]:
    """Return how much speaks for times as the bulk: sentinels may be most of a column, but they are one value."""
    return not _is_sentinel(part, time), part.first < part.last and 20 * part.rows >= total, part.rows


def _is_missing(part: TimeRange, bulk: TimeRange, total: int) -> bool:
    if bulk.last < ORDER_ONLY:
        return part.last <= -ORDER_ONLY or (bulk.rows >= _BULK and part.rows <= _FEW * total)
    if part.last < ORDER_ONLY or (part.first >= _FAR_FUTURE > bulk.last):
        return True
    return bulk.rows >= _BULK and (part.first == part.last or part.rows <= _FEW * total)


def _without_repeated_ends(bulk: Sequence[TimeRange]) -> tuple[list[TimeRange], list[TimeRange]]:
    """Take off the bulk's ends what is one value in several rows, years from all others: a clock that was reset."""
    kept, taken = list(bulk), []
    for end, other in ((0, 1), (-1, -2)):
        if len(kept) > 1 and kept[end].rows >= _REPEATED and kept[end].first == kept[end].last:
            gap = max(kept[end].first - kept[other].last, kept[other].first - kept[end].last)
            if gap >= _APART_REPEATED * YEAR and sum(year.rows for year in kept) - kept[end].rows >= _BULK:
                taken.append(kept.pop(end))
    return kept, taken


def _minus_one(bulk: Sequence[TimeRange], time: TimeFormat) -> list[TimeRange]:
    """Return -1 where it is the only negative value among positions."""
    first, one = bulk[0], round(DAY if time.form == "excel" else 1 / time.unit)
    is_it = len(bulk) > 1 and first.first == first.last == -one and bulk[-1].last < ORDER_ONLY
    return [first] if is_it else []
