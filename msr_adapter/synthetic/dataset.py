"""A whole shop from one seed: items, covers, and a log of noisy choices by known tastes."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
from PIL import Image

from msr_adapter.arrays import Codes, Floats
from msr_adapter.synthetic.images import draw_image
from msr_adapter.synthetic.user_tastes import Tastes, choose, sample_tastes
from msr_adapter.synthetic.vocabulary import Goods, sample_goods

_OPENING_MS = 1_704_067_200_000  # 2024-01-01 UTC
_DAY_MS = 86_400_000


@dataclass(frozen=True)
class SyntheticDataset:
    """A generated shop. Items and users are known by zero-padded ids: the order of ids is the order of codes."""

    items: pa.Table
    """item_id, title."""
    interactions: pa.Table
    """user_id, item_id, timestamp (int64 milliseconds), sorted by user and time; no pair twice."""
    goods: Goods
    tastes: Tastes
    seed: int

    @cached_property
    def _item_codes(self) -> dict[str, int]:
        return {item: code for code, item in enumerate(self.items["item_id"].to_pylist())}

    @cached_property
    def _user_codes(self) -> dict[str, int]:
        return {user: code for code, user in enumerate(_ids("u", len(self.tastes.motif)))}

    def taste(self, user_ids: Sequence[str], item_ids: Sequence[str]) -> Floats:
        """Return the true affinity of each (user, item) pair: the oracle's score. KeyError on an unknown id."""
        users = np.array([self._user_codes[user] for user in user_ids], dtype=np.int64)
        items = np.array([self._item_codes[item] for item in item_ids], dtype=np.int64)
        return self.tastes.affinity(users, self.goods, items)

    def draw(self, item_id: str) -> Image.Image:
        """Draw the item's cover, 56x56 RGB; the same picture each time. KeyError on an unknown id."""
        code, goods = self._item_codes[item_id], self.goods
        facets = int(goods.motif[code]), int(goods.colour[code]), int(goods.pattern[code])
        return draw_image(*facets, np.random.default_rng([self.seed, code]))

    def describe(self, item_id: str) -> str:
        """Return what the item's cover truly shows. KeyError on an unknown id."""
        return self.goods.describe(self._item_codes[item_id])


def generate(users: int, items: int, interactions_per_user: int, noise: float, seed: int) -> SyntheticDataset:
    """Generate a shop; ``noise`` is the temperature of the choices, logs vary by a quarter around the mean length.

    Raises ValueError when a log would be longer than the catalogue. O(users x items log items) time.
    """
    spread = interactions_per_user // 4
    if interactions_per_user + spread > items:
        raise ValueError(f"logs of up to {interactions_per_user + spread} different items need more than {items} items")
    rng = np.random.default_rng(seed)
    goods = sample_goods(items, rng)
    tastes = sample_tastes(users, items, rng)
    lengths = rng.integers(interactions_per_user - spread, interactions_per_user + spread + 1, size=users)
    choices = choose(tastes, goods, lengths, noise, rng)
    item_ids = _ids("i", items)
    table = pa.table({"item_id": item_ids, "title": list(goods.titles)})
    return SyntheticDataset(table, _log(choices, item_ids, rng), goods, tastes, seed)


def _log(choices: list[Codes], item_ids: list[str], rng: np.random.Generator) -> pa.Table:
    """Give every choice a time: users arrive over a month and come back about once a day."""
    user_ids = _ids("u", len(choices))
    lengths = [len(row) for row in choices]
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
