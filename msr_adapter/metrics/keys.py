"""Scores as 32-bit keys: counting below positives without sorting 64-bit numbers, and exact all the same.

A key is the score's place between the smallest and the largest, cut to one of 2**32 cells: a larger score never has a
smaller key. NumPy sorts keys in about 0.6 of the time of the scores. Cells are so narrow that a positive is nearly
always alone in its own; the few that are not are counted among the scores of their cells.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from msr_adapter.metrics.groups import Integers, Scores

_CELLS = 2.0**32 - 2.0**10
_SPANS = (1e-200, 1e200)
_ALONE = 0.9
_COARSE = 16


@dataclass(frozen=True)
class Keys:
    """Where the first cell begins, and how many there are per unit of score."""

    low: float
    per_unit: float

    def __call__(self, scores: Scores) -> npt.NDArray[np.uint32]:
        """Return the cells of ``scores``, in their order."""
        places = np.subtract(scores, self.low, dtype=np.float64)
        places *= self.per_unit
        return places.astype(np.uint32)


def make_keys(scores: Scores, positives: Scores) -> Keys | None:
    """Return keys for ``scores``, or None where they would not help.

    That is with infinite scores, and when many of the ascending ``positives`` share a cell: with ties, or with scores
    far from all others.
    """
    low, high = float(scores.min()), float(scores.max())
    if not _SPANS[0] < high - low < _SPANS[1]:
        return None
    keys = Keys(low, _CELLS / (high - low))
    cells = keys(positives)
    return keys if np.count_nonzero(cells[1:] != cells[:-1]) >= _ALONE * (len(cells) - 1) else None


def twice_below_by_keys(run: Callable[..., Iterable[Any]], blocks: list[Scores], positives: Scores, keys: Keys) -> int:
    """Return, summed over ascending ``positives``, 2 x scores below + scores equal, over all ``blocks``.

    The positives are among the scores. ``run`` maps a function over the blocks, in threads or not.
    """
    cells, below, inside = keys(positives), 0, np.zeros(len(positives), np.int64)
    for lower, tied, counts in run(lambda block: _count(keys(block), cells), blocks):
        below += lower
        inside[tied] += counts
    crowded = np.flatnonzero(inside > 1)  # the others are alone with themselves
    if not len(crowded):
        return 2 * below + len(positives)
    wanted = np.unique(cells[crowded])
    found = np.sort(np.concatenate(list(run(lambda block: _in_cells(block, keys, wanted), blocks))))
    first = np.searchsorted(keys(found), cells[crowded])  # keys do not fall along sorted scores
    left = np.searchsorted(found, positives[crowded], side="left")
    right = np.searchsorted(found, positives[crowded], side="right")
    return 2 * below + len(positives) - len(crowded) + int((left - first).sum() + (right - first).sum())


def _count(block: npt.NDArray[np.uint32], cells: npt.NDArray[np.uint32]) -> tuple[int, Integers, Integers]:
    """Return the keys below all ``cells`` in sum, the cells that hold a key of the block, and how many they hold."""
    block.sort()
    below = np.searchsorted(block, cells, side="left")
    tied = np.flatnonzero(block.take(below, mode="clip") == cells)
    return int(below.sum()), tied, np.searchsorted(block, cells[tied], side="right") - below[tied]


def _in_cells(block: Scores, keys: Keys, wanted: npt.NDArray[np.uint32]) -> Scores:
    """Return the scores of the block whose cell is ``wanted`` (ascending)."""
    near = np.zeros(2 ** (32 - _COARSE), bool)
    near[wanted >> _COARSE] = True
    cells = keys(block)
    rows = np.flatnonzero(near[cells >> _COARSE])
    cells = cells[rows]
    return np.asarray(block[rows[wanted.take(np.searchsorted(wanted, cells), mode="clip") == cells]])
