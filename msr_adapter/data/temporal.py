"""A split by time: what is known when.

An era is a part of time: 0 is before validation begins, which is all that training may know; 1 is before test begins; 2
is what comes after. Filters, the catalogue of training, its negatives and every statistic are of era 0. Validation
lists know eras 0 and 1. Test lists avoid all that a user has ever seen: what the user chose later is no negative.
"""

from dataclasses import dataclass

import numpy as np

from msr_adapter.arrays import Codes, Labels, Mask
from msr_adapter.config.schema import SplitConfig
from msr_adapter.config.schema.data import milliseconds
from msr_adapter.data.readers.reader import FILTERED

ERAS = 3
LATEST = ERAS - 1
"""The era in which everything is known."""

Moments = tuple[int, int]
"""Milliseconds where validation begins, and where test begins."""


def split_bounds(split: SplitConfig) -> tuple[int, int, int]:
    """Return the milliseconds where validation begins, where test begins, and from where nothing is predicted.

    Without `validation_from` the time of validation is empty: it begins where test does.
    """
    forever = np.iinfo(np.int64).max
    test = milliseconds(split.test_from or 0)
    validation = test if split.validation_from is None else milliseconds(split.validation_from)
    return validation, test, forever if split.until is None else milliseconds(split.until)


def moments_of(split: SplitConfig) -> Moments | None:
    """Return the moments of a split by time, None of the other kinds."""
    return split_bounds(split)[:2] if split.kind == "temporal" else None


def eras(times: Codes, moments: Moments) -> Labels:
    """Return the era of each time."""
    validation, test = moments
    return (times >= validation).astype(np.int8) + (times >= test).astype(np.int8)


@dataclass(frozen=True, eq=False)
class Horizon:
    """What the candidate lists of one split may know."""

    era: int = LATEST
    """What users have seen up to this era, and in it, is no negative."""
    items: Mask | None = None
    """Which items of the catalogue (items,) may be negatives; None = all of them."""
    at_target: bool = False
    """Whether a negative must have appeared in the log by the time of the list's target."""


EVERYTHING = Horizon()
"""Of lists under the splits that do not follow time."""


def eras_of_filtered(time: Codes, filtered: Codes, moments: Moments) -> Labels:
    """Return the eras of the rows that a filter of the source drops; what has no time is known to nobody earlier."""
    found = eras(time[filtered >= 0], moments)
    found[filtered[filtered >= 0] == FILTERED.index("no_time")] = LATEST
    return found
