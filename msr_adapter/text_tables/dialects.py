"""How the quotation marks of a delimited file are meant: decided where the file leaves no doubt, refused otherwise."""

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

from msr_adapter.errors import Problem, UserError, plural
from msr_adapter.text_tables.line_counts import HowToCount, LineCounts, count_lines
from msr_adapter.text_tables.mark_lines import MarkLines, look_at_marks, look_like_rows, open_words, text_of_line

Quote = Literal["double", "none"]
Escape = Literal["double", "backslash"]
Reading = Literal["rfc4180", "none", "loose", "backslash"]
"""How marks are read: they enclose fields and are doubled within; they are text; they enclose only fields that begin
with one, and are text elsewhere; a backslash takes the meaning from whatever follows it."""

SET_QUOTE = "Set data.source.quote"
"""How the next step begins where only a key of the pipeline can settle how a file is meant."""
_BOTH = (
    f"{SET_QUOTE}: none if its marks are text, {SET_QUOTE.removeprefix('Set ')}: double if they enclose fields, or "
    "correct the line"
)

_UNQUOTED, _ESCAPED = HowToCount(marks=False), HowToCount(backslash=True)


def without_keys(problem: Problem, step: str) -> Problem:
    """Return a problem of a file that no key of the pipeline describes, with a ``step`` that can be taken."""
    return replace(problem, next_step=step) if problem.next_step.startswith(SET_QUOTE) else problem


@dataclass(frozen=True)
class Asked:
    """What the pipeline says of a file's marks; None = the file decides."""

    quote: Quote | None = None
    escape: Escape | None = None


@dataclass(frozen=True)
class Dialect:
    """How a delimited file is read, and what it holds when it is read so."""

    reading: Reading
    records: int
    """Records and blank lines, the header among them; 0 = not known."""
    blank: int = 0
    """Blank lines among them."""
    n_short: int = 0
    """Records with fewer fields than the first."""
    short: tuple[int, ...] = ()
    """The lines of the first of them."""
    returns: bool = False
    """Whether a CR without LF ends a line too."""
    told: str = ""
    """What was decided and why, for the audit; empty for a file as it should be."""


def dialect_of(path: Path, separator: str, asked: Asked) -> Dialect:
    """Return how a delimited file is to be read; `UserError` where that cannot be known.

    One pass over the bytes, and more where marks are not as RFC 4180 says; each version of a file is looked at once.
    """
    stamp = path.stat()
    return _decided(_File(path, separator, (stamp.st_size, stamp.st_mtime_ns, stamp.st_ino)), asked)


@dataclass(frozen=True)
class _File:
    path: Path
    separator: str
    version: tuple[int, int, int]
    """Tells a changed file from the one that was looked at."""


@lru_cache(maxsize=64)
def _decided(file: _File, asked: Asked) -> Dialect:
    path, separator = file.path, file.separator
    if asked.quote == "none" and asked.escape != "backslash":
        return _unquoted(file, _said_of_none(file))
    counts = count_lines(path, separator)
    escaped = count_lines(path, separator, _ESCAPED) if counts.escaped else counts
    if asked.escape == "backslash":
        return _dialect(file, "backslash", escaped, "")
    if counts.is_valid and (asked.quote == "double" or not counts.swallowed):
        return _dialect(file, "rfc4180", counts, "")
    if counts.escaped and asked.escape is None and escaped.is_valid and not escaped.swallowed and not counts.is_valid:
        told = f'{path.name} writes a quotation mark within a field as \\": read with escape: backslash.'
        return _dialect(file, "backslash", escaped, told)
    marks = look_at_marks(path, separator, counts.columns)
    if asked.quote == "double":
        return _dialect(file, "loose", counts, "")
    if counts.is_valid:
        return _of_joined_lines(file, counts, marks)
    return _of_stray_marks(file, counts, marks)


