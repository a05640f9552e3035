"""How much of a history is read: its latest items, from a place that may move by whole blocks only."""

from dataclasses import dataclass

import numpy as np

from msr_adapter.arrays import Codes, Rows


@dataclass(frozen=True)
class HistoryWindow:
    """The latest items of a history, `longest` - `step` + 1 to `longest` of them, or all where it has no more.

    What is left out before them is a multiple of ``step``. So a history that goes on is read from the same item while
    it gains ``step`` items, and the blocks of a recurrent summary, ``step`` items each, stay what they were.
    """

    longest: int
    step: int = 1
    """At most `longest`; 1 = the window moves with every item."""

    def left_out(self, lengths: Rows) -> Rows:
        """Return how many items come before the window of histories that have these ``lengths``."""
        steps: Rows = -(-(lengths - self.longest) // self.step)
        return np.maximum(steps, 0) * self.step

    def of(self, history: Codes) -> Codes:
        """Return what of one history, oldest item first, is in its window."""
        return history[int(self.left_out(np.array(len(history)))) :]
