"""Histories that lack some of what stands before their targets."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np

from msr_adapter.arrays import Mask, Rows, ranges
from msr_adapter.config.schema import SplitConfig
from msr_adapter.data.examples import Examples
from msr_adapter.data.interaction_log import Log
from msr_adapter.history_window import HistoryWindow

_ROWS = 2**22
"""Rows of histories that are looked at together."""

Keeps = Callable[[Rows, Rows], Mask]
"""(target row of each, row before it) -> whether it stays in the history."""


def histories_of(log: Log, examples: Examples, split: SplitConfig, step: int, keeps: Keeps) -> Examples:
    """Return the examples whose histories are cut from the rows that stay; those with too short a one are left out.

    ``step`` is that of `HistoryWindow`. Those of which all stays are as before. Memory: the rows of the histories that
    change, whole, and one block.
    """
    assert examples.first is not None, "examples know where their users begin"
    first, end = examples.first.copy(), examples.end.copy()
    lengths = end - first
    sequence = np.arange(len(log.user)) if examples.sequence is None else examples.sequence
    parts, places, same = [sequence], len(sequence), True
    for part in _parts(lengths):
        rows = examples.row(ranges(first[part], lengths[part]))
        owner = np.repeat(np.arange(part.start, part.stop), lengths[part])
        stays = keeps(examples.target[owner], rows)
        counts = np.bincount(owner[stays] - part.start, minlength=part.stop - part.start)
        changed = counts < lengths[part]
        same &= not changed.any()
        parts.append(rows[stays & changed[owner - part.start]])
        sizes = np.where(changed, counts, 0)
        begin = places + np.cumsum(sizes) - sizes
        first[part] = np.where(changed, begin, first[part])
        end[part] = np.where(changed, begin + sizes, end[part])
        places += int(sizes.sum())
    if same:
        return examples
    start = first + HistoryWindow(split.max_history, step).left_out(end - first)
    made = replace(examples, first=first, start=start, end=end, sequence=np.concatenate(parts))
    return made.keep((end - first) >= split.min_history)


def _parts(lengths: Rows) -> list[slice]:
    bucket = (np.cumsum(lengths) - lengths) // _ROWS
    cuts = (np.flatnonzero(np.diff(bucket)) + 1).tolist()
    bounds = [0, *cuts, len(lengths)] if len(lengths) else []
    return [slice(begin, stop) for begin, stop in pairwise(bounds)]
