"""What users ever touched, in any split: nothing of it may be a negative."""

import numpy as np
from numpy.typing import NDArray

from msr_adapter.data.arrays import Mask, contains, ranges
from msr_adapter.data.corpus import Codes, Log, Rows


class Touched:
    """What the users of a chunk ever touched, as one sorted array of (user of the chunk, item) keys."""

    def __init__(self, log: Log, bounds: Rows, users: Codes) -> None:
        """Gather the rows of ``users`` (of each list). Memory O(rows of these users)."""
        distinct, self.user = np.unique(users, return_inverse=True)
        lengths = bounds[distinct + 1] - bounds[distinct]
        rows = ranges(bounds[distinct], lengths)
        self.n_items = len(log.items)
        self.keys = np.sort(np.repeat(np.arange(len(distinct)), lengths) * self.n_items + log.item[rows])

    def by(self, list_: Rows, item: NDArray[np.integer]) -> Mask:
        """Return whether the user of each list touched the item."""
        return contains(self.keys, self.user[list_] * self.n_items + item)
