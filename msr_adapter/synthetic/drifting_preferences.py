"""Preferences that drift along a user's log: between two choices, favourites give way to others."""

from dataclasses import dataclass, replace

import numpy as np

from msr_adapter.arrays import Codes
from msr_adapter.synthetic.user_preferences import (
    COLOUR_WEIGHTS,
    GENRE_WEIGHTS,
    MOTIF_WEIGHTS,
    UserPreferences,
    weights_of,
)
from msr_adapter.synthetic.vocabulary import COLOURS, GENRES, MOTIFS

_FACETS = (("motif", MOTIFS, MOTIF_WEIGHTS), ("colour", COLOURS, COLOUR_WEIGHTS), ("genre", GENRES, GENRE_WEIGHTS))


@dataclass(frozen=True)
class DriftingPreferences:
    """The two favourites of each user in each facet, the first liked better, at each choice of a log.

    Brands and prices stay what they are.
    """

    start: UserPreferences
    """What users like at their first choice."""
    favourites: dict[str, Codes]
    """Facet -> (choices, users, 2)."""

    def at(self, users: Codes, choices: Codes) -> UserPreferences:
        """Return what ``users`` (n,) like at the choices of these numbers (n,), 0 = a log's first; a row for each."""
        motif, colour, genre = (
            weights_of(self.favourites[name][choices, users], len(words), weights) for name, words, weights in _FACETS
        )
        return replace(self.start.of(users), motif=motif, colour=colour, genre=genre)


def let_drift(start: UserPreferences, choices: int, drift: float, rng: np.random.Generator) -> DriftingPreferences:
    """Let each facet's favourites change with probability ``drift`` before each of ``choices`` choices but the first.

    A change brings a word that was no favourite; it becomes the first, what was the first becomes the second, and what
    was the second is a favourite no more.
    """
    favourites: dict[str, Codes] = {}
    for name, words, _ in _FACETS:
        steps = [np.argsort(-getattr(start, name), axis=1, kind="stable")[:, :2].astype(np.int8)]
        for _ in range(choices - 1):
            changed = rng.random(len(steps[-1])) < drift
            arrived = _other_word(steps[-1], len(words), rng)
            steps.append(np.where(changed[:, None], np.stack([arrived, steps[-1][:, 0]], axis=1), steps[-1]))
        favourites[name] = np.stack(steps)
    return DriftingPreferences(start, favourites)


def _other_word(pairs: Codes, words: int, rng: np.random.Generator) -> Codes:
    """Return a word (n,) for each of ``pairs`` (n, 2) that is in none of its places, all equally probable."""
    low, high = pairs.min(axis=1), pairs.max(axis=1)
    word = rng.integers(words - 2, size=len(pairs)).astype(pairs.dtype)
    word = word + (word >= low)
    return np.asarray(word + (word >= high), dtype=pairs.dtype)
