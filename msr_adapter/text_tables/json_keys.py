"""The keys of all objects of a block of JSON lines: found in their bytes, exactly, without parsing a line."""

import json
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from msr_adapter.text_tables.json_blocks import JsonBlock
from msr_adapter.text_tables.json_shape import LineShape
from msr_adapter.text_tables.marks import Bytes, Mask, Places

Words = NDArray[np.uint64]

_COLON = 58
_BLANKS = (32, 9)
_WORD = 8
_MOST = 64
"""Keys that are looked for one by one; a file with more is always looked at closely."""


@dataclass
class KeyPlaces:
    """Which keys the objects of a file have, in the order in which they first appear."""

    top: dict[str, int] = field(default_factory=dict)
    """Key of an object that is a line -> the line where it first stands."""
    repeated: tuple[str, int] | None = None
    """The first key that stands twice in one object that is a line, and the line."""
    _known: dict[bytes, bool] = field(default_factory=dict)
    """Key as written -> whether it stands at the top of some line."""
    _shape: LineShape = field(default_factory=lambda: LineShape(()))
    """The keys of the last line that was looked at closely."""

    def add(self, block: JsonBlock) -> None:
        """Look at the next block; nothing comes of one that is no JSON lines, which whoever parses it will say."""
        ends = block.keys() if 0 < len(self._known) <= _MOST and all(self._known.values()) else None
        if ends is None or not (self._shape.fits(block, ends) or self._only_known(block, ends)):
            self._look_closely(block)

    def _only_known(self, block: JsonBlock, ends: Places) -> bool:
        """Return whether all keys of the block are known ones that stand at the top, each once a line.

        Keys are compared as words of 8 bytes, from their closing mark backwards.
        """
        newlines, padded = block.newlines, block.padded(_WORD)
        words: Words = np.ndarray(shape=(len(block.data) + 1,), dtype="<u8", buffer=padded, strides=(1,))
        rest, last = ends, words[ends + 1]
        for key in self._known:
            whole = b'"' + key + b'"'
            same = _ends_with(last, whole[-_WORD:])
            if not same.any():
                continue
            places = rest[same]
            for begin in range(_WORD, len(whole), _WORD):
                part = whole[: len(whole) - begin][-_WORD:]
                equal = _ends_with(words[np.maximum(places + 1 - begin, 0)], part)
                if not equal.all():
                    same[np.flatnonzero(same)[~equal]] = False
                    places = rest[same]
            if not _once_a_line(places, newlines) or block.any_escaped(places - len(whole) + 1):
                return False
            rest, last = rest[~same], last[~same]
            if not len(rest):
                return True
        return not len(rest)

    def _look_closely(self, block: JsonBlock) -> None:
        array, marks, newlines = block.array, block.marks(), block.newlines
        if len(marks) % 2 or (np.searchsorted(marks, newlines) % 2).any():
            return
        after = np.append(array, np.zeros(8, dtype=np.uint8))
        places = marks[1::2] + 1
        for _ in range(6):
            places = places + np.isin(after[np.minimum(places, len(array))], _BLANKS)
        is_key = after[np.minimum(places, len(array))] == _COLON
        begins, ends = marks[0::2][is_key] + 1, marks[1::2][is_key]
        at_the_top = _at_the_top(array, marks, begins)
        lines = np.searchsorted(newlines, begins)
        seen: dict[bytes, int] = {}
        data = block.data
        for begin, end, is_top, line in zip(
            begins.tolist(), ends.tolist(), at_the_top.tolist(), lines.tolist(), strict=True
        ):
            key = data[begin:end]
            if not is_top:
                self._known.setdefault(key, False)
                continue
            if not self._known.get(key):
                self._known[key] = True
                self.top.setdefault(_decoded(key), block.line + line)
            if seen.get(key) == line and self.repeated is None:
                self.repeated = (_decoded(key), block.line + line)
            seen[key] = line
        self._take_shape(block, begins, ends)

    def _take_shape(self, block: JsonBlock, begins: Places, ends: Places) -> None:
        """Expect the next lines to be as the last of the block."""
        first = int(np.searchsorted(begins, block.newlines[-2])) if len(block.newlines) > 1 else 0
        keys = [block.data[begin:end] for begin, end in zip(begins[first:], ends[first:], strict=True)]
        if len(keys) == len(set(keys)) <= _MOST:
            self._shape = LineShape(keys)


def _ends_with(words: Words, text: bytes) -> Mask:
    """Return which words end with a text of at most 8 bytes."""
    shift = np.uint64(8 * (_WORD - len(text)))
    result: Mask = (words >> shift) == np.uint64(int.from_bytes(text, "little"))
    return result


def _once_a_line(places: Places, newlines: Places) -> bool:
    """Return whether no line holds two of the places."""
    if len(places) == len(newlines) and (places < newlines).all() and (places[1:] > newlines[:-1]).all():
        return True
    return not (np.diff(np.searchsorted(newlines, places)) == 0).any()


def _at_the_top(array: Bytes, marks: Places, begins: Places) -> Mask:
    """Return which keys are those of an object that is a line, not of one within it."""
    up = (array == ord("{")) | (array == ord("["))
    brackets = np.flatnonzero(up | (array == ord("}")) | (array == ord("]")))
    brackets = brackets[np.searchsorted(marks, brackets) % 2 == 0]
    depth = np.cumsum(np.where(up[brackets], 1, -1))
    at = np.searchsorted(brackets, begins)
    result: Mask = np.append(depth, 0)[at - 1] == 1
    return result


def _decoded(key: bytes) -> str:
    try:
        return str(json.loads(b'"' + key + b'"'))
    except ValueError:
        return key.decode("utf-8", "replace")
