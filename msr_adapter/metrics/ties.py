"""Groups with several positives: the tie blocks that hold them, and each metric's expected value over tie orders.

A block is a set of equally scored candidates: ``a`` candidates stand above it, ``t`` are in it, ``r`` of them positive,
``q`` positives stand above it. A random order of the ties puts the block's candidates on the ranks ``a + 1 .. a + t``
in any order with equal probability, independently of the other blocks. With ``m = min(t, max(0, k - a))`` of its ranks
inside the first k and ``H(n) = 1 + 1/2 + .. + 1/n``, the expectations are closed forms:

    positives in the first k    sum over blocks of  r m / t
    no hit in the best block    C(t - r, m) / C(t, m)                         (hypergeometric)
    first positive on rank a+j  C(t - j, r - 1) / C(t, r)                     (negative hypergeometric)
    AP's numerator              r/t [(q + 1) dH + (r - 1)/(t - 1) (m - (a + 1) dH)],  dH = H(a + m) - H(a)
    DCG                         r/t [D(a + m) - D(a)],  D(n) = sum of 1 / log2(i + 1) up to n

after McSherry and Najork, "Computing Information Retrieval Performance Measures Efficiently in the Presence of Tied
Scores", ECIR 2008. With one positive they are the formulas of `ranking`. All functions return float64 (users,).
"""

from dataclasses import dataclass

import numpy as np

from msr_adapter.arrays import Floats, Integers
from msr_adapter.metrics.groups import Groups, chunks


@dataclass(frozen=True)
class TieBlocks:
    """The tie blocks that hold a positive, group by group, best first; each array but the last three is (blocks,)."""

    above: Integers
    """Candidates scored higher."""
    size: Integers
    """Candidates in the block."""
    relevant: Integers
    """Positives in the block."""
    before: Integers
    """Positives scored higher."""
    first: Integers
    """Index of each group's best block (users,)."""
    positives: Integers
    """Positives of each group (users,)."""
    sizes: Integers
    """Candidates of each group (users,)."""

    def per_group(self, values: Floats) -> Floats:
        """Add up ``values`` (blocks,) over each group's blocks."""
        return np.asarray(np.add.reduceat(values, self.first), np.float64)

    def inside(self, k: int) -> Integers:
        """Return how many of each block's ranks are among the first k (blocks,)."""
        return np.clip(k - self.above, 0, self.size)


def tie_blocks(groups: Groups) -> TieBlocks:
    """Find the blocks by sorting each group. O(n log n) time; beside the result, memory is a few chunks."""
    parts = [_chunk_blocks(groups, first, last) for first, last in chunks(groups.offsets)]
    owner, above, size, relevant, before = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    first = np.searchsorted(owner, np.arange(groups.users))
    return TieBlocks(above, size, relevant, before, first, groups.counts, groups.sizes)


def _chunk_blocks(groups: Groups, first: int, last: int) -> tuple[Integers, ...]:
    start, end = int(groups.offsets[first]), int(groups.offsets[last])
    owner = np.repeat(np.arange(first, last), groups.sizes[first:last])
    order = np.lexsort((-groups.scores[start:end], owner))
    scores = groups.scores[start:end][order]
    positive = np.zeros(end - start, np.int64)
    low, high = np.searchsorted(groups.positives, [start, end])
    positive[groups.positives[low:high] - start] = 1
    new = np.concatenate([[True], (scores[1:] != scores[:-1]) | (owner[1:] != owner[:-1])])
    starts = np.flatnonzero(new)
    relevant = np.add.reduceat(positive[order], starts)
    holders = np.flatnonzero(relevant)
    starts, size = starts[holders], np.diff(np.append(starts, end - start))[holders]
    owner, relevant = owner[starts], relevant[holders]
    above = starts + start - groups.offsets[owner]
    seen = np.cumsum(relevant) - relevant  # positives in earlier blocks of the chunk, whatever their group
    before = seen - (np.cumsum(groups.counts[first:last]) - groups.counts[first:last])[owner - first]
    return owner, above, size, relevant, before


def first_rank(blocks: TieBlocks) -> Floats:
    """Return the mean rank of the best-ranked positive, 1 = best: ``a + (t + 1) / (r + 1)``."""
    above, size, relevant = (column[blocks.first] for column in (blocks.above, blocks.size, blocks.relevant))
    return np.asarray(above + (size + 1) / (relevant + 1))


