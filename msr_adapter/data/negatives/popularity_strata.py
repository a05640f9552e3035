"""Popularity-matched negatives without a tell: strata of popularity, in which a target is like any other item.

Negatives that surround the target in the order of popularity give it away: it is the middle of its list, or the end of
it at the head of the catalogue. So the catalogue is cut into strata whatever the target, and negatives come from the
target's own. Within a stratum, an item is a target about as often as its popularity says; negatives are drawn so that
each item is one as often as that, and whoever knows the popularity of all of a list's items, and nothing else, cannot
tell which one is the target.

That cannot be had for an item that is interacted with more often than one in (negatives + 1) times of its stratum, or
whose stratum has not that many others: it is *without twins*, and a negative of its like alone.
"""

from dataclasses import dataclass

import numpy as np

from msr_adapter.arrays import Floats, Mask, Rows

_PER_DOUBLING = 2
"""Strata that a doubling of the popularity is cut into, where they have enough items."""
_POWER_SPREAD, _POWERS = 0.5, (-1.0, 3.0)
"""How far from 1 the power of popularity is expected before targets are seen, and what it is never beyond."""
_NEWTON = 20
"""Steps of an estimate that takes about five."""


@dataclass(frozen=True)
class Strata:
    """A catalogue in strata of popularity."""

    order: Rows
    """All items, stratum after stratum, the most popular ones first and those that training never saw last."""
    cumulative: Floats
    """Running sum, in ``order``, of what draws one by one, without replacement, are in proportion to."""
    low: Rows
    """For each item of the catalogue, from where in ``order`` its negatives are drawn (items,)."""
    high: Rows
    """And up to where."""
    twinless: Mask
    """Which items of the catalogue have no twins (items,)."""


def popularity_strata(popularity: Rows, least: int, count: int, targets: Rows | None = None) -> Strata:
    """Cut items of ``popularity`` (items,) into strata of ``least`` items or more, for lists with ``count`` negatives.

    ``targets`` (items,) says how often each is the target of a training example: what is popular in a log as a whole
    need not be so where targets are, at its end (None: it is).

    Items that training never saw are a stratum by themselves, all alike. A target without twins is set against all of
    its stratum, and of the neighbouring ones where that is too small. O(items log items).
    """
    least = max(least, count + 1)
    stratum = _strata(popularity, least)
    number = int(stratum.max(initial=-1)) + 1
    # Never seen, an item is as likely as another one of its kind.
    rate = np.where(popularity > 0, popularity, 1).astype(np.float64)
    if targets is not None:
        rate **= _powers(np.log(rate), stratum, targets)[stratum]
        rate *= _surprises(rate, stratum, targets)
    twinless = np.zeros(len(popularity), dtype=bool)
    # Leaving out the most popular one may leave the next one too popular.
    while (more := ~twinless & _too_popular(rate, stratum, twinless, count)).any():
        twinless |= more
    order = np.lexsort((np.arange(len(popularity)), popularity, ~twinless, stratum))
    total = np.bincount(stratum[~twinless], rate[~twinless], minlength=number)
    # Drawn with these weights one by one, an item is among the negatives with about count x its share.
    own, most = total[stratum[order]], 1 / (count + 1)
    share = np.minimum(np.divide(rate[order], own, out=np.full(len(order), most), where=own > 0), most)
    low, high = _bounds(stratum, twinless, least)
    return Strata(order, np.cumsum(-np.log1p(-count * share)), low, high, twinless)


