"""Bad values of a table, each reported with its file, line, column and what would be allowed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import polars as pl

from msr_adapter.data.audit import LISTED, listed
from msr_adapter.data.readers.explain import Place, places
from msr_adapter.errors import Problem, UserError

_SHOWN = 60


@dataclass(frozen=True)
class Rule:
    """What a column must satisfy; ``bad`` is true on the rows that do not."""

    column: str
    values: pl.Series
    bad: pl.Series
    allowed: str


def not_empty(column: str, values: pl.Series) -> Rule:
    """Return the rule that an id is there."""
    return Rule(column, values, values.is_null() | (values == "").fill_null(True), "an id")


def check_rows(path: Path, rules: Sequence[Rule], width: int | None, has_header: bool = True) -> list[int]:
    """Return the numbers of blank rows (no data, not a fault); `UserError` lists every other row that breaks a rule.

    ``width`` is the number of columns of the file, None where rows have no columns. O(1) when nothing is bad.
    """
    bad: dict[int, list[Rule]] = {}
    for rule in rules:
        for row in rule.bad.arg_true().to_list():
            bad.setdefault(row, []).append(rule)
    blank: list[int] = []
    problems: list[Problem] = []
    total = 0
    for row, place in _placed(path, bad, has_header):
        if place.blank:
            blank.append(row)
            continue
        found = _problems(path, row, place, bad[row], width)
        total += len(found)
        problems += found if len(problems) < LISTED else []
    if problems:
        raise UserError(listed(problems, total, str(path)))
    return blank


def _placed(path: Path, wanted: dict[int, list[Rule]], has_header: bool) -> Iterator[tuple[int, Place]]:
    left = len(wanted)
    if not left:
        return
    for row, place in zip(count(), places(path, has_header), strict=False):
        if row in wanted:
            yield row, place
            left -= 1
        if not left:
            return


def _problems(path: Path, row: int, place: Place, rules: list[Rule], width: int | None) -> list[Problem]:
    where = f"{path}:{place.line}"
    if width is not None and place.fields is not None and place.fields < width:
        return [Problem(where, "", f"{place.fields} columns", f"{width} expected", "Complete or remove the row")]
    return [Problem(where, rule.column, _shown(rule.values[row]), rule.allowed, "Correct the row") for rule in rules]


def _shown(value: object) -> str:
    if value is None or value == "":
        return "empty"
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
