"""Timestamps of any common form as integer milliseconds, told by one look at the whole column.

Which of them stand for a time that is missing is told by `missing_times`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import polars as pl

ALLOWED = "seconds or milliseconds since 1970 (all the same), or an ISO date (2024-01-31, 2024-01-31T12:00:00Z)"

_ISO_FORMATS = ("%Y-%m-%dT%H:%M:%S%.f%z", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d")
_MORE_FORMATS = (
    *_ISO_FORMATS, "%Y-%m-%dT%H:%M%z", "%Y%m%dT%H%M%S%.f%z", "%Y%m%dT%H%M%S%.f", "%Y%m%dT%H%M", "%Y/%m/%dT%H:%M:%S%.f",
    "%Y/%m/%dT%H:%M", "%Y/%m/%d", "%a %b %d %H:%M:%S %z %Y", "%a, %d %b %Y %H:%M:%S %z", "%m %d, %Y", "%b %d, %Y",
    "%d-%b-%Y", "%d %b %Y",
)  # fmt: skip
"""What is tried where some text is none of the usual forms: slower, and never for a column that has only those."""

PER_MILLISECOND = (1e6, 1e3, 1.0, 1e-3)
"""How many nanoseconds, microseconds, milliseconds, seconds make a millisecond."""
_UNITS = {1e6: "nanoseconds", 1e3: "microseconds", 1.0: "milliseconds", 1e-3: "seconds"}
_FROM = (1e17, 1e14, 1e11)
"""From which size on a number counts nanoseconds, microseconds, milliseconds; smaller ones are seconds.

