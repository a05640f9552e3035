"""How users choose: from what they are shown, by what they like at that moment.

At each choice, a user is shown a random part of the items that are not chosen yet, and takes one by
softmax(affinity / noise). A user who always saw everything would take the best items first, so that a log would list
its items about best first, and an item's place in it would tell how much it is liked.
"""

from dataclasses import dataclass

import numpy as np

from msr_adapter.arrays import Codes, Floats, Integers, Mask
from msr_adapter.synthetic.drifting_preferences import DriftingPreferences
from msr_adapter.synthetic.vocabulary import ItemFacets

_BLOCK = 1024
_STEP = 0.5
"""Of the trapezoid rule: in log time the integrand is analytic and falls off doubly exponentially, error about 1e-9."""


@dataclass(frozen=True)
class Shopping:
    """What makes the order of a log matter, and what items have beside a title and an image.

    The defaults are users whose tastes stay, and who always see everything.
    """

    drift: float = 0.0
    """Probability that a facet's favourites change between two choices."""
    offered: float = 1.0
    """Share of the items that a user is shown at a choice: each item is or is not, independently, but never none."""
    attributes: bool = False
    """Whether items have a price and a brand, and users a taste in both."""
    second_image: bool = False
    """Whether items have a second image, of another motif and colour, which users like as they do the first one's."""

    @property
    def is_plain(self) -> bool:
        """Whether one sorted draw gives whole logs."""
        return self.drift == 0 and self.offered == 1


PLAIN = Shopping()


@dataclass(frozen=True)
class ChoiceLog:
    """Who chose what when, by user and time: n rows."""

    bounds: Integers
    """(users + 1,): the rows of each user."""
    items: Codes
    """(n,)"""
    times: Integers
    """(n,), all unlike within a user."""

    def numbers(self, users: Codes, times: Integers) -> Codes:
        """Return which choice of the user each of ``times`` (pairs,) is, 0 = the first.

        A time between two choices is the later one's; after the last one, it is the last one's.
        """
        lengths = np.diff(self.bounds)
        # Of equal times the asked one is sorted first: the choice of that very time is not before it.
        kind = np.repeat([0, 1], [len(times), len(self.times)])
        owners = np.concatenate([users, np.repeat(np.arange(len(lengths)), lengths)])
        order = np.lexsort((kind, np.concatenate([times, self.times]), owners))
        before = np.empty(len(order), dtype=np.int64)
        before[order] = np.cumsum(kind[order])
        return np.asarray(np.minimum(before[: len(times)] - self.bounds[users], lengths[users] - 1))

    def before(self, user: int, number: int) -> Codes:
        """Return what the user chose before the choice of that number."""
        first = int(self.bounds[user])
        return self.items[first : first + number]


def choose_in_turn(
    preferences: DriftingPreferences, facets: ItemFacets, lengths: Codes, noise: float, offered: float,
    rng: np.random.Generator,
) -> list[Codes]:  # fmt: skip
    """Return each user's choices in order, ``lengths[u]`` different items each. O(users x choices x items)."""
    items = np.arange(len(facets.titles))
    choices: list[Codes] = []
    for start in range(0, len(lengths), _BLOCK):
        users = np.arange(start, min(start + _BLOCK, len(lengths)))
        free = np.ones((len(users), len(items)), dtype=np.bool_)
        taken = np.zeros((len(users), int(lengths[users].max())), dtype=np.int64)
        for number in range(taken.shape[1]):
            rows = np.flatnonzero(lengths[users] > number)
            liked = preferences.at(users[rows], np.full(len(rows), number))
            wish = liked.affinity(np.arange(len(rows))[:, None], facets, items[None, :])
            wish = wish + noise * rng.gumbel(size=wish.shape)
            chosen = np.where(_shown(free[rows], offered, rng), wish, -np.inf).argmax(axis=1)
            taken[rows, number] = chosen
            free[rows, chosen] = False
        choices.extend(row[: lengths[user]] for user, row in zip(users, taken, strict=True))
    return choices


def _shown(free: Mask, offered: float, rng: np.random.Generator) -> Mask:
    """Draw which of the ``free`` items (users, items) are shown: at least one to each user."""
    shown = np.zeros_like(free)
    empty = np.arange(len(free))
    while len(empty):
        shown[empty] = free[empty] & (rng.random((len(empty), free.shape[1])) < offered)
        empty = empty[~shown[empty].any(axis=1)]
    return shown


def choice_log_odds(odds: Floats, asked: Codes, chosen: Codes, offered: float) -> Floats:
    """Return log-odds (asked,) of choosing the items ``asked``, up to a constant, by one user at one moment.

    ``odds`` (items,) are affinity / noise, ``chosen`` the items that the user has already. Where all is shown, the odds
    are what they were. Else a choice is a race of exponential clocks of the rates w = exp(odds) among those shown, and
    P(x) is proportional to the integral over t of w_x exp(-t w_x) prod_y (1 - offered + offered exp(-t w_y)), over the
    y that are neither x nor chosen.
    """
    if offered == 1:
        return np.asarray(odds[asked])
    rate = odds - odds.max()  # logs
    free = np.ones(len(odds), dtype=np.bool_)
    free[chosen] = False
    log_time = np.arange(-np.log(len(odds)) - 16, 4 - rate[asked].min(), _STEP)
    clock = np.exp(log_time[:, None] + rate[None, :])
    unshown = np.log1p(-offered * -np.expm1(-clock))  # (times, items): log probability that the item has not rung
    others = unshown[:, free].sum(axis=1)[:, None] - np.where(free[asked], unshown[:, asked], 0.0)
    terms = log_time[:, None] + rate[asked] - clock[:, asked] + others
    return np.asarray(np.logaddexp.reduce(terms, axis=0))