def _powers(log_rate: Floats, stratum: Rows, targets: Rows) -> Floats:
    """Return the power of its popularity that an item is a target in proportion to, for each stratum.

    It is the likeliest one for the training ``targets`` (items,), drawn towards 1.
    """
    number = int(stratum.max(initial=-1)) + 1
    found = np.bincount(stratum, targets, minlength=number)
    seen = np.bincount(stratum, targets * log_rate, minlength=number)
    power = np.ones(number)
    for _ in range(_NEWTON):
        exponent = power[stratum] * log_rate
        largest = np.full(number, -np.inf)
        np.maximum.at(largest, stratum, exponent)
        weight = np.exp(exponent - largest[stratum])
        total = np.bincount(stratum, weight, minlength=number)
        mean = np.bincount(stratum, weight * log_rate, minlength=number) / total
        square = np.bincount(stratum, weight * log_rate**2, minlength=number) / total
        slope = seen - found * mean - (power - 1) / _POWER_SPREAD**2
        power = power + slope / (found * np.maximum(square - mean**2, 0) + 1 / _POWER_SPREAD**2)
        power = np.clip(power, *_POWERS)
    return power


def _surprises(rate: Floats, stratum: Rows, targets: Rows) -> Floats:
    """Return how much more often each item is a target than its ``rate`` in its stratum says.

    Counts of training targets are taken for Poisson with means that a gamma distribution scatters about the expected
    ones; its width is that of the stratum's counts, and what is returned are the posterior means (Robbins, 1956).
    """
    number = int(stratum.max(initial=-1)) + 1
    expected = rate * (np.bincount(stratum, targets, minlength=number) / np.bincount(stratum, rate))[stratum]
    excess = np.bincount(stratum, (targets - expected) ** 2 - expected, minlength=number)
    square = np.bincount(stratum, expected**2, minlength=number)
    # The inverse of the gamma distribution's shape; none where the counts scatter no more than by chance.
    width = np.divide(np.maximum(excess, 0), square, out=np.zeros(number), where=square > 0)[stratum]
    found: Floats = (width * targets + 1) / (width * expected + 1)
    return found


def _bounds(stratum: Rows, twinless: Mask, least: int) -> tuple[Rows, Rows]:
    """Return from where to where in the order of `popularity_strata` each item's negatives are drawn."""
    sizes = np.bincount(stratum)
    end = np.cumsum(sizes)
    begin = end - sizes
    wide_begin = np.where(sizes < least, np.concatenate([[0], begin[:-1]]), begin)
    wide_end = np.where(sizes < least, np.concatenate([end[1:], end[-1:]]), end)
    first = begin + np.bincount(stratum, twinless, minlength=len(sizes)).astype(np.int64)
    return np.where(twinless, wide_begin[stratum], first[stratum]), np.where(twinless, wide_end[stratum], end[stratum])


def _too_popular(rate: Floats, stratum: Rows, left_out: Mask, count: int) -> Mask:
    """Return which items have more than one in (count + 1) of what their stratum has without those ``left_out``."""
    total = np.bincount(stratum[~left_out], rate[~left_out], minlength=int(stratum.max(initial=-1)) + 1)
    # Where all are alike and there are just enough, rounding must not make them too popular.
    return np.asarray(rate * (count + 1) > total[stratum] * (1 + 1e-9))


def _strata(popularity: Rows, least: int) -> Rows:
    """Return the stratum of each item: bins of the logarithm, joined from the most popular on until they are large."""
    with np.errstate(divide="ignore"):
        bins = np.where(popularity > 0, np.floor(_PER_DOUBLING * np.log2(popularity)), -1).astype(np.int64)
    sizes = np.bincount(bins + 1, minlength=1)
    joined = np.zeros(len(sizes), dtype=np.int64)
    stratum, filled = 0, 0
    for number in range(len(sizes) - 1, 0, -1):
        if filled >= least and sizes[number]:
            stratum, filled = stratum + 1, 0
        joined[number] = stratum
        filled += int(sizes[number])
    if filled < least and stratum:  # the least popular ones are too few for a stratum of their own
        joined[1:][joined[1:] == stratum] = stratum - 1
        stratum -= 1
    joined[0] = stratum + 1 if len(sizes) > 1 else 0
    return joined[bins + 1]
