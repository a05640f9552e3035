"""What the checks look at: the built log and a bounded sample of the test lists."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from msr_adapter.arrays import Codes, Mask, Rows, ranges
from msr_adapter.config.schema import SplitConfig
from msr_adapter.data.examples import Examples
from msr_adapter.data.images.store import StoredImage
from msr_adapter.data.interaction_log import Log
from msr_adapter.data.negatives.candidates import Candidates
from msr_adapter.data.tables import ItemCatalogue

LISTS = 20_000
"""Most test lists that are scored: an AUC over so many users has a standard error of at most .002."""
PAIRS = 2_000_000
"""Most (user, candidate) pairs that are scored: sets memory and time where lists are the whole catalogue."""


@dataclass(frozen=True)
class TestLists:
    """Test candidates, flat, as `msr_adapter.heuristics` takes them."""

    items: Codes
    labels: Rows
    offsets: Rows
    times: Rows
    """Time of the target of every pair."""
    history: Codes
    history_offsets: Rows
    of: int
    """Number of lists that these were drawn from."""

    def __len__(self) -> int:
        return len(self.offsets) - 1


@dataclass(frozen=True)
class AuditInputs:
    """What the stage has built, in codes."""

    log: Log
    examples: Examples
    training: Mask
    """Rows of the log that training may know of."""
    popularity: Rows
    """How many of them every item has."""
    candidates: Candidates
    catalogue: ItemCatalogue
    images: Sequence[StoredImage]
    split: SplitConfig
    seed: int

    @cached_property
    def test_targets(self) -> Rows:
        """Rows of the log that are test targets."""
        targets: Rows = self.examples.target[self.examples.split == 2]
        return targets

    @cached_property
    def lists(self) -> TestLists:
        """Return the test lists, or a seeded sample of them, that hold a positive and a negative at least."""
        tests = np.flatnonzero(self.examples.split == 2)
        first, last = np.searchsorted(self.candidates.example, [tests, tests + 1])
        usable = np.flatnonzero(last - first > 1)
        chosen = self._sample(usable, last - first)
        before = np.concatenate([[0], np.cumsum(self.candidates.label, dtype=np.int64)])
        positives = before[last[chosen]] - before[first[chosen]]
        chosen = chosen[(positives > 0) & (positives < (last - first)[chosen])]
        sizes, tests = (last - first)[chosen], tests[chosen]
        rows, offsets = ragged(first[chosen], sizes)
        start, target = self.examples.start[tests], self.examples.target[tests]
        places, history_offsets = ragged(start, self.examples.end[tests] - start)
        past = self.log.item[self.examples.row(places)]
        return TestLists(
            self.candidates.item[rows], self.candidates.label[rows].astype(np.int64), offsets,
            np.repeat(self.log.time[target], sizes), past, history_offsets, len(usable),
        )  # fmt: skip

    def _sample(self, usable: Rows, sizes: Rows) -> Rows:
        mean = sizes[usable].mean() if len(usable) else 1.0
        most = min(LISTS, max(1, int(PAIRS / mean)))
        if len(usable) <= most:
            return usable
        # 5 sets this draw apart from the audit's others (6 and 7). Sorted: lists stay in the order of their examples.
        return np.sort(np.random.default_rng([self.seed, 5]).choice(usable, most, replace=False))


def ragged(starts: Rows, lengths: Rows) -> tuple[Rows, Rows]:
    """Return the rows of all slices ``starts[i]:starts[i] + lengths[i]``, one after the other, and their offsets."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return ranges(starts, lengths), offsets
