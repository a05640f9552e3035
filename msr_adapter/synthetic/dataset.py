"""The synthetic dataset, whole from one seed: items, images, and a log of noisy choices by known preferences."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
from PIL import Image

from msr_adapter.arrays import Codes, Floats, Integers
from msr_adapter.synthetic.choices import PLAIN, ChoiceLog, Shopping, choice_log_odds, choose_in_turn
from msr_adapter.synthetic.drifting_preferences import DriftingPreferences, let_drift
from msr_adapter.synthetic.images import draw_image
from msr_adapter.synthetic.user_preferences import (
    UserPreferences,
    choose,
    sample_preferences,
    with_attribute_tastes,
)
from msr_adapter.synthetic.vocabulary import (
    BRANDS,
    ItemFacets,
    sample_item_facets,
    with_attributes,
    with_second_image,
)

_OPENING_MS = 1_704_067_200_000  # 2024-01-01 UTC
_DAY_MS = 86_400_000
_ATTRIBUTES, _SECOND_IMAGES = 1, 2
"""Streams of their own: what a shop has beside the plain one leaves all else of it as it was drawn."""


@dataclass(frozen=True)
class SyntheticDataset:
    """Items, users and their log. Ids are padded with zeros, so that they sort in the order of the codes."""

    items: pa.Table
    """item_id, title; where items have attributes, also price (in whole cents) and brand."""
    interactions: pa.Table
    """user_id, item_id, timestamp (int64 milliseconds), sorted by user and time; no pair twice."""
    facets: ItemFacets
    preferences: UserPreferences
    """What users like at their first choice; where nothing drifts, at all of them."""
    noise: float
    """Temperature of the choices."""
    seed: int
    shopping: Shopping = PLAIN
    drifting: DriftingPreferences | None = None
    """What users like at each choice; None = as at the first."""

    @cached_property
    def _item_codes(self) -> dict[str, int]:
        return {item: code for code, item in enumerate(self.items["item_id"].to_pylist())}

    @cached_property
    def _user_codes(self) -> dict[str, int]:
        return {user: code for code, user in enumerate(_ids("u", len(self.preferences.motif)))}

    @cached_property
    def _log(self) -> ChoiceLog:
        users = np.array([self._user_codes[user] for user in self.interactions["user_id"].to_pylist()], dtype=np.int64)
        items = np.array([self._item_codes[item] for item in self.interactions["item_id"].to_pylist()], dtype=np.int64)
        times = np.asarray(self.interactions["timestamp"].to_numpy())
        return ChoiceLog(np.searchsorted(users, np.arange(len(self._user_codes) + 1)), items, times)

    def true_preference(
        self, user_ids: Sequence[str], item_ids: Sequence[str], timestamps: Sequence[int] | Integers | None = None
    ) -> Floats:
        """Return the true affinity (pairs,) of users to items at these times; None = at their first choice.

        A time between two choices counts as that of the later one. KeyError on an unknown id.
        """
        users, items = self._codes(user_ids, item_ids)
        if self.drifting is None or timestamps is None:
            return self.preferences.affinity(users, self.facets, items)
        liked = self.drifting.at(users, self._log.numbers(users, np.asarray(timestamps)))
        return liked.affinity(np.arange(len(users)), self.facets, items)

    def choice_log_odds(
        self, user_ids: Sequence[str], item_ids: Sequence[str], timestamps: Sequence[int] | Integers | None = None
    ) -> Floats:
        """Return log-odds (pairs,) of choosing the items at these times (None = first of all).

        They are known up to a constant per user and time: what the oracle knows. Without noise, the affinity stands for
        them: it has the same order. KeyError on an unknown id.
        """
        odds = self.true_preference(user_ids, item_ids, timestamps) / (self.noise or 1.0)
        if self.drifting is None or self.shopping.offered == 1 or not self.noise:
            return odds
        users, asked = self._codes(user_ids, item_ids)
        numbers = np.zeros_like(users) if timestamps is None else self._log.numbers(users, np.asarray(timestamps))
        _, moment_of = np.unique(users * (int(numbers.max()) + 1) + numbers, return_inverse=True)
        everything = np.arange(len(self.facets.titles))
        for pairs in np.split(np.argsort(moment_of), np.cumsum(np.bincount(moment_of))[:-1]):
            user, number = users[pairs[:1]], numbers[pairs[:1]]
            every = self.drifting.at(user, number).affinity(np.array(0), self.facets, everything) / self.noise
            chosen = self._log.before(int(user[0]), int(number[0]))
            odds[pairs] = choice_log_odds(every, asked[pairs], chosen, self.shopping.offered)
        return odds

    def _codes(self, user_ids: Sequence[str], item_ids: Sequence[str]) -> tuple[Codes, Codes]:
        users = np.array([self._user_codes[user] for user in user_ids], dtype=np.int64)
        return users, np.array([self._item_codes[item] for item in item_ids], dtype=np.int64)

    def draw(self, item_id: str) -> Image.Image:
        """Draw the item's image, 56 x 56 RGB, the same each time. KeyError on an unknown id."""
        code, facets = self._item_codes[item_id], self.facets
        shown = int(facets.motif[code]), int(facets.colour[code]), int(facets.pattern[code])
        # A stream for each item: an image does not depend on which others are drawn, nor in which order.
        return draw_image(*shown, np.random.default_rng([self.seed, code]))

    def draw_all(self, item_id: str) -> tuple[Image.Image, ...]:
        """Draw all images of the item, one or two, the first as `draw` does. KeyError on an unknown id."""
        code, facets = self._item_codes[item_id], self.facets
        if facets.second_motif is None or facets.second_colour is None:
            return (self.draw(item_id),)
        shown = int(facets.second_motif[code]), int(facets.second_colour[code]), int(facets.pattern[code])
        return self.draw(item_id), draw_image(*shown, np.random.default_rng([self.seed, code, _SECOND_IMAGES]))

    def describe(self, item_id: str) -> str:
        """Return what the item's image truly shows. KeyError on an unknown id."""
        return self.facets.describe(self._item_codes[item_id])