1e11 seconds is the year 5138, 1e11 milliseconds is 1973: no log mixes them up.
"""
_COMPACT = {8: "YYYYMMDD", 14: "YYYYMMDDhhmmss", 12: "YYYYMMDDhhmm", 17: "YYYYMMDDhhmmssSSS", 10: "YYYYMMDDhh",
            6: "YYYYMM"}  # fmt: skip
"""Digits -> how a calendar date is written as a number."""
_EVIDENCE = 3
"""Numbers that are needed to take them for days of Excel, months or hours: one or two say too little."""
_EXCEL_FROM, _EXCEL_UNTIL, _EXCEL_1970 = 32_874, 54_789, 25_569
"""Serial days of 1990, 2050 and 1970."""

DAY = 86_400_000
LARGEST = 10**14
"""Milliseconds of the year 5138: larger numbers count as this many, so that what they were is still known."""
ORDER_ONLY = 10**11
"""Milliseconds of March 1973: where all times are before it, they are positions or an order, not moments."""
NO_TIME = (
    "", "-", "--", "?", ".", "null", "NULL", "Null", "(null)", "none", "None", "NONE", "nan", "NaN", "NAN", "nat",
    "NaT", "NAT", "na", "NA", "n/a", "N/A", "#N/A", "<NA>", "nil", r"\N", "undefined", "unknown", "0000-00-00",
    "0000-00-00 00:00:00",
)  # fmt: skip
"""Words that say that there is no time, as data frames, databases and spreadsheets write them."""


@dataclass(frozen=True)
class TimeFormat:
    """How a column tells time."""

    form: Literal["moment", "number", "iso", "compact", "excel", "given", "none"]
    """A typed date, a number since 1970, text, a date written as a number, a day of Excel, text as the pipeline says,
    or nothing of all that."""
    unit: float = 1.0
    """How many of a number make a millisecond: 1e-3 for seconds."""
    digits: int = 0
    """Of a date written as a number."""
    more_forms: bool = False
    """Whether text is also tried in the rarer forms."""
    pattern: str = ""
    """How the pipeline says that text is written."""

    @property
    def said(self) -> str:
        """How the times are written, in words."""
        return {
            "moment": "dates", "number": f"{_UNITS[self.unit]} since 1970", "iso": "dates as text",
            "compact": f"dates written as {_COMPACT.get(self.digits)}", "excel": "serial days of Excel",
            "given": f"text as {self.pattern}", "none": "no times",
        }[self.form]  # fmt: skip

    @property
    def says_days(self) -> bool:
        """Whether midnights mean something: of plain numbers they do not."""
        return self.form in ("iso", "moment", "compact", "excel", "given")


def time_numbers(column: pl.Expr, dtype: pl.DataType) -> pl.Expr | None:
    """Return the numbers of a column, null for what is none; None for typed dates and what cannot be a time."""
    if dtype in (pl.Date, pl.Datetime) or not (dtype == pl.String or dtype.is_numeric()):
        return None
    return _stripped(column, dtype).cast(pl.Float64, strict=False).fill_nan(None)


def time_statistics(column: pl.Expr, dtype: pl.DataType, number: pl.Expr) -> dict[str, pl.Expr]:
    """Return the aggregates that `time_format` reads: one streaming pass, whatever the number of rows.

    ``number`` is what `time_numbers` returned, computed once.
    """
    facts = {"values": column.count(), "numbers": number.count(), "positive": (number > 0).sum()}
    facts["words"] = pl.lit(0) if dtype.is_integer() else _no_number(column, dtype, number).sum()
    facts |= {f"from_{least:.0f}": (number >= least).sum() for least in _thresholds()}
    return facts | {f"until_{least:.0f}": (number <= -least).sum() for least in _FROM}


def time_format(dtype: pl.DataType, facts: Mapping[str, int]) -> TimeFormat:
    """Return how the column tells time: one unit for all of it, that of its (upper) median above zero.

    A median cannot be moved by a few bad values, as a first row, a minimum or a maximum can; zeros and negative
    numbers stand for missing times too often to have a say.
    """
    if dtype in (pl.Date, pl.Datetime):
        return TimeFormat("moment")
    if not facts:
        return TimeFormat("none")
    if facts["numbers"] * 2 < facts["values"] - facts["words"]:
        return TimeFormat("iso")
    positive = facts["positive"]
    sizes, side = (positive, "from") if positive else (facts["numbers"], "until")
    # As many values as the upper half has: where so many reach a bound, the median does.
    half = sizes - sizes // 2
    names = [f"{side}_{least:.0f}" for least in _FROM]
    place = next((i for i, name in enumerate(names) if half and facts[name] >= half), len(names))
    return TimeFormat("number", PER_MILLISECOND[place])


def calendar_numbers(facts: Mapping[str, int]) -> TimeFormat | None:
    """Return which dates the numbers may be (`YYYYMMDD`, days of Excel) where their sizes suggest it, else None.

    Whether they are is told by `are_dates`: a year from 1900 to 2100 in front is no proof.
    """
    if not facts or not (positive := facts["positive"]):
        return None
    for digits in _COMPACT:
        low, high = _years(digits)
        inside = facts[f"from_{low:.0f}"] - facts[f"from_{high:.0f}"]
        if 2 * inside >= positive and (digits in (8, 12, 14, 17) or inside >= _EVIDENCE):
            return TimeFormat("compact", digits=digits)
    inside = facts[f"from_{_EXCEL_FROM}"] - facts[f"from_{_EXCEL_UNTIL}"]
    return TimeFormat("excel") if 10 * inside >= 9 * positive and inside >= _EVIDENCE else None


def are_dates(moment: pl.Expr, number: pl.Expr, dates: TimeFormat) -> pl.Expr:
    """Return whether numbers that begin with a year really are ``dates``: at least half of them are in the calendar.

    Of other numbers of that size, one in 28 is (of months, one in 8).
    """
    low, high = _years(dates.digits) if dates.form == "compact" else (_EXCEL_FROM, _EXCEL_UNTIL)
    inside = number.is_between(low, high, closed="left")
    return 2 * (inside & moment.is_not_null()).sum() >= inside.sum()


def milliseconds(column: pl.Expr, dtype: pl.DataType, time: TimeFormat) -> pl.Expr:
    """Return Int64 milliseconds since 1970, null where a value is no timestamp; at most `LARGEST` either way."""
    if time.form == "none":
        return pl.lit(None, dtype=pl.Int64)
    if time.form == "moment":
        return column.cast(pl.Datetime("ms")).cast(pl.Int64)
    if time.form == "given":
        text = column.cast(pl.String).str.strip_chars()
        return text.str.to_datetime(time.pattern, time_unit="ms", strict=False).dt.epoch("ms")
    if time.form == "number":
        return _scaled(column, dtype, time.unit)
    if time.form == "excel":
        number = _stripped(column, dtype).cast(pl.Float64, strict=False).fill_nan(None)
        return ((number - _EXCEL_1970) * DAY).clip(-LARGEST, LARGEST).round().cast(pl.Int64, strict=False)
    if time.form == "compact":
        return _compact(column, dtype, time.digits)
    # Polars' formats want a T between date and time, and digits for a zone.
    text = column.str.strip_chars().str.replace(r"^(\S+) +(\d)", "${1}T${2}").str.replace(r"[zZ]$", "+00:00")
    if time.more_forms:
        text = _usual(column.str.strip_chars())
    # Numbers are coalesced and not moments: those with a zone and those without are of different types.
    forms = _MORE_FORMATS if time.more_forms else _ISO_FORMATS
    return pl.coalesce(text.str.to_datetime(form, time_unit="ms", strict=False).dt.epoch("ms") for form in forms)


def is_no_time(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Return whether a value says that there is no time: null, NaN, a blank, or a word of `NO_TIME`; never null."""
    if dtype == pl.String:
        # Imploded: Polars deprecates a plain series of the same type here, which could mean one value for each row.
        return column.str.strip_chars().is_in(pl.Series(NO_TIME).implode()).fill_null(True)
    return column.is_null() | column.is_nan().fill_null(True) if dtype.is_float() else column.is_null()


