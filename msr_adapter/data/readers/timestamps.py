"""Timestamps of any common form as integer milliseconds."""

import polars as pl

ALLOWED = "seconds or milliseconds since 1970, or an ISO date (2024-01-31, 2024-01-31T12:00:00Z)"

_ISO_FORMATS = ("%Y-%m-%dT%H:%M:%S%.f%z", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d")
_PER_MILLISECOND = ((1e17, 1e6), (1e14, 1e3), (1e11, 1.0))
"""From which size on a number counts nanoseconds, microseconds, milliseconds; smaller ones are seconds.

1e11 seconds is the year 5138, 1e11 milliseconds is 1973: no log mixes them up.
"""
_LARGEST = 2.0**62


def to_milliseconds(values: pl.Series) -> pl.Series:
    """Return Int64 milliseconds, null where a value is no timestamp; one unit for the column, told by its median."""
    if values.dtype in (pl.Date, pl.Datetime):
        return values.cast(pl.Datetime("ms")).cast(pl.Int64)
    if values.dtype == pl.String:
        values = values.str.strip_chars()
    elif not values.dtype.is_numeric():
        return pl.Series([None] * len(values), dtype=pl.Int64)
    numbers = values.cast(pl.Float64, strict=False)
    if numbers.count() * 2 < values.count():
        return _iso(values)
    return _scaled(values.cast(pl.Int64, strict=False), numbers)


def _scaled(whole: pl.Series, numbers: pl.Series) -> pl.Series:
    """Scale to milliseconds: integers exactly, fractions to the nearest; what does not fit becomes null."""
    size = numbers.filter(numbers.is_finite()).abs().median()
    divisor = next((unit for least, unit in _PER_MILLISECOND if isinstance(size, float) and size >= least), 1e-3)
    exact = pl.col("whole") // int(divisor) if divisor >= 1 else pl.col("whole") * 1000
    scaled = pl.col("number") / divisor
    rounded = scaled.round().cast(pl.Int64, strict=False)
    fits = scaled.is_finite() & (scaled.abs() < _LARGEST)
    is_whole = (pl.col("whole").cast(pl.Float64) == pl.col("number")).fill_null(False)
    result = pl.when(fits & is_whole).then(exact).when(fits).then(rounded)
    return pl.DataFrame({"whole": whole, "number": numbers}).select(result).to_series()


def _iso(values: pl.Series) -> pl.Series:
    text = values.str.replace(r"^(\S+) +(\d)", "${1}T${2}").str.replace(r"[zZ]$", "+00:00")
    column = pl.col("t")
    parsed = [_parse(column, pattern) for pattern in _ISO_FORMATS]
    return text.rename("t").to_frame().select(pl.coalesce(parsed)).to_series()


def _parse(column: pl.Expr, pattern: str) -> pl.Expr:
    return column.str.to_datetime(pattern, time_unit="ms", strict=False).dt.epoch("ms")
