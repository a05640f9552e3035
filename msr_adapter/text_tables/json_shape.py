"""The keys of a line in their order, as those of most files are in every line: compared with a block's all at once."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from msr_adapter.text_tables.json_blocks import JsonBlock
from msr_adapter.text_tables.marks import Places

_READ = 16
"""Bytes compared at a time, from the closing mark of a key backwards: two words of 8."""


class LineShape:
    """Keys that are looked for in every line, each once and in this order."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        """Take the keys of one line as they are written, without their marks."""
        whole = [b'"' + key + b'"' for key in keys]
        self._width = len(keys)
        self._lengths = np.array([len(key) for key in whole], dtype=np.int64)
        # Step -> the keys that are longer than the steps before it, and what of them is compared: mask and value.
        self._steps = [
            _Step([place for place, key in enumerate(whole) if len(key) > done], whole, done)
            for done in range(0, max(map(len, whole), default=0), _READ)
        ]

    def fits(self, block: JsonBlock, ends: Places) -> bool:
        """Return whether the closing marks of keys at ``ends`` are those of these keys, in every line of the block."""
        newlines = block.newlines
        if not self._width or not len(newlines) or len(ends) != self._width * len(newlines):
            return False
        table = ends.reshape(-1, self._width)
        if (table[:, -1] > newlines).any() or (table[1:, 0] < newlines[:-1]).any():
            return False
        padded = block.padded(_READ)
        windows = np.ndarray(shape=(len(block.data) + 1,), dtype=f"V{_READ}", buffer=padded, strides=(1,))
        if not all(step.holds(windows, table) for step in self._steps):
            return False
        return not block.any_escaped((table - self._lengths + 1).ravel())


class _Step:
    """Sixteen bytes of some of the keys."""

    def __init__(self, places: list[int], keys: Sequence[bytes], done: int) -> None:
        self._places, self._done, self._all = places, done, len(places) == len(keys)
        parts = [keys[place][: len(keys[place]) - done][-_READ:] for place in places]
        self._value = np.frombuffer(b"".join(part.rjust(_READ, b"\0") for part in parts), dtype=np.uint64)
        self._mask = np.frombuffer(
            b"".join((b"\xff" * len(part)).rjust(_READ, b"\0") for part in parts), dtype=np.uint64
        )
        self._lines = 0

    def holds(self, windows: NDArray[np.void], table: Places) -> bool:
        """Return whether the bytes before the marks are these."""
        if self._lines < len(table):  # repeated, since a comparison with one row at a time is slow
            self._lines = len(table)
            self._values, self._masks = np.tile(self._value, self._lines), np.tile(self._mask, self._lines)
        places = table if self._all else table[:, self._places]
        # A window ends at its mark: the padding before the data is as long as a window.
        found = windows[np.maximum(places.ravel() + 1 - self._done, 0)].view(np.uint64)
        found &= self._masks[: len(found)]
        return bool((found == self._values[: len(found)]).all())
