"""How alike many summaries are: nearly one text for all is a model that has collapsed."""

import re
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

SAMPLED = 1_000
"""Texts that are compared with one another, evenly spaced; fewer are all compared."""
SIMILAR = 0.8
"""Jaccard similarity of word pairs from which two texts count as nearly the same."""
# Scripts without blanks between words: each of their characters stands for a word.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|\w+")


def near_identical(texts: Sequence[str]) -> float:
    """Return the share of ``texts`` that are nearly the same as another one of them; 0 for fewer than two.

    Exact on a sample of at most `SAMPLED` texts, which must be answers to different prompts; empty ones are left out.
    O(sample^2 x words of a text) at worst, in NumPy: about a second when all are alike.
    """
    given = [text for text in texts if text]
    chosen = [given[place * len(given) // SAMPLED] for place in range(SAMPLED)] if len(given) > SAMPLED else given
    if len(chosen) < 2:
        return 0.0
    sets = [_pairs(text) for text in chosen]
    holders: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for place, pairs in enumerate(sets):
        for pair in pairs:
            holders[pair].append(place)
    common = np.zeros((len(sets), len(sets)), dtype=np.int32)
    for places in holders.values():
        if len(places) > 1:
            common[np.ix_(places, places)] += 1
    sizes = np.array([len(pairs) for pairs in sets], dtype=np.int32)
    alike = common >= SIMILAR * (sizes[:, None] + sizes[None, :] - common) - 1e-9
    np.fill_diagonal(alike, False)
    return float(alike.any(axis=1).mean())


def _pairs(text: str) -> set[tuple[str, ...]]:
    """Return the pairs of neighbouring words of a text; of a single word, the text itself."""
    words = _WORD.findall(text.casefold())
    return set(pairwise(words)) if len(words) > 1 else {(text.casefold(),)}
