"""Titles that are nearly the same: MinHash and banding (Broder, 1997).

Two titles are compared only where one of `_BANDS` bands of `_DEPTH` hashes agrees, and then only neighbours in the
sorted band: time and memory are O(words x hashes) and O(items) whatever the number of near duplicates.
"""

import numpy as np

from msr_adapter.arrays import Floats, Rows
from msr_adapter.data.seeded_random import hash_ids, mix
from msr_adapter.heuristics import TitleVectors

JACCARD = 0.8
"""Words shared over words in all from which two titles count as nearly the same."""

_BANDS, _DEPTH = 10, 3
"""A pair at Jaccard .8 is met with probability 1 - (1 - .8**3)**10 = .999, one at .5 with .74 and then refused."""


def near_pairs(titles: TitleVectors) -> Rows:
    """Return pairs (n, 2) of items, first below second, whose sets of words have a Jaccard similarity of `JACCARD`.

    Titles without words are left out. Of many near duplicates each is paired with some others, not with all.
    """
    items = np.flatnonzero(np.diff(titles.offsets))
    if len(items) < 2:
        return np.empty((0, 2), dtype=np.int64)
    starts = titles.offsets[items]
    found = []
    for band in range(_BANDS):
        key = np.zeros(len(items), dtype=np.uint64)
        for depth in range(_DEPTH):
            salt = hash_ids([f"{band}/{depth}"])
            hashes = mix(titles.words.astype(np.uint64) ^ salt)
            key = mix(key ^ np.minimum.reduceat(hashes, starts))
        order = np.argsort(key, kind="stable")
        same = key[order[1:]] == key[order[:-1]]
        found.append(np.sort(np.column_stack([items[order[:-1]], items[order[1:]]])[same], axis=1))
    pairs = np.unique(np.concatenate(found), axis=0)
    return pairs[jaccard(titles, pairs) >= JACCARD]


def jaccard(titles: TitleVectors, pairs: Rows) -> Floats:
    """Return the Jaccard similarity of the sets of words of each pair (n, 2). O(words log words)."""
    lengths = np.diff(titles.offsets)
    left, right = pairs.T
    keys = np.repeat(np.arange(len(lengths)), lengths) * titles.vocabulary + titles.words  # ascending
    owner = np.repeat(np.arange(len(pairs)), lengths[left])
    rows = np.arange(len(owner)) - np.repeat(np.cumsum(lengths[left]) - lengths[left], lengths[left])
    words = titles.words[titles.offsets[left][owner] + rows]
    wanted = right[owner] * titles.vocabulary + words
    hit = keys[np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)] == wanted
    shared = np.bincount(owner, hit, minlength=len(pairs))
    return np.asarray(shared / np.maximum(lengths[left] + lengths[right] - shared, 1))
