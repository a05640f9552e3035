"""Metrics of targets that are known by their places alone: how many candidates stand above each and how many beside.

A ranking of a whole catalogue is too long to keep; what decides its metrics at k is two counts for each target. The
formulas are those of `ranking` and `ties`, so that ties count with their expected value here too.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from msr_adapter.arrays import Floats, Integers
from msr_adapter.metrics import catalogue
from msr_adapter.metrics.groups import Standing
from msr_adapter.metrics.ties import TieBlocks

MISSED = 2**31 - 1
"""Candidates above a target that is not in its list at all: more than any k counts."""


@dataclass(frozen=True)
class TargetRanks:
    """Where each target stands among all candidates of its user; a user has one target or several."""

    owner: Integers
    """User of each target (targets,), ascending; every user has one."""
    above: Integers
    """Candidates scored higher (targets,), or `MISSED`."""
    tied: Integers
    """Candidates scored the same, the target among them (targets,)."""
    sizes: Integers
    """Candidates of each user (users,)."""

    @property
    def users(self) -> int:
        """Number of users."""
        return len(self.sizes)

    @property
    def targets(self) -> Integers:
        """Targets of each user (users,)."""
        return np.bincount(self.owner, minlength=self.users)

    def at(self, metric: str, k: int) -> Floats:
        """Return ``metric`` (`hr`, `ndcg`, ...) cut off at ``k`` of every user (users,).

        Raises KeyError on a name that is no metric with a cut-off.
        """
        row = catalogue.metric_row(metric)
        if not isinstance(row, catalogue.RankingMetric) or not row.at_k or row.one is None or row.several is None:
            raise KeyError(metric)
        if len(self.owner) == self.users:
            return row.one(Standing(self.above, self.tied - 1, self.sizes), k)
        return row.several(self.blocks(), k)

    def blocks(self) -> TieBlocks:
        """Return the tie blocks that hold a target, user by user, best first."""
        order = np.lexsort((self.above, self.owner))
        owner, above, tied = self.owner[order], self.above[order], self.tied[order]
        starts = np.flatnonzero(np.concatenate([[True], (owner[1:] != owner[:-1]) | (above[1:] != above[:-1])]))
        relevant = np.diff(np.append(starts, len(owner)))
        holder, positives = owner[starts], self.targets
        before = starts - (np.cumsum(positives) - positives)[holder]  # of the same user, in better blocks
        # Missed targets are no block of equally scored ones, but all beyond any k: their number is as good as any.
        size = np.maximum(tied[starts], relevant)
        first = np.searchsorted(holder, np.arange(self.users))
        return TieBlocks(above[starts], size, relevant, before, first, positives, self.sizes)


def values_at(ranks: TargetRanks, metrics: Sequence[str], k: Sequence[int]) -> dict[str, Floats]:
    """Return ``hr@5`` -> values (users,) for those of ``metrics`` that have a cut-off, at every ``k``."""
    cut = [row.name for row in catalogue.METRICS if isinstance(row, catalogue.RankingMetric) and row.at_k]
    return {f"{name}@{depth}": ranks.at(name, depth) for name in metrics if name in cut for depth in k}
