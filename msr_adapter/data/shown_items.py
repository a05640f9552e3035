"""What users were shown and did not click: as it was read, and by the row of the log that it belongs to."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from msr_adapter.arrays import Codes, Rows


@dataclass(frozen=True)
class Shown:
    """Rows that say that a user was shown an item and did not click it, in codes of ids of their own."""

    users: pl.Series
    """Ids, sorted: code -> id."""
    items: pl.Series
    user: Codes
    item: Codes
    group: Rows
    """The impression of each row, as in `Log.group`."""
    time: Rows

    def appeared(self, first: Rows | None) -> Rows | None:
        """Return when each item first appears, shown or clicked, where ``first`` (items,) says when it was clicked."""
        if first is None:
            return None
        first = first.copy()
        np.minimum.at(first, self.item, self.time)
        return first


@dataclass(frozen=True)
class Impressions:
    """What was shown and not clicked together with each row of a log."""

    block: Rows
    """Number of the impression of each row of the log (rows,); -1 = none, or all that it showed was clicked."""
    bounds: Rows
    """(impressions + 1,)"""
    item: Codes
    """Items of impression number n, in codes of the log: item[bounds[n]:bounds[n + 1]], ascending."""

    def span(self, rows: Rows) -> tuple[Rows, Rows]:
        """Return where the items of the impressions of ``rows`` (of the log) begin and end; empty where none is."""
        block = self.block[rows]
        none = block < 0
        low, high = self.bounds[np.maximum(block, 0)], self.bounds[np.minimum(block + 1, len(self.bounds) - 1)]
        return np.where(none, 0, low), np.where(none, 0, high)
