"""Blocks of whole lines of JSON, in which strings are told from everything else without parsing.

Marks that no backslash takes the meaning from are the ends of strings, for a whole block of lines at once.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from msr_adapter.text_tables.marks import Bytes, Mask, Places, is_escaped
from msr_adapter.text_tables.opening import BOM, open_plain

_CHUNK = 2**18
_QUOTE, _COLON, _NEWLINE, _BLANK = b'":\n '
_GAPS = tuple(b'"' + one + more for one in (b" ", b"\t") for more in (b" ", b"\t", b":"))
_PADDING = 16
"""A mark and then a blank, behind which a colon may come."""
_CONSTANT = re.compile(rb"-?Infinity|NaN")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")


class Scratch:
    """Memory for what is computed of one block after another: making it anew takes longer than filling it."""

    def __init__(self) -> None:
        """Begin with none."""
        self._masks: list[Mask] = []
        self._padded: Bytes = np.zeros(0, dtype=np.uint8)

    def masks(self, size: int) -> tuple[Mask, Mask]:
        """Return two masks that hold anything, until they are asked for again."""
        if not self._masks or len(self._masks[0]) < size:
            self._masks = [np.empty(size, dtype=np.bool_) for _ in range(2)]
        one, other = self._masks
        return one[:size], other[:size]

    def padded(self, array: Bytes, before: int) -> Bytes:
        """Return a copy of the bytes with up to 16 zeros before them, until it is asked for again."""
        if len(self._padded) < len(array) + _PADDING:
            self._padded = np.zeros(len(array) + _PADDING, dtype=np.uint8)
        self._padded[_PADDING : _PADDING + len(array)] = array
        return self._padded[_PADDING - before : _PADDING + len(array)]


@dataclass(frozen=True)
class JsonBlock:
    """Whole lines of JSON."""

    data: bytes
    line: int
    """The number of the first."""
    scratch: Scratch = field(default_factory=Scratch, repr=False, compare=False)
    """Shared by the blocks of a file, which are looked at one at a time."""

    def marks(self) -> Places:
        """Return the ends of all strings."""
        found = np.flatnonzero(self.array == _QUOTE)
        return found[~is_escaped(self.array, found)] if b"\\" in self.data else found

    @cached_property
    def array(self) -> Bytes:
        """The bytes as numbers."""
        return np.frombuffer(self.data, dtype=np.uint8)

    @cached_property
    def newlines(self) -> Places:
        """Where the lines end."""
        is_end, _ = self.scratch.masks(len(self.array))
        return np.flatnonzero(np.equal(self.array, _NEWLINE, out=is_end))

    def padded(self, before: int) -> Bytes:
        """Return the bytes with up to 16 zeros before them; valid until it is asked for again."""
        return self.scratch.padded(self.array, before)

    def keys(self) -> Places | None:
        """Return the closing marks of all keys, if each has its colon right behind it; None = look closely.

        No string holds a mark and a colon behind it, unless a backslash takes the meaning from the mark.
        """
        array = self.array
        is_mark, is_next = self.scratch.masks(len(array))
        is_mark, is_next = is_mark[:-1], is_next[:-1]
        np.equal(array[:-1], _QUOTE, out=is_mark)
        np.less_equal(array[1:], _BLANK, out=is_next)
        if np.logical_and(is_next, is_mark, out=is_next).any() and any(gap in self.data for gap in _GAPS):
            return None
        np.equal(array[1:], _COLON, out=is_next)
        found = np.flatnonzero(np.logical_and(is_next, is_mark, out=is_next))
        return found[~is_escaped(array, found)] if b"\\" in self.data else found

    def any_escaped(self, marks: Places) -> bool:
        """Return whether some mark is within a string: what ends with `"a"` may be the key `b\\"a`."""
        return b"\\" in self.data and bool(is_escaped(self.array, marks).any())

    def constants(self) -> list[tuple[int, int]]:
        """Return begin and end of every constant that JSON has not, outside of strings."""
        if not (self._has(b"N", b"N", 2) or self._has(b"I", b"n", 1)):
            return []
        spans = [found.span() for found in _CONSTANT.finditer(self.data)]
        outside = np.searchsorted(self.marks(), [begin for begin, _ in spans]) % 2 == 0
        return [span for span, is_outside in zip(spans, outside, strict=True) if is_outside]

    def surrogates(self) -> list[int]:
        """Return where the escapes of halves of characters begin that have no partner beside them."""
        if b"\\" not in self.data or (b"\\ud" not in self.data and b"\\uD" not in self.data):
            return []
        lone, high = [], -1
        for found in _SURROGATE.finditer(self.data):
            place = found.start()
            before = self.data[:place]
            if (len(before) - len(before.rstrip(b"\\"))) % 2:
                continue  # the backslash itself is escaped: these are six letters
            if self.data[place + 3] in b"89abAB":
                lone += [high] if high >= 0 else []
                high = place
            elif high == place - 6:
                high = -1
            else:
                lone += [high, place] if high >= 0 else [place]
                high = -1
        return [*lone, high] if high >= 0 else lone

    def _has(self, one: bytes, other: bytes, apart: int) -> bool:
        """Return whether two letters stand so far apart; faster than a search for words."""
        if one not in self.data:
            return False
        array = self.array
        is_one, is_other = (mask[:-apart] for mask in self.scratch.masks(len(array)))
        np.equal(array[:-apart], one[0], out=is_one)
        np.equal(array[apart:], other[0], out=is_other)
        return bool(np.logical_and(is_one, is_other, out=is_one).any())

    def line_of(self, place: int) -> int:
        """Return the number of the line of a byte."""
        return self.line + self.data.count(b"\n", 0, place)


def blocks(path: Path, size: int | None = None) -> Iterator[JsonBlock]:
    """Yield the file in blocks of whole lines, without its byte order mark; each is done with before the next."""
    line, scratch, size = 1, Scratch(), size or _CHUNK
    with open_plain(path) as file:
        held, wanted = file.read(3).removeprefix(BOM), size
        while part := file.read(wanted):
            cut = part.rfind(b"\n") + 1
            if not cut:
                held += part
                wanted = max(size, len(held))
                continue
            block = JsonBlock(b"".join((held, memoryview(part)[:cut])), line, scratch)
            yield block
            line += len(block.newlines)
            held, wanted = part[cut:], size
    if held:
        yield JsonBlock(held, line, scratch)
