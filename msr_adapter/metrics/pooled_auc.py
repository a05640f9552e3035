"""Pooled AUC: the probability that a random positive of any user scores above a random negative of any user.

Its cost is that of sorting all scores. `SortKeys` shorten it where they can: 32-bit integers in the scores' order,
which NumPy sorts in about 0.6 of the time of 64-bit numbers. The count stays exact.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from msr_adapter.arrays import Floats, Integers
from msr_adapter.metrics.groups import Groups, Scores
from msr_adapter.system import cpu_count

_CELLS = 2.0**32 - 2.0**10  # a little below 2**32: rounding up must not overflow the largest key
_SPANS = (1e-200, 1e200)  # outside, cells per unit of score would be infinite or zero
_ALONE = 0.9  # share of the positives that must have a cell of their own for keys to pay
_COARSE = 16  # bits dropped to look up in one small table which scores may be in a wanted cell
_SMALLEST_BLOCK, _LARGEST_BLOCK = 2**19, 2**21  # scores: a block is worth a thread, and its copy is all that is held


_A = TypeVar("_A")
_B = TypeVar("_B")


class Map(Protocol):
    """`map`, or that of a thread pool."""

    def __call__(self, function: Callable[[_A], _B], values: Iterable[_A], /) -> Iterable[_B]:
        """Return ``function`` of every value, in order."""
        ...


@dataclass(frozen=True)
class SortKeys:
    """Scores as 32-bit keys: a score's place between the smallest and the largest, cut to one of 2**32 cells.

    A larger score never has a smaller key. Cells are so narrow that a positive is nearly always alone in its own; the
    few that are not are counted among the scores of their cells, so that the count is exact.
    """

    low: float
    """Where the first cell begins."""
    per_unit: float
    """Cells per unit of score."""

    def __call__(self, scores: Scores) -> npt.NDArray[np.uint32]:
        """Return the cells of ``scores``, in their order."""
        places = np.subtract(scores, self.low, dtype=np.float64)
        places *= self.per_unit
        return places.astype(np.uint32)


def available_threads() -> int:
    """Return how many processors this process may use, at most four: sorting gains nothing beyond."""
    return min(4, cpu_count())


def pooled_auc(groups: Groups, threads: int | None = None) -> float:
    """Return the Mann-Whitney AUC over all pairs of a positive and a negative, ties counting half (mid-ranks).

    Exact: pairs are counted in integers. Blocks of scores are sorted and searched for the positives, on ``threads``
    threads, so that beside the positives only one block per thread is copied. O(n log n) time. NaN without negatives.
    """
    workers = threads or available_threads()
    positives = np.sort(groups.scores[groups.positives])
    count, total = len(positives), len(groups.scores)
    if total == count:
        return float("nan")
    size = min(max(-(-total // workers), _SMALLEST_BLOCK), _LARGEST_BLOCK)
    blocks = [groups.scores[start : start + size] for start in range(0, total, size)]
    keys = make_keys(groups.scores, positives)
    if min(workers, len(blocks)) == 1:
        twice = _twice(map, blocks, positives, keys)
    else:
        with ThreadPoolExecutor(workers) as pool:
            twice = _twice(pool.map, blocks, positives, keys)
    return _share(twice, count, total - count)


def pooled_auc_per_user(groups: Groups) -> Floats:
    """Return values of the users (users,) whose mean is the pooled AUC and whose variance / users is its variance.

    The AUC plus each user's influence on it: DeLong's structural components of the user's positives and negatives
    (DeLong et al., 1988), added up per user because one user's candidates are not independent (Obuchowski,
    "Nonparametric analysis of clustered ROC curve data", Biometrics 1997). O(n log n) time. Needs negatives.
    """
    is_negative = np.ones(len(groups.scores), bool)
    is_negative[groups.positives] = False
    positives, negatives = groups.scores[groups.positives], groups.scores[is_negative]
    won = _share_below(positives, negatives)
    lost = 1 - _share_below(negatives, positives)
    auc = float(won.mean())
    influence = np.zeros(len(groups.scores))
    influence[groups.positives] = (won - auc) / len(positives)
    influence[is_negative] = (lost - auc) / len(negatives)
    return np.asarray(auc + groups.users * np.add.reduceat(influence, groups.offsets[:-1]))


def _share_below(values: Scores, others: Scores) -> Floats:
    """Return for each value the share of ``others`` below it, ties counting half."""
    ordered = np.sort(others)
    twice = np.searchsorted(ordered, values, side="left") + np.searchsorted(ordered, values, side="right")
    return twice / (2 * len(ordered))


def _twice(run: Map, blocks: list[Scores], positives: Scores, keys: SortKeys | None) -> int:
    """Return, summed over positives, 2 x scores below + scores equal; ``run`` maps over the blocks."""
    if keys is None:
        return sum(run(lambda block: _twice_below(block, positives), blocks))
    return twice_below_by_keys(run, blocks, positives, keys)


def _twice_below(block: Scores, positives: Scores) -> int:
    """Return, summed over positives, 2 x scores below + scores equal; each search starts where the last one ended."""
    ordered = np.sort(block)
    below = np.searchsorted(ordered, positives, side="left")
    tied = ordered.take(below, mode="clip") == positives  # few, as a rule: only they need the second search
    equal = np.searchsorted(ordered, positives[tied], side="right") - below[tied]
    return int(2 * below.sum() + equal.sum())


def _share(twice: int, positives: int, negatives: int) -> float:
    # Among the positives themselves, "2 x below + equal" adds up to the square of their number, whatever their ties.
    return (twice - positives * positives) / (2 * positives * negatives)


def make_keys(scores: Scores, positives: Scores) -> SortKeys | None:
    """Return keys for ``scores``, or None where they would not help.

    That is with infinite scores, and when many of the ascending ``positives`` share a cell: with ties, or with scores
    far from all others.
    """
    low, high = float(scores.min()), float(scores.max())
    if not _SPANS[0] < high - low < _SPANS[1]:
        return None
    keys = SortKeys(low, _CELLS / (high - low))
    cells = keys(positives)
    return keys if np.count_nonzero(cells[1:] != cells[:-1]) >= _ALONE * (len(cells) - 1) else None


def twice_below_by_keys(run: Map, blocks: list[Scores], positives: Scores, keys: SortKeys) -> int:
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


def _in_cells(block: Scores, keys: SortKeys, wanted: npt.NDArray[np.uint32]) -> Scores:
    """Return the scores of the block whose cell is ``wanted`` (ascending)."""
    near = np.zeros(2 ** (32 - _COARSE), bool)
    near[wanted >> _COARSE] = True
    cells = keys(block)
    rows = np.flatnonzero(near[cells >> _COARSE])
    cells = cells[rows]
    return np.asarray(block[rows[wanted.take(np.searchsorted(wanted, cells), mode="clip") == cells]])
