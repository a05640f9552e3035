"""Places of ids among sorted ones."""

import numpy as np
import polars as pl

from msr_adapter.arrays import Rows


def places_of_ids(ordered: pl.Series, ids: pl.Series) -> Rows:
    """Return the place of each id in the sorted ``ordered``; -1 = none."""
    if not len(ordered):
        return np.full(len(ids), -1, dtype=np.int64)
    place = np.minimum(np.asarray(ordered.search_sorted(ids).to_numpy(), dtype=np.int64), len(ordered) - 1)
    found: Rows = np.where((ordered.gather(place) == ids).to_numpy(), place, -1)
    return found