def auc(blocks: TieBlocks) -> Floats:
    """Return the share of (positive, negative) pairs in the right order, ties counting half. Needs negatives."""
    negatives = blocks.sizes - blocks.positives
    worse = blocks.above - blocks.before + (blocks.size - blocks.relevant) / 2
    lost = blocks.per_group(blocks.relevant * worse)
    return np.asarray(1 - lost / (blocks.positives * negatives))


def hit_rate(blocks: TieBlocks, k: int) -> Floats:
    """Return HR@k, the probability that a positive is among the first k."""
    inside = blocks.inside(k)[blocks.first]
    size, relevant = blocks.size[blocks.first], blocks.relevant[blocks.first]
    more, fewer = np.maximum(relevant, inside), np.minimum(relevant, inside)
    missed = np.ones(len(size))
    for step in range(int(fewer.max())):  # C(t - r, m) / C(t, m), a product of min(r, m) factors
        left = size - step
        missed *= np.where(step < fewer, (left - more) / np.maximum(left, 1), 1.0)
    return 1 - missed


def _found(blocks: TieBlocks, k: int) -> Floats:
    return blocks.per_group(blocks.relevant * blocks.inside(k) / blocks.size)


def recall(blocks: TieBlocks, k: int) -> Floats:
    """Return Recall@k: the share of the positives that is among the first k."""
    return np.asarray(_found(blocks, k) / blocks.positives)


def precision(blocks: TieBlocks, k: int) -> Floats:
    """Return Precision@k: the share of the first k places that hold a positive; a shorter list counts as k long."""
    return _found(blocks, k) / k


def reciprocal_rank(blocks: TieBlocks, k: int) -> Floats:
    """Return MRR@k: ``1 / rank`` of the best-ranked positive up to rank k, zero below (Voorhees, TREC-8, 1999)."""
    above, size, relevant = (column[blocks.first] for column in (blocks.above, blocks.size, blocks.relevant))
    steps = np.clip(np.minimum(k - above, size - relevant + 1), 0, None)
    total, probability = np.zeros(len(size)), relevant / size
    for step in range(1, int(steps.max()) + 1):
        total += np.where(step <= steps, probability / (above + step), 0.0)
        left = size - step
        probability = probability * np.maximum(left - relevant + 1, 0) / np.maximum(left, 1)
    return total


def average_precision(blocks: TieBlocks, k: int) -> Floats:
    """Return AP@k: the sum of the precisions at the ranks of the positives among the first k, over all positives.

    Divided by the number of positives, as trec_eval does (`map_cut`), not by ``min(k, positives)``.
    """
    inside = blocks.inside(k)
    harmonic = _prefix(1 / np.arange(1.0, _depth(blocks, k) + 1))
    added = _between(harmonic, blocks.above, inside)
    pairs = (blocks.relevant - 1) / np.maximum(blocks.size - 1, 1)
    sums = (blocks.before + 1) * added + pairs * (inside - (blocks.above + 1) * added)
    return np.asarray(blocks.per_group(blocks.relevant / blocks.size * sums) / blocks.positives)


def ndcg(blocks: TieBlocks, k: int) -> Floats:
    """Return NDCG@k: gain ``1 / log2(rank + 1)``, over that of the best order (Jarvelin and Kekalainen, 2002)."""
    discounts = _prefix(1 / np.log2(np.arange(1.0, _depth(blocks, k) + 1) + 1))
    gains = blocks.relevant / blocks.size * _between(discounts, blocks.above, blocks.inside(k))
    return np.asarray(blocks.per_group(gains) / discounts[np.minimum(blocks.positives, k)])


def _depth(blocks: TieBlocks, k: int) -> int:
    return min(k, int(blocks.sizes.max()))  # no rank is deeper, whatever k is


def _prefix(values: Floats) -> Floats:
    return np.concatenate([[0.0], np.cumsum(values)])


def _between(prefix: Floats, above: Integers, inside: Integers) -> Floats:
    last = len(prefix) - 1
    return np.asarray(prefix[np.minimum(above + inside, last)] - prefix[np.minimum(above, last)])
