"""Which column is taken where names alone do not say: the values of the first rows are looked at.

Of several columns called like a time, a date beats seconds watched. Where none is, a column that holds times, or looks
like an image, is not passed over in silence; and a log without a time whose rows are newest first is refused.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import polars as pl

from msr_adapter.data.audit.report import Audit
from msr_adapter.data.readers.column_names import NAME_IT, candidates, canonical, find_columns
from msr_adapter.data.readers.missing_times import YEAR
from msr_adapter.data.readers.table_layout import Table
from msr_adapter.data.readers.table_scan import collect, column_names, scan
from msr_adapter.data.readers.timestamps import (
    TimeFormat,
    are_dates,
    calendar_numbers,
    is_midnight,
    milliseconds,
    time_format,
    time_numbers,
    time_statistics,
)
from msr_adapter.errors import Problem, UserError

_LOOKED_AT = 10_000
"""Rows that tell what a column holds."""
_MOST_COLUMNS = 200
"""Columns whose values are looked at: a table of features has thousands."""
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_TIME_WORDS = re.compile(r"(time|times?tamp|date|stamp|epoch|zeit|datum)$|^(ts|day|when|fecha|heure)$|^unix")
_OTHER_WORDS = re.compile(r"^(run|play|life|air|over|some|part)time$|^(candi|up|vali|man)date$")
_OTHER_NAMES = re.compile(r"duration|spent|length|elapsed|watch|remaining")
"""Seconds watched are no moment, and a candidate is no date."""
_IMAGE_NAMES = re.compile(r"^im(g|age)|im(g|age)s?$|image|photo|picture|poster|cover(?!age)|thumb")
_IMAGE_VALUES = r"(?i)\.(jpe?g|png|webp|gif|bmp|tiff?|avif)(\?.*)?$"
_MOMENTS_FROM, _MOMENTS_UNTIL = 20 * YEAR, 70 * YEAR
"""Milliseconds of 1990 and 2040: what a number that is a time is between."""
_NEWEST_FIRST = 0.1
"""Share of the steps between a user's rows that go back in time, from which on the rows are in no order of time."""

Configured = Mapping[str, str | None]
"""Field -> the name of its column; None or absent = found by the well-known names; "" = there is none."""

Likeness = Literal["moments", "days", "numbers", "no times"]
"""What a column holds: times of day, whole days, numbers too small for dates, or nothing that is a time."""
_ORDER: tuple[Likeness, ...] = ("moments", "days", "numbers", "no times")