def _of_joined_lines(file: _File, counts: LineCounts, marks: MarkLines) -> Dialect:
    """Decide for valid marks between which lines stand that may be rows."""
    path, separator = file.path, file.separator
    if counts.columns > 1 and not look_like_rows(path, separator, counts.columns, counts.swallowed_at):
        return _dialect(file, "rfc4180", counts, "")
    if counts.columns > 1 and not marks.uneven and not _encloses_fields(counts, marks):
        return _without_marks(file, marks)
    begin, end = counts.swallowed_at[0]
    rows = plural(end - begin, "line")
    found = (
        f"a quotation mark opens here and closes in line {end}, and the {rows} below look like rows of their own "
        f"({text_of_line(path, begin)!r})"
    )
    more = f" ({plural(counts.swallowed, 'such record')} in the file)" if counts.swallowed > 1 else ""
    raise UserError(Problem(f"{path}:{begin}", "", found + more, "", _BOTH))


def _of_stray_marks(file: _File, counts: LineCounts, marks: MarkLines) -> Dialect:
    """Decide for marks that are neither the begin nor the end of a field."""
    path = file.path
    if not marks.loose:
        if not marks.quoting:  # then a mark never stands at the begin of a field: both readings are the same
            return _without_marks(file, marks)
        told = (
            f"{path.name} has quotation marks around some fields and in the middle of others "
            f"({plural(marks.within, 'line')}, first line {marks.first_within}): those in the middle are read as text."
        )
        plain = LineCounts(
            counts.columns, counts.physical, counts.physical * (counts.columns - 1)
        )  # Arrow refuses others
        return _dialect(file, "loose", plain, told)
    if (
        not marks.uneven
        and not _encloses_fields(counts, marks)
        and not open_words(path, file.separator, counts.columns, marks.loose)
    ):
        return _without_marks(file, marks)
    line = marks.loose[0]
    found = f"a quotation mark that opens a field and closes none ({text_of_line(path, line)!r})"
    others = [str(number) for number in marks.loose[1:4]]
    more = f", as in line{'s' if len(others) > 1 else ''} {', '.join(others)}" if others else ""
    first = f"{marks.quoting:,} lines hold fields in quotation marks" if marks.quoting else ""
    uneven = f"without marks line {marks.uneven[0]} would have other columns than the header" if marks.uneven else ""
    step = f"{_BOTH}. Look for a quotation mark that is never closed" if counts.opened else _BOTH
    raise UserError(Problem(f"{path}:{line}", "", found + more, "; ".join(x for x in (first, uneven) if x), step))


def _encloses_fields(counts: LineCounts, marks: MarkLines) -> bool:
    """Return whether whoever wrote the file puts fields in quotation marks, which a text may have at both ends too."""
    return marks.quoting * 10 > counts.physical


def _without_marks(file: _File, marks: MarkLines) -> Dialect:
    path, line = file.path, marks.first_mark
    told = (
        f"{path.name} is read without quotation marks (quote: none): its lines have the columns of the header only so. "
        f"A mark is part of the text, as in line {line} ({text_of_line(path, line)!r})."
    )
    return _unquoted(file, told)


def _said_of_none(file: _File) -> str:
    """Return what a reader should know who asks for marks as text where they enclose fields."""
    path = file.path
    marks = look_at_marks(path, file.separator, 0)
    if not marks.quoting:
        return ""
    return (
        f"{plural(marks.quoting, 'line')} of {path.name} hold fields in quotation marks, which quote: none makes "
        f"part of the text, as in line {marks.first_mark} ({text_of_line(path, marks.first_mark)!r})."
    )


def _unquoted(file: _File, told: str) -> Dialect:
    return _dialect(file, "none", count_lines(file.path, file.separator, _UNQUOTED), told)


def _dialect(file: _File, reading: Reading, counts: LineCounts, told: str) -> Dialect:
    name = file.path.name
    if counts.lone_returns:
        told += (" " if told else "") + (
            f"{plural(counts.lone_returns, 'line')} of {name} end in a carriage return alone (from line "
            f"{counts.first_return}), which is read as the end of a row."
        )
    if not counts.is_valid or counts.lone_returns:
        return Dialect(reading, 0, returns=counts.lone_returns > 0, told=told)
    if not counts.is_even:
        how = HowToCount(marks=reading in ("rfc4180", "backslash"), backslash=reading == "backslash", widths=True)
        counts = count_lines(file.path, file.separator, how)
    return Dialect(reading, counts.lines, counts.blank, counts.n_short, tuple(counts.short), told=told)
