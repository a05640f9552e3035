"""Texts that are nearly the same: sets of words, or of pairs of words, whose Jaccard similarity is high.

All pairs of a few sets are compared. Among many, MinHash and banding (Broder, 1997) say which pairs to compare.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Protocol

import numpy as np

from msr_adapter.arrays import Floats, Rows
from msr_adapter.seeded_random import Bits, hash_ids, mix

JACCARD = 0.8
"""Members shared over members in all from which two sets count as nearly the same."""
FEW = 1_000
"""Sets that are all compared with one another: a matrix of 4 MB."""

_BANDS, _DEPTH = 10, 3
"""A pair at Jaccard .8 is found with probability 1 - (1 - .8**3)**10 = .999, one at .5 with .74 and then refused."""
# Scripts without blanks between words: each of their characters stands for a word.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|\w+")


class Sets(Protocol):
    """Sets of codes: set ``i`` is ``words[offsets[i]:offsets[i + 1]]``, ascending; `TitleVectors` are such sets."""

    @property
    def offsets(self) -> Rows:
        """Return where each set begins, and where the last one ends (sets + 1,)."""

    @property
    def words(self) -> Rows:
        """Return the members of all sets, one set after the other."""

    @property
    def vocabulary(self) -> int:
        """Return the number of distinct members."""


@dataclass(frozen=True)
class WordPairs:
    """The pairs of neighbouring words of texts, as `Sets`."""

    offsets: Rows
    words: Rows
    vocabulary: int


def near_pairs(sets: Sets) -> Rows:
    """Return the pairs (n, 2) of sets, first below second, with a Jaccard similarity of `JACCARD` or more.

    Empty sets are left out. Exact for at most `FEW` sets; of more, each set is paired with some of its near duplicates.
    O(members x hashes) time and O(sets) memory, whatever the number of near duplicates.
    """
    if len(sets.offsets) - 1 <= FEW:
        return _all_pairs(sets)
    filled = np.flatnonzero(np.diff(sets.offsets))
    if len(filled) < 2:
        return np.empty((0, 2), dtype=np.int64)
    starts = sets.offsets[filled]
    found = []
    for band in range(_BANDS):
        key: Bits = np.zeros(len(filled), dtype=np.uint64)
        for depth in range(_DEPTH):
            # The least hash of a set is that of another one with a probability that is their Jaccard similarity.
            hashes = mix(sets.words.astype(np.uint64) ^ hash_ids([f"{band}/{depth}"]))
            key = mix(key ^ np.minimum.reduceat(hashes, starts))
        # Neighbours only: a thousand equal titles give a thousand pairs, not half a million.
        order = np.argsort(key, kind="stable")
        same = key[order[1:]] == key[order[:-1]]
        found.append(np.sort(np.column_stack([filled[order[:-1]], filled[order[1:]]])[same], axis=1))
    pairs = np.unique(np.concatenate(found), axis=0)
    return pairs[jaccard(sets, pairs) >= JACCARD]


def near_identical(texts: Sequence[str]) -> float:
    """Return the share of ``texts`` whose pairs of neighbouring words are nearly another's; 0 for fewer than two.

    Much of it is a model that writes one text for all. Exact on at most `FEW` texts, evenly spaced, which must be
    answers to different prompts; empty ones are left out. O(texts^2 x words of a text) at worst.
    """
    given = [text for text in texts if text]
    compared = [given[place * len(given) // FEW] for place in range(FEW)] if len(given) > FEW else given
    return len(np.unique(near_pairs(word_pairs(compared)))) / len(compared) if compared else 0.0


def words_of(text: str) -> list[str]:
    """Return the words of a text, in any case; of scripts without blanks, the characters."""
    return _WORD.findall(text.casefold())


def word_pairs(texts: Sequence[str]) -> WordPairs:
    """Return the pairs of neighbouring words of each text; of a text of fewer than two words, the text itself."""
    codes: dict[tuple[str, ...], int] = {}
    sets: list[list[int]] = []
    for text in texts:
        words = words_of(text)
        members = set(pairwise(words)) if len(words) > 1 else {(text.casefold(),)}
        sets.append(sorted(codes.setdefault(member, len(codes)) for member in members))
    offsets = np.cumsum([0, *map(len, sets)], dtype=np.int64)
    return WordPairs(offsets, np.fromiter(chain.from_iterable(sets), dtype=np.int64), len(codes))


def jaccard(sets: Sets, pairs: Rows) -> Floats:
    """Return the Jaccard similarity (n,) of each pair (n, 2) of sets. O(members log members)."""
    lengths = np.diff(sets.offsets)
    left, right = pairs.T
    keys = np.repeat(np.arange(len(lengths)), lengths) * sets.vocabulary + sets.words  # ascending
    owner = np.repeat(np.arange(len(pairs)), lengths[left])
    rows = np.arange(len(owner)) - np.repeat(np.cumsum(lengths[left]) - lengths[left], lengths[left])
    words = sets.words[sets.offsets[left][owner] + rows]
    wanted = right[owner] * sets.vocabulary + words
    hit = keys[np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)] == wanted
    shared = np.bincount(owner, hit, minlength=len(pairs))
    return np.asarray(shared / np.maximum(lengths[left] + lengths[right] - shared, 1))


def _all_pairs(sets: Sets) -> Rows:
    """Compare all pairs: each member adds one to what the sets that have it share."""
    lengths = np.diff(sets.offsets)
    order = np.argsort(sets.words, kind="stable")
    having = np.repeat(np.arange(len(lengths)), lengths)[order]
    shared = np.zeros((len(lengths), len(lengths)), dtype=np.int32)
    for group in np.split(having, np.flatnonzero(np.diff(sets.words[order])) + 1):
        if len(group) > 1:
            shared[np.ix_(group, group)] += 1
    similarity = shared / np.maximum(lengths[:, None] + lengths[None, :] - shared, 1)
    return np.argwhere(np.triu(similarity >= JACCARD, 1))
