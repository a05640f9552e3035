"""Beyond accuracy: what of the catalogue do the first k places show, and how well known is it?

With ties, a candidate is among the first k with a probability: 1 above the score at place k, an equal share of the
places left for the candidates tied there. Coverage, popularity and novelty are exact expectations over tie orders;
Gini is that of the expected exposures, because the expectation of a Gini coefficient has no closed form.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from msr_adapter.arrays import Floats, Integers
from msr_adapter.metrics.groups import Scores, chunks


@dataclass(frozen=True)
class Exposure:
    """What the first k places of every user show."""

    coverage: float
    """Expected share of the catalogue that at least one user is shown."""
    gini: float
    """Gini coefficient of the items' exposures over the catalogue: 0 = all alike, near 1 = few items get all."""
    popularity: Floats
    """Mean popularity of the items shown to each user (users,)."""
    novelty: Floats
    """Mean self-information of the items shown, in bits (users,): ``-log2(popularity / total popularity)``."""


def expose(
    scores: npt.ArrayLike, offsets: npt.ArrayLike, items: npt.ArrayLike, popularity: npt.ArrayLike, k: int
) -> Exposure:
    """Describe the first ``k`` of each group; ``items`` (n,) are codes into ``popularity`` (catalogue,).

    An item without interactions counts as one with one in the novelty. O(n) time; memory beside input and output is
    one chunk and three float64 per item. Coverage and novelty: Vargas and Castells, RecSys 2011, and Zhou et al., PNAS
    2010; Gini: Fleder and Hosanagar, 2009.
    """
    values, bounds = np.asarray(scores), np.asarray(offsets, np.int64)
    codes, counts = np.asarray(items), np.asarray(popularity, np.float64)
    information = -np.log2(np.maximum(counts, 1) / max(counts.sum(), 1))
    exposures, missed = np.zeros(len(counts)), np.zeros(len(counts))
    known, novel = np.empty(len(bounds) - 1), np.empty(len(bounds) - 1)
    for first, last in chunks(bounds):
        part = bounds[first : last + 1]
        shown = top_probabilities(values[part[0] : part[-1]], part - part[0], k)
        rows = np.flatnonzero(shown)
        chances, code = shown[rows], codes[part[0] : part[-1]][rows]
        exposures += np.bincount(code, chances, minlength=len(counts))
        with np.errstate(divide="ignore"):  # a sure place: log(0) = -inf, so the item is missed with probability 0
            missed += np.bincount(code, np.log1p(-chances), minlength=len(counts))
        starts = np.searchsorted(rows, part[:-1] - part[0])  # no group is without a first place
        places = np.minimum(np.diff(part), k)
        known[first:last] = np.add.reduceat(chances * counts[code], starts) / places
        novel[first:last] = np.add.reduceat(chances * information[code], starts) / places
    return Exposure(float(np.mean(1 - np.exp(missed))), _gini(exposures), known, novel)


def top_probabilities(scores: Scores, offsets: Integers, k: int) -> Floats:
    """Return the probability over tie orders that each candidate (n,) is among the first ``k`` of its group."""
    sizes = np.diff(offsets)
    threshold = _kth_largest(scores, offsets, sizes, k)
    limit = np.repeat(threshold, sizes)
    above, at = scores > limit, scores == limit
    greater = np.add.reduceat(above, offsets[:-1], dtype=np.int64)
    equal = np.add.reduceat(at, offsets[:-1], dtype=np.int64)
    share = (np.minimum(k, sizes) - greater) / equal
    return np.asarray(above + at * np.repeat(share, sizes))


def _kth_largest(scores: Scores, offsets: Integers, sizes: Integers, k: int) -> Scores:
    """Return the score at place k of each group, at its last place when it is shorter."""
    widest = int(sizes.max())
    place = np.minimum(k, sizes) - 1
    if widest == sizes.min():
        return np.asarray(np.partition(scores.reshape(-1, widest), widest - 1 - place[0], axis=1)[:, -1 - place[0]])
    padded = np.full((len(sizes), widest), np.inf)  # of the negated scores: the padding comes last
    padded[np.arange(widest) < sizes[:, None]] = -scores
    depth = int(place.max())
    # Only the places that some group asks for are put in order.
    ordered = np.partition(padded, np.unique(place), axis=1)[:, : depth + 1]
    return np.asarray(-ordered[np.arange(len(sizes)), place], scores.dtype)


def _gini(exposures: Floats) -> float:
    """Return the Gini coefficient of non-negative ``exposures``, mean difference form. O(n log n)."""
    count = len(exposures)
    weights = 2 * np.arange(1, count + 1) - count - 1
    return float(weights @ np.sort(exposures) / (count * exposures.sum()))