@dataclass(frozen=True)
class ChosenColumns:
    """The columns of one table that are read, and what is said of the others."""

    names: dict[str, str]
    """Field -> column."""
    unused: tuple[str, ...] = ()
    passed_over: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Field -> columns with a usual name of it that are not read."""
    warnings: tuple[str, ...] = ()
    told: tuple[str, ...] = ()
    """What was decided by the values."""

    def tell(self, audit: Audit) -> None:
        """Note what should be known of the choice."""
        for text in self.warnings:
            audit.find("warning", text, "columns")
        for text in self.told:
            audit.find("info", text, "columns")


def choose_columns(
    table: Table, required: Sequence[str], optional: Sequence[str], configured: Configured, beside: Sequence[str] = ()
) -> ChosenColumns:
    """Return which columns are read; `UserError` with all that are absent, or for a log that is newest first.

    ``beside`` is the header of the table that this one is joined with: an id that both have is the one that is meant.
    """
    header = column_names(table)
    names = find_columns(str(table.path), header, required, configured, optional)
    free = [name for name in names if not configured.get(name)]
    if "item" in free and (shared := [name for name in candidates(header, "item") if _is_in(name, beside)]):
        names["item"] = shared[0]
    warnings, told = list[str](), list[str]()
    if "timestamp" in free and len(candidates(header, "timestamp")) > 1:
        names["timestamp"], why = _best_time(table, candidates(header, "timestamp"))
        told += [f"{table.path.name}: {why}"] if why else []
    taken = set(names.values())
    unused = tuple(name for name in header if name not in taken)
    if "timestamp" in optional and "timestamp" not in names and configured.get("timestamp") is None:
        warnings += _untimed(table, names["user"], names["item"], unused)
    if "image" in optional and "image" not in names and configured.get("image") is None:
        warnings += _without_image(table, unused)
    over = {name: tuple(c for c in candidates(header, name) if c not in taken) for name in free}
    return ChosenColumns(names, unused, {name: c for name, c in over.items() if c}, tuple(warnings), tuple(told))


def likeness(values: pl.Series, *, days_of_excel: bool = True) -> Likeness:
    """Return what a column holds, judged by some of its values: most of those that are there must be times."""
    values = values.drop_nulls()
    moments = _moments(values, days_of_excel=days_of_excel)
    if moments is None or values.is_empty():
        return "no times"
    read = moments.drop_nulls()
    if 2 * len(read) < len(values):
        return "no times"
    inside = read.filter(read.is_between(_MOMENTS_FROM, _MOMENTS_UNTIL))
    if 2 * len(inside) < len(read.filter(read > 0)) or inside.is_empty():
        return "numbers" if values.dtype.is_numeric() or values.dtype == pl.String else "no times"
    days = inside.to_frame("m").select(is_midnight(pl.col("m")).all()).item()
    return "days" if days else "moments"


def _moments(values: pl.Series, *, days_of_excel: bool = True) -> pl.Series | None:
    """Return values as milliseconds since 1970, null where they are no times; None for a type that holds none."""
    dtype, column = values.dtype, pl.col(values.name)
    frame = values.to_frame()
    number = time_numbers(column, dtype)
    if number is None:
        if dtype not in (pl.Date, pl.Datetime):
            return None
        return frame.select(milliseconds(column, dtype, TimeFormat("moment"))).to_series()
    facts = frame.select(**time_statistics(column, dtype, number)).row(0, named=True)
    time, dates = time_format(dtype, facts), calendar_numbers(facts)
    if dates and dates.form == "excel" and not days_of_excel:
        dates = None
    if dates and frame.select(are_dates(milliseconds(column, dtype, dates), number, dates)).item():
        time = dates
    if time.form == "iso":
        time = TimeFormat("iso", more_forms=True)
    return frame.select(milliseconds(column, dtype, time)).to_series()


def _first_rows(table: Table, names: Collection[str]) -> pl.DataFrame:
    """Return the first rows of columns, those that are nested left out."""
    frame = scan(table, names)
    kinds = frame.collect_schema()
    plain = [n for n in names if n in kinds and not isinstance(kinds[n], pl.List | pl.Struct | pl.Array | pl.Object)]
    return collect(table, frame.select(plain).head(_LOOKED_AT))


def _best_time(table: Table, names: Sequence[str]) -> tuple[str, str]:
    """Return the column that holds times best, and why, where that is not the one that names alone would take."""
    rows = _first_rows(table, names)
    kinds = {name: likeness(rows[name]) if name in rows.columns else "no times" for name in names}
    best = min(names, key=lambda name: _ORDER.index(kinds[name]))  # of equals the first, whose name is better
    if best == names[0]:
        return best, ""
    said = {"moments": "times", "days": "days", "numbers": "numbers too small for dates", "no times": "no times"}
    return (
        best,
        f"the time is read from `{best}`, which holds {said[kinds[best]]}; `{names[0]}` holds {said[kinds[names[0]]]}",
    )


def _untimed(table: Table, user: str, item: str, unused: Sequence[str]) -> list[str]:
    """Return what is to be said of columns that look like times in a log that has none; `UserError` where one of them
    says that the rows are not in the order of time."""
    rows = _first_rows(table, [user, item, *unused[:_MOST_COLUMNS]])
    looks = [name for name in unused if name in rows.columns and _is_time(rows, name)]
    for name in looks:
        if why := _out_of_order(rows, user, item, name):
            found = f"no known column of times, `{name}` looks like one, and {why}"
            step = f'{NAME_IT}timestamp to {name}, or to "" if the rows are in the order of time'
            raise UserError(Problem(str(table.path), "timestamp", found, "a log in the order of time", step))
    called = [name for name in unused if name not in looks and _is_called_time(name)]
    if not looks and not called:
        return []
    names = ", ".join(f"`{name}`" for name in (looks or called)[:3])
    what = "looks like a time" if looks else "is called like a time"
    return [f"{table.path.name}: {names} {what} and is not read: the log has no time, its rows are taken in their "
            "order. Set data.source.columns.timestamp to read it."]  # fmt: skip


def _is_time(rows: pl.DataFrame, name: str) -> bool:
    called, numbers = _is_called_time(name), _holds_numbers(rows[name])
    kind = likeness(rows[name], days_of_excel=called)  # prices of some 40,000 are such days too
    # Numbers of any meaning may pass for days; text and typed dates do not.
    return kind == "moments" or (kind == "days" and (called or not numbers))


def _holds_numbers(values: pl.Series) -> bool:
    if values.dtype != pl.String:
        return values.dtype.is_numeric()
    there = values.drop_nulls()
    return 2 * there.str.strip_chars().cast(pl.Float64, strict=False).count() >= len(there)


def _is_called_time(name: str) -> bool:
    words = [word.lower() for word in _WORDS.findall(name.partition(":")[0])]
    is_time = any(_TIME_WORDS.search(word) and not _OTHER_WORDS.search(word) for word in words)
    return (is_time or words[1:][-1:] == ["at"]) and not _OTHER_NAMES.search(canonical(name))


def _out_of_order(rows: pl.DataFrame, user: str, item: str, name: str) -> str:
    """Return how the rows go against the times of a column, or nothing: where they do not, or it belongs to items."""
    moments = _moments(rows[name])
    if moments is None:
        return ""
    log = rows.select(user=pl.col(user), item=pl.col(item)).with_columns(time=moments).drop_nulls()
    of_items = log.group_by("item").agg(rows=pl.len(), times=pl.col("time").n_unique()).filter(pl.col("rows") > 1)
    if of_items.height and of_items["times"].max() == 1:
        return ""  # the date of a release says nothing of who came when
    steps = log.with_columns(step=pl.col("time").diff().over("user")).filter(pl.col("step") != 0)["step"]
    back = int((steps < 0).sum())
    if back <= _NEWEST_FIRST * len(steps):
        return ""
    if back >= (1 - _NEWEST_FIRST) * len(steps):
        return "by it the rows are newest first"
    if _holds_numbers(rows[name]) and not _is_called_time(name):
        return ""  # ids are numbers of any size, in no order
    return f"by it {back:,} of {len(steps):,} rows are earlier than the row before of the same user"


def _without_image(table: Table, unused: Sequence[str]) -> list[str]:
    rows = _first_rows(table, unused[:_MOST_COLUMNS]) if unused else pl.DataFrame()
    looks = [name for name in unused if _IMAGE_NAMES.search(canonical(name)) or _holds_images(rows, name)]
    if not looks:
        return []
    names = ", ".join(f"`{name}`" for name in looks[:3])
    return [f"{table.path.name}: {names} looks like an image and is not read. Set data.source.columns.image to read "
            "it."]  # fmt: skip


def _holds_images(rows: pl.DataFrame, name: str) -> bool:
    if name not in rows.columns or rows[name].dtype != pl.String:
        return False
    values = rows[name].drop_nulls().str.strip_chars()
    values = values.filter(values != "")
    return not values.is_empty() and 2 * int(values.str.contains(_IMAGE_VALUES).sum()) >= len(values)


def _is_in(name: str, header: Sequence[str]) -> bool:
    return canonical(name) in {canonical(other) for other in header}
