"""Quotation marks in the bytes of a block."""

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Places = NDArray[np.int64]
Mask = NDArray[np.bool_]

_BACKSLASH = 92


def is_escaped(array: Bytes, marks: Places) -> Mask:
    """Return which marks stand behind an odd number of backslashes."""
    behind, odd = marks.copy(), np.zeros(len(marks), dtype=np.bool_)
    live = np.ones(len(marks), dtype=np.bool_)
    while live.any():  # as often as the longest run of backslashes before a mark
        behind[live] -= 1
        live &= (behind >= 0) & (array[behind] == _BACKSLASH)
        odd ^= live
    return odd
