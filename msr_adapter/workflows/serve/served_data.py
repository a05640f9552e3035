"""What a server knows of items and users: in memory, found by id or by words."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from msr_adapter import schema
from msr_adapter.arrays import Codes, Rows
from msr_adapter.generation import Image
from msr_adapter.heuristics import has_timestamps
from msr_adapter.prompt_catalogue import ShownImages
from msr_adapter.workflows.recommend.histories import (
    Histories,
    SeenBeside,
    joined_in_order,
    read_events,
    read_histories,
    read_seen,
    sorted_places,
)
from msr_adapter.workflows.recommend.user_shards import read_items
from msr_adapter.workflows.serve.work import Candidate


@dataclass(frozen=True)
class SearchFound:
    """The first places of a search, and how many there are."""

    places: list[int]
    total: int


class ServedItems:
    """The catalogue, by row of ITEMS."""

    def __init__(self, data_dir: Path, histories: Histories) -> None:
        """Read it. Memory: its table, and the words that are searched."""
        self.table: pa.Table = read_items(data_dir)
        """ITEMS with absolute paths of images."""
        self.folder = data_dir
        frame = pl.DataFrame(self.table)
        self.ids, self.titles = frame["item_id"], frame["title"]
        self._shown = ShownImages.read(self.table, Path(), images=True)
        self.categories = frame["category"]
        self.popularity = histories.popularity()
        """Interactions of each item, nothing held out (items,)."""

    def __len__(self) -> int:
        return len(self.ids)

    def places(self, ids: Sequence[str]) -> Rows:
        """Return the row of each id; -1 = no item."""
        return sorted_places(self.ids, pl.Series(ids, dtype=pl.String))

    def image(self, place: int) -> Image | None:
        """Return the image of an item."""
        return next(iter(self.images(place)), None)

    def images(self, place: int) -> tuple[Image, ...]:
        """Return all images of an item, in order."""
        return self._shown.of(place)

    def candidate(self, place: int) -> Candidate:
        """Return what prompts show of an item."""
        first, *more = self.images(place) or (None,)
        return Candidate(self.titles[place], first, place, tuple(image for image in more if image))

    def row(self, place: int) -> dict[str, str | None]:
        """Return a row of ITEMS, its image's path absolute."""
        [row] = self.table.slice(place, 1).to_pylist()
        return dict(row)

    def search(self, words: str, first: int) -> SearchFound:
        """Return the items whose title or id has all ``words``, in any case, the most popular first; O(items)."""
        return _search(self._searched, words, first, self._by_popularity)

    @cached_property
    def _by_popularity(self) -> Codes:
        return np.argsort(-self.popularity, kind="stable")

    @cached_property
    def _searched(self) -> pl.Series:
        """What is searched, most popular item first."""
        text = pl.select((self.titles + "\n" + self.ids).str.to_lowercase()).to_series()
        return text.gather(self._by_popularity)


@dataclass(frozen=True)
class UserHistory:
    """What is known of one user."""

    codes: Codes
    """Rows of ITEMS, oldest first."""
    times: Rows | None
    """Milliseconds of each; None where the log has none."""
    beside: Codes
    """What was seen beside: a filter dropped it."""


NOBODY = UserHistory(np.empty(0, np.int32), None, np.empty(0, np.int32))
"""A user of whom nothing is known."""


class ServedUsers:
    """All users of the log, and those of whom something is only seen."""

    def __init__(self, data_dir: Path, *, keep_repeats: bool) -> None:
        """Read them. Memory: 12 bytes an interaction, and the ids."""
        self.histories = read_histories(data_dir)
        self._keep_repeats = keep_repeats
        seen = schema.read_table(data_dir / "seen.parquet", schema.SEEN, ["user_id"])["user_id"]
        known = pl.Series(self.histories.users, dtype=pl.String)
        self.ids = pl.concat([known, pl.Series(seen.unique(), dtype=pl.String)]).unique().sort()
        """Sorted."""
        ids = self.ids.to_arrow().cast(pa.string())
        self._places = self.histories.places(ids)
        self._beside: SeenBeside = read_seen(data_dir, ids, self.histories.items)
        self._times = _read_times(data_dir)

    def find(self, user_id: str) -> UserHistory | None:
        """Return what is known of a user; None = the user is not in the log."""
        [number] = sorted_places(self.ids, pl.Series([user_id], dtype=pl.String))
        if number < 0:
            return None
        place = self._places[number]
        codes, beside = self.histories.of(place), self._beside.of(number)
        if self._times is None or place < 0:
            return UserHistory(codes, None, beside)
        begin, end = self.histories.offsets[place], self.histories.offsets[place + 1]
        return UserHistory(codes, self._times[begin:end], beside)

    def extended(self, known: UserHistory, codes: Sequence[int], times: Sequence[int] | None) -> UserHistory:
        """Return a history joined by later interactions, as `recommend --interactions` joins them."""
        if not codes:
            return known
        timed = times is not None and (known.times is not None or not len(known.codes))
        old = _frame(known.codes, known.times, is_new=False)
        new = _frame(np.array(codes, np.int32), None if times is None else np.array(times, np.int64), is_new=True)
        joined = joined_in_order(old, new, timed=timed, keep_repeats=self._keep_repeats)
        order: Codes = joined["code"].to_numpy().astype(np.int32)
        return UserHistory(order, joined["timestamp"].to_numpy() if timed else None, known.beside)

    def search(self, words: str, first: int) -> SearchFound:
        """Return the users whose id has all ``words``, in any case, in the order of ids; O(users)."""
        return _search(self._searched, words, first, None)

    @cached_property
    def _searched(self) -> pl.Series:
        return self.ids.str.to_lowercase()


def _read_times(data_dir: Path) -> Rows | None:
    """Return the time of each interaction in the order of the log; None where they are positions."""
    chunks = schema.read_chunks(data_dir / "interactions.parquet", schema.INTERACTIONS)
    times = np.concatenate([np.empty(0, np.int64), *(chunk["timestamp"].to_numpy() for chunk in chunks)])
    if events := read_events(data_dir):
        times = times[~events.rejected]
    return times if has_timestamps(times) else None


def _frame(codes: Codes, times: Rows | None, *, is_new: bool) -> pl.DataFrame:
    moments = np.arange(len(codes)) if times is None else times
    return pl.DataFrame(
        {"user_id": [""] * len(codes), "code": codes, "timestamp": moments, "is_new": [is_new] * len(codes)},
        schema={"user_id": pl.String, "code": pl.Int32, "timestamp": pl.Int64, "is_new": pl.Boolean},
    )


def _search(texts: pl.Series, words: str, first: int, order: Codes | None) -> SearchFound:
    """Return where all ``words`` stand; ``order`` has the place of each text, where they are not in their own."""
    chosen = pl.repeat(True, len(texts), eager=True)
    for word in words.lower().split():
        chosen = chosen & texts.str.contains(word, literal=True)
    found = chosen.arg_true().to_numpy()
    places = found[:first] if order is None else order[found[:first]]
    return SearchFound([int(place) for place in places], len(found))
