"""The frozen candidates in integer codes."""

from dataclasses import dataclass

import numpy as np

from msr_adapter.arrays import Codes, Labels, Rows


@dataclass(frozen=True)
class Candidates:
    """One row per (example, item), grouped by example in order; the positive at a seeded position."""

    example: Rows
    item: Codes
    label: Labels

    def __len__(self) -> int:
        return len(self.item)

    def of_examples(self, part: slice) -> "Candidates":
        """Return the rows of the examples part.start..part.stop-1."""
        rows = slice(*np.searchsorted(self.example, [part.start, part.stop]).tolist())
        return Candidates(self.example[rows], self.item[rows], self.label[rows])
