"""Ids, titles and images of all items, as prompts show them, and what templates call `item`, `user` and `recent`."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from msr_adapter import schema
from msr_adapter.arrays import Codes
from msr_adapter.generation.request import Image
from msr_adapter.item_images import IMAGE_COLUMNS
from msr_adapter.prompts import HistoryItem, Prompts
from msr_adapter.prompts.stage_tables import ItemTable, UserTable
from msr_adapter.prompts.variables import placeholders


class ShownImages:
    """The images of items, by place. Memory: two texts an image."""

    def __init__(self, files: pl.Series, digests: pl.Series, folder: Path) -> None:
        self.files = files
        """Of each item, its files in order, relative to ``folder``: lists, which may be empty."""
        self.folder = folder
        self._digests = digests
        self._known: dict[int, tuple[Image, ...]] = {}

    @cached_property
    def numbers(self) -> Codes:
        """How many images each item has, (items,)."""
        found: Codes = self.files.list.len().cast(pl.Int64).to_numpy()
        return found

    def take(self, places: Codes) -> "ShownImages":
        """Return the images of the items at ``places``."""
        return ShownImages(self.files.gather(places), self._digests.gather(places), self.folder)

    def of(self, place: int) -> tuple[Image, ...]:
        """Return the images of an item; its paths start with the folder."""
        if place not in self._known:
            files, digests = self.files[place], self._digests[place]
            self._known[place] = tuple(
                Image(self.folder / file, digest) for file, digest in zip(files, digests, strict=True)
            )
        return self._known[place]

    @classmethod
    def read(cls, items: pa.Table, folder: Path, *, images: bool) -> "ShownImages":
        """Return those of ITEMS, of which `IMAGE_COLUMNS` are read; without ``images``, none has one."""
        frame = pl.DataFrame(items.select(list(IMAGE_COLUMNS)))
        if not images:
            frame = frame.clear(len(frame))  # polars: that many nulls
        columns = []
        several = frame["more_images"].null_count() < len(frame)
        nothing = pl.lit([], pl.List(pl.String))
        for first, name in (("image", "path"), ("image_digest", "digest")):
            one = pl.when(pl.col(first).is_null()).then(nothing).otherwise(pl.concat_list(pl.col(first)))
            rest = pl.col("more_images").list.eval(pl.element().struct.field(name)).fill_null(nothing)
            columns.append(frame.select(one.list.concat(rest) if several else one).to_series())
        return cls(columns[0], columns[1], folder)


class PromptCatalogue:
    """Ids, titles and images of all items, as prompts show them."""

    def __init__(self, data_dir: Path, *, images: bool, items_dir: Path | None = None) -> None:
        """Read ITEMS; without ``images``, none has one. ``items_dir`` has the item summaries that templates may say."""
        self.data_dir = data_dir
        """Folder that the paths of images are relative to."""
        self._items_dir = items_dir
        self._items: ItemTable | None = None
        self._users: UserTable | None = None
        items = schema.read_table(data_dir / "items.parquet", schema.ITEMS, ["item_id", "title", *IMAGE_COLUMNS])
        self.ids: pa.ChunkedArray = items["item_id"]
        self._columns = [as_series(items[name]) for name in ("item_id", "title")]
        self.images = ShownImages.read(items, data_dir, images=images)
        """Those of all items."""

    def items(self, prompts: Prompts) -> ItemTable:
        """Return what the question's template calls `item`, by row of ITEMS; read once."""
        if self._items is None:
            used, summaries = prompts.fields("recommend"), None
            if self._items_dir is not None and used.has("summary"):
                table = schema.read_table(self._items_dir / "items.parquet", schema.ITEM_SUMMARIES)
                summaries = dict(zip(table["item_id"].to_pylist(), table["summary"].to_pylist(), strict=True))
            self._items = ItemTable(self.data_dir, used, summaries)
        return self._items

    def users(self, prompts: Prompts) -> UserTable:
        """Return what the question's template calls `user`, by id; read once."""
        if self._users is None:
            self._users = UserTable(self.data_dir, prompts.fields("recommend"))
        return self._users

    def latest(self, examples: Codes, number: int) -> list[Codes]:
        """Return the latest ``number`` items of each example's history, oldest first; ``examples`` are ascending."""
        bounds = (int(examples.min()), int(examples.max())) if len(examples) else (0, -1)
        path = self.data_dir / "examples.parquet"
        table = schema.read_between(path, schema.EXAMPLES, "example_id", *bounds)
        mine = pc.index_in(pa.array(examples), value_set=table["example_id"].combine_chunks())
        lists = as_series(table["history"]).gather(pl.Series(mine)).list.tail(number)
        found = pc.index_in(lists.explode().drop_nulls().to_arrow().cast(pa.string()),
                            value_set=self.ids.combine_chunks())  # fmt: skip
        ends = np.cumsum(lists.list.len().to_numpy())
        return np.split(found.to_numpy(zero_copy_only=False).astype(np.int64), ends[:-1]) if len(ends) else []

    def take(self, places: Codes) -> list[pl.Series]:
        """Return ids and titles of the items at ``places``."""
        return [column.gather(places) for column in self._columns]


@dataclass(frozen=True)
class PromptUsers:
    """Whose summaries are shown, where no table of examples says it."""

    ids: Sequence[str]
    """Their attributes are looked up; unknown users have none."""
    histories: Sequence[Codes] | None = None
    """Of each, rows of ITEMS, oldest first."""


@dataclass(frozen=True)
class RecentHistory:
    """The latest items of some users' histories, as places in the catalogue, and their images."""

    catalogue: PromptCatalogue
    prompts: Prompts
    places: Sequence[Codes]
    """Of each user, oldest first."""

    def items(self, user: int) -> list[HistoryItem]:
        """Return what templates call `recent`, of one user."""
        table, numbers = self.catalogue.items(self.prompts), self.catalogue.images.numbers
        return [table.at(int(place)).showing(placeholders(int(numbers[place]))) for place in self.places[user]]

    @cached_property
    def numbers(self) -> Codes:
        """How many images those of each user have, (users,)."""
        numbers = self.catalogue.images.numbers
        return np.array([int(numbers[places].sum()) for places in self.places], np.int64)

    def images(self, user: int) -> tuple[Image, ...]:
        """Return the images of one user's latest items, in the order of the prompt."""
        return tuple(image for place in self.places[user] for image in self.catalogue.images.of(int(place)))

    def files(self, user: int) -> list[str]:
        """Return the same as files relative to the data stage's folder."""
        return [file for place in self.places[user] for file in self.catalogue.images.files[int(place)]]


def user_summaries_of(users_dir: Path, kept: Codes) -> pl.Series:
    """Return the user summary of each example of ``kept``; null = none."""
    bounds = (int(kept.min()), int(kept.max())) if len(kept) else (0, -1)
    table = schema.read_between(users_dir / "users.parquet", schema.USER_SUMMARIES, "example_id", *bounds)
    place = pc.index_in(pa.array(kept), value_set=table["example_id"].combine_chunks())
    return as_series(table["summary"]).gather(pl.Series(place))


def as_series(column: pa.ChunkedArray) -> pl.Series:
    """Return a column as Polars has it."""
    series = pl.from_arrow(column)
    assert isinstance(series, pl.Series)
    return series