def generate(
    users: int, items: int, interactions_per_user: int, noise: float, seed: int, shopping: Shopping = PLAIN
) -> SyntheticDataset:
    """Generate a dataset; ``noise`` is the temperature of the choices, logs vary by a quarter around the mean length.

    Raises ValueError when a log would be longer than the catalogue. O(users x item log items) time where tastes stay
    and all is shown, O(users x choices x items) else.
    """
    spread = interactions_per_user // 4
    if interactions_per_user + spread > items:
        raise ValueError(f"logs of up to {interactions_per_user + spread} different items need more than {items} items")
    rng = np.random.default_rng(seed)
    facets = sample_item_facets(items, rng)
    preferences = sample_preferences(users, items, rng)
    if shopping.attributes:
        apart = np.random.default_rng([seed, 0, _ATTRIBUTES])
        facets, preferences = with_attributes(facets, apart), with_attribute_tastes(preferences, apart)
    if shopping.second_image:
        facets = with_second_image(facets, np.random.default_rng([seed, 0, _SECOND_IMAGES]))
    lengths = rng.integers(interactions_per_user - spread, interactions_per_user + spread + 1, size=users)
    drifting = None
    if shopping.is_plain:
        choices = choose(preferences, facets, lengths, noise, rng)
    else:
        drifting = let_drift(preferences, int(lengths.max()), shopping.drift, rng)
        choices = choose_in_turn(drifting, facets, lengths, noise, shopping.offered, rng)
    item_ids = _ids("i", items)
    table = pa.table({"item_id": item_ids, "title": list(facets.titles), **_attributes(facets)})
    return SyntheticDataset(table, _log(choices, item_ids, rng), facets, preferences, noise, seed, shopping, drifting)


def write_dataset(dataset: SyntheticDataset, folder: Path) -> None:
    """Write ``interactions.csv``, ``items.csv`` and ``images/{item_id}.png``, the way people bring their own data.

    A second image is ``images/{item_id}_2.png``.
    """
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    pa_csv.write_csv(dataset.interactions, folder / "interactions.csv")
    pa_csv.write_csv(dataset.items, folder / "items.csv")
    for item in dataset.items["item_id"].to_pylist():
        first, *more = dataset.draw_all(item)
        first.save(images / f"{item}.png")
        for number, image in enumerate(more, 2):
            image.save(images / f"{item}_{number}.png")


def _attributes(facets: ItemFacets) -> dict[str, Any]:
    if facets.brand is None or facets.price is None:
        return {}
    return {"price": facets.price, "brand": [BRANDS[code] for code in facets.brand.tolist()]}


def _log(choices: list[Codes], item_ids: list[str], rng: np.random.Generator) -> pa.Table:
    """Give every choice a time: users arrive over a month and come back about once a day."""
    user_ids = _ids("u", len(choices))
    lengths = [len(row) for row in choices]
    # At least a millisecond: no two choices of a user have the same time.
    gaps = [1 + rng.exponential(_DAY_MS, size=n).astype(np.int64) for n in lengths]
    arrivals = _OPENING_MS + rng.integers(0, 30 * _DAY_MS, size=len(choices))
    times = [arrival + np.cumsum(gap) for arrival, gap in zip(arrivals, gaps, strict=True)]
    return pa.table(
        {
            "user_id": [user for user, n in zip(user_ids, lengths, strict=True) for _ in range(n)],
            "item_id": [item_ids[code] for row in choices for code in row],
            "timestamp": np.concatenate(times),
        }
    )


def _ids(prefix: str, count: int) -> list[str]:
    width = len(str(count))
    return [f"{prefix}{number:0{width}d}" for number in range(1, count + 1)]