def is_midnight(moment: pl.Expr) -> pl.Expr:
    """Return whether milliseconds since 1970 are a whole day."""
    return moment % DAY == 0


def _stripped(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    return column.str.strip_chars() if dtype == pl.String else column


def _no_number(column: pl.Expr, dtype: pl.DataType, number: pl.Expr) -> pl.Expr:
    """Return which of the values that are there, but no number, say that there is no time."""
    return is_no_time(column.filter(number.is_null() & column.is_not_null()), dtype)


def _years(digits: int) -> tuple[float, float]:
    """Return the numbers of so many digits that may begin with a year from 1900 to 2100."""
    return 1900.0 * 10 ** (digits - 4), 2101.0 * 10 ** (digits - 4)


def _thresholds() -> list[float]:
    return [*_FROM, _EXCEL_FROM, _EXCEL_UNTIL, *(bound for digits in _COMPACT for bound in _years(digits))]


def _scaled(column: pl.Expr, dtype: pl.DataType, unit: float) -> pl.Expr:
    """Scale to milliseconds: integers exactly, fractions to the nearest; what is too large becomes the largest."""
    number = _stripped(column, dtype).cast(pl.Float64, strict=False).fill_nan(None)
    # Nanoseconds since 1970 have more digits than a float holds, so integers are divided as integers.
    whole = _stripped(column, dtype).cast(pl.Int64, strict=False)
    exact = whole // int(unit) if unit >= 1 else whole * 1000
    scaled = number / unit
    fits = scaled.abs() < LARGEST
    far = scaled.clip(-LARGEST, LARGEST).cast(pl.Int64, strict=False)
    if dtype.is_integer():
        return pl.when(fits).then(exact).otherwise(far)
    is_whole = (whole.cast(pl.Float64) == number).fill_null(False)
    return (
        pl.when(fits & is_whole).then(exact).when(fits).then(scaled.round().cast(pl.Int64, strict=False)).otherwise(far)
    )


def _compact(column: pl.Expr, dtype: pl.DataType, digits: int) -> pl.Expr:
    """Read dates written as numbers of so many digits; what is not above zero, or all nines, is far from any date."""
    number = _stripped(column, dtype).cast(pl.Float64, strict=False).fill_nan(None)
    whole = pl.coalesce(_stripped(column, dtype).cast(pl.Int64, strict=False), number.cast(pl.Int64, strict=False))
    text = whole.cast(pl.String).str.zfill(digits)
    # Months and hours are completed; the others are cut where chrono, which wants separators, could not.
    text = text + {6: "01", 10: "0000", 12: "00"}.get(digits, "")
    padded = text.str.replace(r"^(\d{8})(\d{6})(\d*)$", "${1}T${2}.${3}").str.strip_suffix(".")
    if digits in (6, 8):
        moment = text.str.to_date("%Y%m%d", strict=False).cast(pl.Datetime("ms")).dt.epoch("ms")
    else:
        moment = padded.str.to_datetime("%Y%m%dT%H%M%S%.f", time_unit="ms", strict=False).dt.epoch("ms")
    nines = whole >= 10**digits - 1
    return pl.when(number <= 0).then(-LARGEST).when(nines).then(LARGEST).otherwise(moment).cast(pl.Int64)


def _usual(text: pl.Expr) -> pl.Expr:
    """Return text with zones and fractions as Polars' formats want them."""
    text = text.str.replace(r"\s*(?:[zZ]|UTC|GMT|utc|gmt)$", "+00:00")
    text = text.str.replace(r"(:\d\d)\s*([+-]\d\d):?(\d\d)?$", "${1}${2}:${3}").str.replace(r"([+-]\d\d):$", "${1}:00")
    text = text.str.replace(r"(:\d\d),(\d+)", "${1}.${2}").str.replace(r"^(\d{4}[\d/-]{4,}) +(\d)", "${1}T${2}")
    return text.str.replace(r"^(\w{3}, .*:\d\d)([+-])", "${1} ${2}")
