"""One pass over the bytes of a delimited file, at the speed of memory: does RFC 4180 explain its quotation marks?

In RFC 4180 whether a place is inside a quoted field is the parity of the marks before it, since an escaped mark is two.
So every mark with an even number (from 0) must open a field or be the second of a pair, every other one must close a
field or be the first of a pair. That is exact, and needs no walk from byte to byte.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from msr_adapter.text_tables.marks import Bytes, Mask, Places, is_escaped
from msr_adapter.text_tables.opening import BOM, open_plain

LONGEST_RECORD = 128 * 2**20
"""Bytes of a record: where a mark swallows more than this, it is one that nothing closes."""
SHOWN = 20
"""Places that are remembered one by one."""

_CHUNK = 2**17
_QUOTE, _LF, _CR, _BACKSLASH = 34, 10, 13, 92


@dataclass
class LineCounts:
    """What a file holds, read as RFC 4180 (or with backslash escapes); lines are counted from 1."""

    columns: int = 0
    """Fields of the first line that is not blank, its quotation marks respected."""
    lines: int = 0
    """Line ends outside of quoted fields, LF or CR LF, and a last line without one: records and blank lines."""
    separators: int = 0
    """Separators outside of quoted fields."""
    marks: int = 0
    escaped: int = 0
    """Marks behind a backslash."""
    lone_returns: int = 0
    """CR that no LF follows, outside of quoted fields."""
    first_return: int = 0
    """The line of the first of them."""
    inside: int = 0
    """Line ends inside of quoted fields."""
    fault: int = 0
    """The line of the first mark that is neither the begin nor the end of a field; 0 = there is none."""
    opened: int = 0
    """The line where the last quoted field begins, if the file ends inside of it; 0 = it does not."""
    swallowed: int = 0
    """Records over several lines (nearly) all of which have as many fields as the first: rows that a mark joined?"""
    swallowed_at: list[tuple[int, int]] = field(default_factory=list)
    """First and last line of the first of them."""
    physical: int = 0
    """All line ends."""
    blank: int = 0
    """Lines with nothing on them; counted with ``widths`` only, as the next two."""
    n_short: int = 0
    """Records with fewer fields than the first line."""
    short: list[int] = field(default_factory=list)
    """The lines of the first of them."""

    @property
    def is_valid(self) -> bool:
        """Whether every mark has its place."""
        return not self.fault and not self.opened

    @property
    def is_even(self) -> bool:
        """Whether all records may have as many fields as the first: none is blank, and what is too long fails."""
        return self.separators == self.lines * (self.columns - 1)


@dataclass(frozen=True)
class HowToCount:
    """What a pass over the bytes takes for what."""

    marks: bool = True
    """Whether a quotation mark is more than a character like any other."""
    backslash: bool = False
    """Whether a mark behind an odd number of backslashes is one."""
    widths: bool = False
    """Whether records with too few fields are looked for."""


def count_lines(path: Path, separator: str, how: HowToCount = HowToCount()) -> LineCounts:
    """Return what a delimited file holds.

    About 0.4 s a GB where there are no marks, 5 s a GB where every field has them.
    """
    counts, walk = LineCounts(), _Walk(ord(separator), how)
    with open_plain(path) as file:
        begin = file.read(3)
        held, size = (b"" if begin == BOM else begin), _CHUNK
        while True:
            part = file.read(size)
            held += part
            if not held:
                break
            done = walk.add(held, counts, is_last=not part)
            held, size = held[done:], _CHUNK
            if not part:
                break
            if not done:
                size = len(held)  # twice as much each time, so that a long record is not read again and again
    return counts


@dataclass
class _Walk:
    separator: int
    how: HowToCount

    def add(self, held: bytes, counts: LineCounts, *, is_last: bool) -> int:
        """Count the whole records that ``held`` begins with; return how many bytes they are."""
        end = len(held) if is_last else held.rfind(b"\n") + 1
        if not end:
            return 0
        data = np.frombuffer(held, dtype=np.uint8, count=end)
        if not self.how.marks or held.find(b'"', 0, end) < 0:
            counts.columns = counts.columns or self._width(data)
            ends = int(np.count_nonzero(data == _LF))
            counts.separators += int(np.count_nonzero(data == self.separator))
            if held.find(b"\r", 0, end) >= 0:
                _add_returns(data, None, counts)
            if self.how.widths:
                self._add_short(data, np.flatnonzero(data == _LF), np.flatnonzero(data == self.separator), counts)
            unfinished = int(data[-1] != _LF)
            counts.lines += ends + unfinished
            counts.physical += ends + unfinished
            return end
        if not self.how.widths and self._add_all_quoted(data, counts):
            return end
        return self._add_quoted(data, counts, is_last=is_last)

    def _add_all_quoted(self, data: Bytes, counts: LineCounts) -> bool:
        """Count a block whose every field is in marks and holds neither mark nor line end; return whether it is one.

        Without looking for the places of its marks, which takes longer than all the rest.
        """
        is_mark, is_end, is_separator = data == _QUOTE, data == _LF, data == self.separator
        is_bound = is_end | is_separator
        if not (is_mark[0] and is_end[-1]) or not (is_mark[:-1] | ~is_bound[1:]).all():
            return False
        if not (is_mark[1:] | ~is_bound[:-1]).all() or (is_bound[:-2] & is_mark[1:-1] & is_bound[2:]).any():
            return False
        marks, ends, separators = (int(np.count_nonzero(one)) for one in (is_mark, is_end, is_separator))
        # Each field begins and ends with a mark, and none is a single one: so many marks are two for each.
        if marks != 2 * (ends + separators) or (data == _BACKSLASH).any() or (is_bound[1] and is_mark[0]):
            return False
        counts.columns = counts.columns or self._width(data)
        counts.marks += marks
        counts.separators += separators
        counts.lines += ends
        counts.physical += ends
        return True

    def _add_quoted(self, data: Bytes, counts: LineCounts, *, is_last: bool) -> int:
        places = self._events(data)
        kinds = data[places]
        is_end = kinds == _LF
        is_mark = kinds == _QUOTE
        inside = (np.cumsum(is_mark, dtype=np.uint8) & 1).view(np.bool_)  # a sum that overflows keeps its parity
        if len(inside) and inside[-1]:
            outside = np.flatnonzero(is_end & ~inside)
            if not is_last and len(data) < LONGEST_RECORD:
                if not len(outside):
                    return 0
                kept = int(outside[-1]) + 1
                places, kinds, is_end, inside = places[:kept], kinds[:kept], is_end[:kept], inside[:kept]
                data = data[: int(places[-1]) + 1]
            else:
                counts.opened = _line(data, int(places[kinds == _QUOTE][-1]), counts)
        counts.columns = counts.columns or self._width(data)
        if (data == _BACKSLASH).any():
            counts.escaped += int(np.count_nonzero((data[1:] == _QUOTE) & (data[:-1] == _BACKSLASH)))
        marks = places[kinds == _QUOTE]
        counts.marks += len(marks)
        if not counts.fault and (wrong := self._first_wrong(data, marks)) is not None:
            counts.fault = _line(data, wrong, counts)
        counts.separators += int(np.count_nonzero((kinds == self.separator) & ~inside))
        ended, ends = int(np.count_nonzero(is_end & ~inside)), int(np.count_nonzero(is_end))
        if ended != ends:
            self._add_swallowed(kinds, inside, counts)
        if (data == _CR).any():
            _add_returns(data, marks, counts)
        if self.how.widths:
            is_separator = kinds == self.separator
            self._add_short(data, places[is_end & ~inside], places[is_separator & ~inside], counts)
        unfinished = int(data[-1] != _LF)
        counts.inside += ends - ended
        counts.lines += ended + unfinished
        counts.physical += ends + unfinished
        return len(data)

    def _events(self, data: Bytes) -> Places:
        """Return where the marks that count, the line ends and the separators stand."""
        is_mark = data == _QUOTE
        if self.how.backslash:
            found = np.flatnonzero(is_mark)
            is_mark[found[is_escaped(data, found)]] = False
        return np.flatnonzero(is_mark | (data == _LF) | (data == self.separator))

    def _first_wrong(self, data: Bytes, marks: Places) -> int | None:
        """Return where the first mark stands that neither opens nor closes a field, nor is half of a pair."""
        allowed = np.zeros(256, dtype=np.bool_)
        allowed[[self.separator, _LF, _CR, _QUOTE]] = True
        opens, closes = marks[0::2], marks[1::2]
        early = opens[~allowed[data[opens - 1]] & (opens > 0)]
        late = closes[~allowed[data[np.minimum(closes + 1, len(data) - 1)]]]
        found = [int(one[0]) for one in (early, late) if len(one)]
        return min(found, default=None)

    def _add_swallowed(self, kinds: Bytes, inside: Mask, counts: LineCounts) -> None:
        """Count the records over several lines that would be as many rows without their quotation marks."""
        newlines = np.flatnonzero(kinds == _LF)
        outside = ~inside[newlines]
        if kinds[-1] != _LF:
            newlines, outside = np.append(newlines, len(kinds)), np.append(outside, True)
        outside[-1] = True  # also where a mark is never closed
        until = np.cumsum(kinds == self.separator)[newlines - 1]
        odd_width = np.diff(until, prepend=0) != counts.columns - 1
        last = np.flatnonzero(outside)
        begin = np.concatenate([[0], last[:-1] + 1])
        rows = (np.add.reduceat(odd_width.astype(np.int64), begin) * 10 <= last - begin + 1) & (last > begin)
        counts.swallowed += int(rows.sum())
        first = counts.physical + 1
        for place in np.flatnonzero(rows)[: SHOWN - len(counts.swallowed_at)]:
            counts.swallowed_at.append((first + int(begin[place]), first + int(last[place])))

    def _add_short(self, data: Bytes, ends: Places, separators: Places, counts: LineCounts) -> None:
        """Count blank lines, and records with too few fields."""
        if data[-1] != _LF:
            ends = np.append(ends, len(data))
        begins = np.concatenate([[0], ends[:-1] + 1])
        widths = np.diff(np.searchsorted(separators, ends), prepend=0) + 1
        lengths = ends - begins
        blank = (lengths == 0) | ((lengths == 1) & (data[np.minimum(begins, len(data) - 1)] == _CR))
        counts.blank += int(blank.sum())
        short = begins[(widths < counts.columns) & ~blank]
        counts.n_short += len(short)
        counts.short += [_line(data, int(place), counts) for place in short[: SHOWN - len(counts.short)]]

    def _width(self, data: Bytes) -> int:
        """Return the number of fields of the first record that is not blank; 0 where there is none."""
        filled = (data != _LF) & (data != _CR)
        if not filled.any():
            return 0
        data = data[np.argmax(filled) :]
        marks = data == _QUOTE if self.how.marks else np.zeros(len(data), dtype=np.bool_)
        outside = np.cumsum(marks) % 2 == 0
        is_end = ((data == _LF) | (data == _CR)) & outside
        end = int(np.argmax(is_end)) if is_end.any() else len(data)
        return int(np.count_nonzero((data[:end] == self.separator) & outside[:end])) + 1


def _line(data: Bytes, place: int, counts: LineCounts) -> int:
    return counts.physical + 1 + int(np.count_nonzero(data[:place] == _LF))


def _add_returns(data: Bytes, marks: Places | None, counts: LineCounts) -> None:
    # Blocks end behind a line end, so that only a CR at the end of the file has nothing behind it.
    lone = np.flatnonzero(data == _CR)
    lone = lone[data[np.minimum(lone + 1, len(data) - 1)] != _LF]
    if marks is not None:
        lone = lone[np.searchsorted(marks, lone) % 2 == 0]
    if len(lone) and not counts.lone_returns:
        counts.first_return = _line(data, int(lone[0]), counts)
    counts.lone_returns += len(lone)
