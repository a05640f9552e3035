"""A closer look at the lines of a delimited file whose quotation marks RFC 4180 does not explain."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from msr_adapter.text_tables.line_counts import SHOWN
from msr_adapter.text_tables.opening import BOM, open_plain

_CHUNK = 2**22
_SAMPLE = 400
"""Lines that show how the fields of a file look."""
_LIKE_ROWS = 0.9
"""The share of the lines in doubt that must look like rows to be some."""
_FEW_SHAPES = 3


@dataclass
class MarkLines:
    """The lines of a file, each by itself: what they are without quotation marks, and what the marks in them are."""

    uneven: list[int] = field(default_factory=list)
    """The first lines with another number of separators than the first one; blank ones are none."""
    quoting: int = 0
    """Lines that hold a field in quotation marks: they stand at both of its ends, and only pairs are between them."""
    within: int = 0
    """Lines with a mark within a field that does not begin with one (`13" monitor`)."""
    loose: list[int] = field(default_factory=list)
    """The first lines with a field that begins with a mark and does not end with its partner (`"Best" lamp`)."""
    first_within: int = 0
    first_mark: int = 0


def look_at_marks(path: Path, separator: str, columns: int) -> MarkLines:
    """Return what the marks of a file are, line by line.

    3 microseconds for a line with a mark that RFC 4180 does not explain, a few nanoseconds for any other.
    """
    found = MarkLines()
    kinds = _Kinds(separator)
    first = 1
    for block in _whole_lines(path):
        data = np.frombuffer(block, dtype=np.uint8)
        newlines = np.flatnonzero(data == 10)
        if not block.endswith(b"\n"):
            newlines = np.append(newlines, len(data))
        begins = np.concatenate([[0], newlines[:-1] + 1])
        widths = np.diff(np.searchsorted(np.flatnonzero(data == ord(separator)), newlines), prepend=0) + 1
        lengths = newlines - begins
        blank = (lengths == 0) | ((lengths == 1) & (data[np.minimum(begins, len(data) - 1)] == 13))
        odd = np.flatnonzero((widths != columns) & ~blank) if len(found.uneven) < SHOWN else ()
        filled = (line for line in odd if block[begins[line] : newlines[line]].strip())
        found.uneven += [first + int(line) for line in islice(filled, SHOWN - len(found.uneven))]
        marks = np.flatnonzero(data == 34)
        for line in np.unique(np.searchsorted(newlines, marks)):
            kinds.add(block[begins[line] : newlines[line]].rstrip(b"\r"), first + int(line), found)
        first += len(newlines)
    return found


class _Kinds:
    """The patterns of one separator."""

    def __init__(self, separator: str) -> None:
        cut = re.escape(separator).encode()
        whole, plain = rb'"(?:[^"]|"")*"', rb'[^"' + cut + rb"][^" + cut + rb"]*"
        self._quoting = re.compile(rb"(?:^|" + cut + rb")" + whole + rb"(?=" + cut + rb"|$)", re.DOTALL)
        one = rb"(?:" + whole + rb"|" + plain + rb"|)"
        self._fields = re.compile(one + rb"(?:" + cut + one + rb")*", re.DOTALL)

    def add(self, line: bytes, number: int, found: MarkLines) -> None:
        found.first_mark = found.first_mark or number
        quoting = self._quoting.search(line) is not None
        found.quoting += quoting
        if self._fields.fullmatch(line) is None:
            if len(found.loose) < SHOWN:
                found.loose.append(number)
        elif not quoting or b'"' in self._quoting.sub(b"", line):
            found.within += 1
            found.first_within = found.first_within or number


def look_like_rows(path: Path, separator: str, columns: int, spans: Sequence[tuple[int, int]]) -> bool:
    """Return whether the lines within records over several lines look like rows of the file, joined by a stray mark.

    Where the fields of a column are single words, of the shape `a0` or `0-0-0`, so are those of a row. Where no column
    is so regular, lines with as many fields as the others look like rows.
    """
    wanted = {line for begin, end in spans for line in range(begin + 1, min(end, begin + _SAMPLE) + 1)}
    inside = {line for begin, end in spans for line in range(begin, end + 1)} if len(wanted) < 10**6 else wanted
    usual: list[set[tuple[str, bool]]] = [set() for _ in range(columns)]
    doubtful: list[list[tuple[str, bool]]] = []
    seen = 0
    last = max(wanted, default=0)
    for number, line in enumerate(_lines(path), 1):
        fields = line.split(separator)
        if len(fields) != columns:
            continue
        if number in wanted:
            doubtful.append([_shape(text) for text in fields])
        elif number > 1 and number not in inside and seen < _SAMPLE:
            seen += 1
            for shapes, text in zip(usual, fields, strict=True):
                shapes.add(_shape(text))
        if number > last and seen >= _SAMPLE:
            break
    # Prose has no shape, and ids of many shapes still are one word each, as the lines of a paragraph are not.
    words = [place for place, shapes in enumerate(usual) if shapes and all(is_word for _, is_word in shapes)]
    few = [place for place in words if len(usual[place]) <= _FEW_SHAPES < seen]
    alike = [all(row[n] in usual[n] for n in few) and all(row[n][1] for n in words) for row in doubtful]
    return not words or sum(alike) >= _LIKE_ROWS * len(alike)


def open_words(path: Path, separator: str, columns: int, lines: Sequence[int]) -> bool:
    """Return whether a field of ``lines`` that opens a mark without closing it is one word, as all of its column are.

    A text may begin with a quotation mark; an id does not.
    """
    wanted, doubtful = set(lines), set[int]()
    are_words = [True] * columns
    for number, line in enumerate(islice(_lines(path), max(_SAMPLE, *lines)), 1):
        fields = line.split(separator)
        if number in wanted:
            doubtful |= {n for n, one in enumerate(fields) if one.startswith('"') and one.count('"') == 1}
        if number <= _SAMPLE:
            are_words = [so_far and _shape(one)[1] for so_far, one in zip(are_words, fields, strict=False)]
    return any(are_words[n] for n in doubtful if n < len(are_words))


def text_of_line(path: Path, number: int) -> str:
    """Return what stands in a line, short enough for a message."""
    text = next(islice(_lines(path), number - 1, None), "")
    return text if len(text) <= 60 else f"{text[:60]}…"


def _lines(path: Path) -> Iterator[str]:
    with open_plain(path) as file:
        for number, line in enumerate(file):
            yield (line.removeprefix(BOM) if number == 0 else line).rstrip(b"\r\n").decode("utf-8", "replace")


def _shape(text: str) -> tuple[str, bool]:
    """Return a text with words as `a` and numbers as `0`, and whether it is one word."""
    text = text.strip().strip('"')
    return re.sub(r"\d+", "0", re.sub(r"[^\W\d_]+", "a", text)), not re.search(r"\s", text)


def _whole_lines(path: Path) -> Iterator[bytes]:
    with open_plain(path) as file:
        held, size = file.read(3).removeprefix(BOM), _CHUNK
        while part := file.read(size):
            held += part
            cut = held.rfind(b"\n") + 1
            size = _CHUNK if cut else len(held)
            if cut:
                yield held[:cut]
                held = held[cut:]
    if held:
        yield held
