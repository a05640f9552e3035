"""Users' true preferences and their noisy choices."""

from dataclasses import dataclass, replace

import numpy as np

from msr_adapter.arrays import Codes, Floats
from msr_adapter.synthetic.vocabulary import BRANDS, COLOURS, GENRES, MOTIFS, PRICE_BANDS, ItemFacets

MOTIF_WEIGHTS = (6.5, 5.5)
COLOUR_WEIGHTS = (2.0, 1.5)
GENRE_WEIGHTS = (5.5, 4.5)
BRAND_WEIGHTS = (5.5, 4.5)
PRICE_WEIGHTS = (4.0,)
"""Of the favourites in each facet, the first (and the second); the other words have none."""
_APPEAL = 0.8
"""Standard deviation of an item's appeal to all users: it makes popularity a weak but real predictor."""

_BLOCK = 1024


@dataclass(frozen=True)
class UserPreferences:
    """What each user likes: (users, words) weights per facet, and an appeal per item."""

    motif: Floats
    colour: Floats
    genre: Floats
    appeal: Floats
    brand: Floats | None = None
    """None = items have no brand; so the price."""
    price: Floats | None = None

    def affinity(self, users: Codes, facets: ItemFacets, items: Codes) -> Floats:
        """Return the true affinity of users to items; the two code arrays broadcast against each other."""
        seen = self.motif[users, facets.motif[items]] + self.colour[users, facets.colour[items]]
        liked = seen + self.genre[users, facets.genre[items]] + self.appeal[items]
        if self.brand is not None and self.price is not None and facets.brand is not None:
            assert facets.price_band is not None
            liked = liked + self.brand[users, facets.brand[items]] + self.price[users, facets.price_band[items]]
        if facets.second_motif is not None and facets.second_colour is not None:
            # What is liked is liked in either image.
            second = self.motif[users, facets.second_motif[items]] + self.colour[users, facets.second_colour[items]]
            liked = liked + second
        return np.asarray(liked, dtype=np.float64)

    def of(self, users: Codes) -> "UserPreferences":
        """Return the preferences of ``users`` (n,), a row for each."""
        brand, price = (None if table is None else table[users] for table in (self.brand, self.price))
        return UserPreferences(self.motif[users], self.colour[users], self.genre[users], self.appeal, brand, price)


def sample_preferences(users: int, items: int, rng: np.random.Generator) -> UserPreferences:
    """Give each user two favourite motifs, colours and genres, the first liked better than the second."""
    return UserPreferences(
        motif=_favourites(users, len(MOTIFS), MOTIF_WEIGHTS, rng),
        colour=_favourites(users, len(COLOURS), COLOUR_WEIGHTS, rng),
        genre=_favourites(users, len(GENRES), GENRE_WEIGHTS, rng),
        appeal=rng.normal(scale=_APPEAL, size=items),
    )


def with_attribute_tastes(preferences: UserPreferences, rng: np.random.Generator) -> UserPreferences:
    """Give each user two favourite brands and a band of prices that they keep to."""
    users = len(preferences.motif)
    brand = _favourites(users, len(BRANDS), BRAND_WEIGHTS, rng)
    return replace(preferences, brand=brand, price=_favourites(users, len(PRICE_BANDS), PRICE_WEIGHTS, rng))


def _favourites(users: int, words: int, weights: tuple[float, ...], rng: np.random.Generator) -> Floats:
    # Each row is a random permutation: the words of the first ranks get the weights, the others none.
    ranks = np.argsort(rng.random((users, words)), axis=1)
    padded = np.zeros(words)
    padded[: len(weights)] = weights
    return padded[ranks]


def weights_of(favourites: Codes, words: int, weights: tuple[float, ...]) -> Floats:
    """Return weights (n, words): those of ``weights`` for the ``favourites`` (n, ranks), 0 for all other words."""
    table = np.zeros((len(favourites), words))
    np.put_along_axis(table, favourites.astype(np.int64), np.array(weights), axis=1)
    return table


def choose(
    preferences: UserPreferences, facets: ItemFacets, lengths: Codes, noise: float, rng: np.random.Generator
) -> list[Codes]:
    """Return each user's choices in order, ``lengths[u]`` different items each, where tastes stay and all is shown.

    One choice after another by softmax(affinity / noise) over what is not chosen yet, drawn for all at once by the
    Gumbel top-k trick (Kool et al., 2019): sort affinity + noise x Gumbel. O(users x items log items).
    """
    items = np.arange(len(facets.titles))
    choices: list[Codes] = []
    for start in range(0, len(lengths), _BLOCK):
        users = np.arange(start, min(start + _BLOCK, len(lengths)))
        affinity = preferences.affinity(users[:, None], facets, items[None, :])
        order = np.argsort(-(affinity + noise * rng.gumbel(size=affinity.shape)), axis=1, kind="stable")
        choices.extend(row[: lengths[user]] for user, row in zip(users, order, strict=True))
    return choices
