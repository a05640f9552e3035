"""Blocks of whole lines of JSON, in which strings are told from everything else without parsing.

Marks that no backslash takes the meaning from are the ends of strings, for a whole block of lines at once.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from msr_adapter.text_tables.marks import Bytes, Places, is_escaped
from msr_adapter.text_tables.opening import BOM, open_plain

_CHUNK = 2**17
_QUOTE = 34
_CONSTANT = re.compile(rb"-?Infinity|NaN")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")


@dataclass(frozen=True)
class JsonBlock:
    """Whole lines of JSON."""

    data: bytes
    line: int
    """The number of the first."""

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
        return np.flatnonzero(self.array == ord("\n"))

    def constants(self) -> list[tuple[int, int]]:
        """Return begin and end of every constant that JSON has not, outside of strings."""
        array = self.array  # a look at two letters is faster than a search for the words
        if not (_both(array, b"N", b"N", 2) or _both(array, b"I", b"n", 1)):
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

    def line_of(self, place: int) -> int:
        """Return the number of the line of a byte."""
        return self.line + self.data.count(b"\n", 0, place)


def blocks(path: Path, size: int = _CHUNK) -> Iterator[JsonBlock]:
    """Yield the file in blocks of whole lines, without its byte order mark."""
    line = 1
    with open_plain(path) as file:
        held, wanted = file.read(3).removeprefix(BOM), size
        while part := file.read(wanted):
            held += part
            cut = held.rfind(b"\n") + 1
            wanted = size if cut else max(size, len(held))
            if cut:
                block = JsonBlock(held[:cut], line)
                yield block
                line += len(block.newlines)
                held = held[cut:]
    if held:
        yield JsonBlock(held, line)


def _both(array: Bytes, one: bytes, other: bytes, apart: int) -> bool:
    return bool(((array[:-apart] == one[0]) & (array[apart:] == other[0])).any())
