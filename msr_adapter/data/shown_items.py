"""What users were shown and did not click: as it was read, and by the row of the log that it belongs to."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from msr_adapter.arrays import Codes, Labels, Rows
from msr_adapter.data.temporal import ERAS


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
    era: Labels | None = None
    """Of each row, under a split by time (`temporal`)."""

    def first_eras(self, codes: Rows, items: int) -> Labels | None:
        """Return the era in which each of ``items`` items is first shown, `ERAS` if never; None without eras.

        ``codes``: those items' codes of the items here (items here,); -1 = none.
        """
        if self.era is None:
            return None
        code = codes[self.item]
        found = np.full(items, ERAS, dtype=np.int8)
        np.minimum.at(found, code[code >= 0], self.era[code >= 0])
        return found

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
    first_era: Labels | None = None
    """The era in which each item of the log is first shown to anybody (items,), `ERAS` if never; None without eras."""

    def span(self, rows: Rows) -> tuple[Rows, Rows]:
        """Return where the items of the impressions of ``rows`` (of the log) begin and end; empty where none is."""
        block = self.block[rows]
        none = block < 0
        low, high = self.bounds[np.maximum(block, 0)], self.bounds[np.minimum(block + 1, len(self.bounds) - 1)]
        return np.where(none, 0, low), np.where(none, 0, high)
