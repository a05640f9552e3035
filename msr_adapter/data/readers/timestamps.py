"""Timestamps of any common form as integer milliseconds, told by one look at the whole column."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import polars as pl

ALLOWED = "seconds or milliseconds since 1970 (all the same), or an ISO date (2024-01-31, 2024-01-31T12:00:00Z)"

_ISO_FORMATS = ("%Y-%m-%dT%H:%M:%S%.f%z", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d")
_PER_MILLISECOND = (1e6, 1e3, 1.0, 1e-3)
_FROM = (1e17, 1e14, 1e11)
"""From which size on a number counts nanoseconds, microseconds, milliseconds; smaller ones are seconds.

1e11 seconds is the year 5138, 1e11 milliseconds is 1973: no log mixes them up.
"""
_LARGEST = 1e14
"""Milliseconds of the year 5138: what is later was written in another unit than the rest of the file, or is no time."""
_DAY = 86_400_000


@dataclass(frozen=True)
class TimeFormat:
    """How a column tells time."""

    form: Literal["moment", "number", "iso", "none"]
    """A typed date, a number since 1970, text, or nothing that can be read as a time."""
    unit: float = 1.0
    """How many of a number make a millisecond: 1e-3 for seconds."""


def time_statistics(column: pl.Expr, dtype: pl.DataType) -> dict[str, pl.Expr]:
    """Return the aggregates that `time_format` reads: one streaming pass, whatever the number of rows."""
    if dtype in (pl.Date, pl.Datetime) or not (dtype == pl.String or dtype.is_numeric()):
        return {}
    number = _numbers(column, dtype)
    size = number.abs().filter(number.is_finite())
    facts = {"values": column.count(), "numbers": number.count(), "sizes": size.count()}
    facts |= {f"from_{least:.0e}": (size >= least).sum() for least in _FROM}
    return facts


def time_format(dtype: pl.DataType, facts: Mapping[str, int]) -> TimeFormat:
    """Return how the column tells time: one unit for all of it, that of its (upper) median.

    A median cannot be moved by a few bad values, as a first row, a minimum or a maximum can.
    """
    if dtype in (pl.Date, pl.Datetime):
        return TimeFormat("moment")
    if not facts:
        return TimeFormat("none")
    if facts["numbers"] * 2 < facts["values"]:
        return TimeFormat("iso")
    # As many values as the upper half has: where so many reach a bound, the median does.
    half = facts["sizes"] - facts["sizes"] // 2
    names = [f"from_{least:.0e}" for least in _FROM]
    place = next((i for i, name in enumerate(names) if half and facts[name] >= half), len(names))
    return TimeFormat("number", _PER_MILLISECOND[place])


def count_too_small(facts: Mapping[str, int], time: TimeFormat) -> int:
    """Return how many numbers are too small for the unit of the column: they would be times before March 1973."""
    unit = _PER_MILLISECOND.index(time.unit) if time.form == "number" else len(_FROM)
    return facts["sizes"] - facts[f"from_{_FROM[unit]:.0e}"] if unit < len(_FROM) else 0


def milliseconds(column: pl.Expr, dtype: pl.DataType, time: TimeFormat) -> pl.Expr:
    """Return Int64 milliseconds since 1970, null where a value is no timestamp."""
    if time.form == "none":
        return pl.lit(None, dtype=pl.Int64)
    if time.form == "moment":
        return column.cast(pl.Datetime("ms")).cast(pl.Int64)
    if time.form == "number":
        return _scaled(column, dtype, time.unit)
    # Polars' formats want a T between date and time, and digits for a zone.
    text = column.str.strip_chars().str.replace(r"^(\S+) +(\d)", "${1}T${2}").str.replace(r"[zZ]$", "+00:00")
    # Numbers are coalesced and not moments: those with a zone and those without are of different types.
    return pl.coalesce(text.str.to_datetime(form, time_unit="ms", strict=False).dt.epoch("ms") for form in _ISO_FORMATS)


def is_midnight(moment: pl.Expr) -> pl.Expr:
    """Return whether milliseconds since 1970 are a whole day."""
    return moment % _DAY == 0


def _numbers(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    return (column.str.strip_chars() if dtype == pl.String else column).cast(pl.Float64, strict=False)


def _scaled(column: pl.Expr, dtype: pl.DataType, unit: float) -> pl.Expr:
    """Scale to milliseconds: integers exactly, fractions to the nearest; what does not fit becomes null."""
    number = _numbers(column, dtype)
    # Nanoseconds since 1970 have more digits than a float holds, so integers are divided as integers.
    whole = (column.str.strip_chars() if dtype == pl.String else column).cast(pl.Int64, strict=False)
    exact = whole // int(unit) if unit >= 1 else whole * 1000
    scaled = number / unit
    fits = scaled.is_finite() & (scaled.abs() < _LARGEST)
    if dtype.is_integer():
        return pl.when(fits).then(exact)
    is_whole = (whole.cast(pl.Float64) == number).fill_null(False)
    return pl.when(fits & is_whole).then(exact).when(fits).then(scaled.round().cast(pl.Int64, strict=False))
