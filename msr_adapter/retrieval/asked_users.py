"""For whom candidates are retrieved, from what, and what comes of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np

from msr_adapter.arrays import Codes, Integers, Rows, Vectors
from msr_adapter.config.schema import FusionConfig

_NO_ITEMS = np.empty(0, np.int32)

Query = Literal["", "summary", "history"]
"""What stood for a user in the search by content: the summary, the mean of the history's items, or nothing."""


@dataclass(frozen=True)
class Found:
    """The candidates of one user."""

    items: Codes
    """In the order of retrieval: the model's ties are broken by it."""
    filled_from: int
    """From this place on they are popular items that fill up what the retrieval left short."""
    own: int = 0
    """The first ones that were taken from the user's own history."""
    query: Query = ""
    """What the search by content went by, where there was one."""


@dataclass(frozen=True)
class RetrievalUser:
    """Who candidates are retrieved for."""

    id: str
    history: Codes
    """Rows of ITEMS, oldest first."""
    barred: Codes
    """What is not recommended: of what the user has seen, what must not come again."""
    summary: str = ""
    """The user summary, for a search by content; empty where there is none."""


Retrieve = Callable[[Sequence[RetrievalUser]], list[Found]]
"""Returns the candidates of each user."""


@dataclass(frozen=True)
class KnownLog:
    """What retrievers count in: the items of every user, as rows of ITEMS."""

    offsets: Rows
    """(users + 1,)"""
    codes: Codes
    items: int
    """Size of the catalogue."""
    popularity: Rows | None = None
    """What the interactions of each item weigh (items,); None = 1 each."""

    @cached_property
    def by_popularity(self) -> Codes:
        """The catalogue, most popular first; equally popular items in the order of their ids."""
        counts = np.bincount(self.codes, minlength=self.items) if self.popularity is None else self.popularity
        return np.argsort(-counts, kind="stable").astype(np.int32)

    @cached_property
    def ranks(self) -> Integers:
        """Place of each item in `by_popularity` (items,)."""
        ranks = np.empty(self.items, np.int64)
        ranks[self.by_popularity] = np.arange(self.items)
        return ranks


@dataclass(frozen=True)
class ContentVectors:
    """What a search by content knows."""

    items: Vectors
    """(items, dimension), of length 1; a row of zeros is an item of which nothing could be embedded."""
    summaries: Callable[[Sequence[RetrievalUser]], Vectors]
    """Returns a vector for each user's summary (users, dimension), of length 1; zeros where there is none."""
    users: Literal["summary", "history"] = "summary"
    """What stands for a user who has both."""
    search: Literal["auto", "exact", "faiss"] = "auto"
    """auto: exact up to a million items."""


@dataclass(frozen=True)
class RetrieverInputs:
    """All that a retriever may be made of."""

    log: KnownLog
    content: ContentVectors | None = None
    """None where no retriever in question needs it."""
    fusion: FusionConfig = field(default_factory=FusionConfig)
    again: bool = False
    """Whether users come back to what they had."""


def without(barred: Codes, pool: Codes, count: int) -> Codes:
    """Return the first ``count`` of ``pool`` that are not ``barred``."""
    if not len(barred):
        return pool[:count]
    # No more than what is barred can be in the way.
    front = pool[: count + len(barred)]
    return front[~np.isin(front, barred)][:count]


def filled(user: RetrievalUser, best: Codes, count: int, log: KnownLog, query: Query = "") -> Found:
    """Return ``best`` with the most popular other items that it lacks to ``count``."""
    more = without(np.concatenate([best, user.barred]), log.by_popularity, count)[: count - len(best)]
    return Found(np.concatenate([_NO_ITEMS, best, more]).astype(np.int32), len(best), 0, query)
