"""What a reader took for what: the columns of each file, its rows, its first and last time, and what was not used.

`msr check`, the log and `audit.json` say the same of it.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from msr_adapter.errors import plural

POSITIONS = "the places in the lists: only an order"
"""How time is told where each user has a list."""

_SHOWN = 8
"""Names of columns that are said of a kind; the others are counted."""
_IDS = {"user": "users", "item": "items", "timestamp": "time"}
"""Fields -> what people call them, where that is another word."""


@dataclass(frozen=True)
class Recognition:
    """What one file was taken for."""

    file: str
    """Its name."""
    columns: Mapping[str, str]
    """Field (user, item, timestamp, title, ...) -> column."""
    rows: int
    """That were read, before any filter."""
    times: str = ""
    """How times are written, in words; empty = it has none."""
    first: str | None = None
    """First and last day of the times; None where they are an order alone, or there are none."""
    last: str | None = None
    unused: tuple[str, ...] = ()
    """Columns that are not read."""
    passed_over: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Field -> columns with a usual name of it that are not read, for there is a better one."""

    def as_json(self) -> dict[str, Any]:
        """Return what `audit.json` and the manifest say."""
        over = {name: list(columns) for name, columns in self.passed_over.items()}
        return {**asdict(self), "columns": dict(self.columns), "unused": list(self.unused), "passed_over": over}


def recognition_lines(found: Iterable[Recognition]) -> Iterator[str]:
    """Yield a line for each file: what people read in `msr check` and in the log."""
    for one in found:
        taken = ", ".join(_taken(one, name) for name in one.columns)
        line = f"{one.file}: {plural(one.rows, 'row')}; {taken}"
        if "user" in one.columns and "timestamp" not in one.columns:
            line += f"; time = {one.times}" if one.times else "; no time: the order of the rows"
        elif one.first and one.last:
            line += f"; from {one.first} to {one.last}"
        yield f"{line}; not used: {_some(one.unused)}" if one.unused else line


def _taken(one: Recognition, name: str) -> str:
    column = one.columns[name]
    text = f"{_IDS.get(name, name)} = {column}" if name != column or name in _IDS else name
    more = [one.times] if name == "timestamp" and one.times else []
    more += [f"not {_some(one.passed_over[name])}"] if name in one.passed_over else []
    return f"{text} ({', '.join(more)})" if more else text


def _some(names: tuple[str, ...]) -> str:
    left = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {left:,} more" if left > 0 else "")
