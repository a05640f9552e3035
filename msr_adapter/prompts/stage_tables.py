"""What the tables of the stages say of items and users, as templates see it: only the fields that a template looks at.

A field that no template looks at is not read, so that requests that would be equal without it are equal.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from msr_adapter import schema
from msr_adapter.event_schemas import EVENT_WORDS, HISTORY_EVENTS
from msr_adapter.prompts.attributes import NOBODY, Attributes, UsedFields, UserFields, as_value
from msr_adapter.prompts.variables import HistoryItem

ATTRIBUTE_FILES = {"item": "item_attributes.parquet", "user": "user_attributes.parquet"}
"""Item or user -> the table of its attributes, in the data stage's folder; absent where none is configured."""


class ItemTable:
    """All items of a run, each as `HistoryItem`, made when it is asked for. Memory: the columns that are looked at."""

    def __init__(self, data_dir: Path, used: UsedFields, summaries: Mapping[str, str] | None = None) -> None:
        """Read what ``used`` wants of ITEMS and of the attributes; ``summaries`` are those of item ids."""
        more = [name for name in ("text", "category") if used.has(name)]
        items = schema.read_table(data_dir / "items.parquet", schema.ITEMS, ["item_id", "title", *more])
        self._ids: list[str] = items["item_id"].to_pylist()
        self._titles: list[str] = items["title"].to_pylist()
        self._texts = items["text"].to_pylist() if "text" in more else None
        self._categories = items["category"].to_pylist() if "category" in more else None
        self._attributes = _Columns(data_dir, "item", used)
        self._summaries = summaries if summaries is not None and used.has("summary") else {}
        self._places: dict[str, int] | None = None

    def of(self, item_id: str, summary: str | None = None) -> HistoryItem:
        """Return an item, with this ``summary`` if it is given. KeyError for one that is not of the catalogue."""
        if self._places is None:
            self._places = {item: place for place, item in enumerate(self._ids)}
        return self.at(self._places[item_id], summary)

    def at(self, place: int, summary: str | None = None) -> HistoryItem:
        """Return the item at a row of ITEMS."""
        item = self._ids[place]
        return HistoryItem(
            self._titles[place],
            self._summaries.get(item, "") if summary is None else summary,
            self._texts[place] if self._texts else "",
            (self._categories[place] or "") if self._categories else "",
            self._attributes.of(item),
        )

    def unknown(self, title: str) -> HistoryItem:
        """Return an item of no catalogue: its attributes are missing."""
        return HistoryItem(title, attributes=self._attributes.none)


def words_of_events(data_dir: Path) -> list[str] | None:
    """Return what templates call each event, by its number; None where the source has no events."""
    path = data_dir / "event_words.parquet"
    return schema.read_table(path, EVENT_WORDS)["said"].to_pylist() if path.is_file() else None


def with_events(examples: pa.Table, folder: Path, used: UsedFields) -> pa.Table:
    """Return rows of the EXAMPLES in ``folder`` with the column `events`, numbers of what was done with each item.

    Without that column where no template says it, or the source has no events.
    """
    path = folder / "history_events.parquet"
    if not used.has("event") or not path.is_file():
        return examples
    table = schema.read_table(path, HISTORY_EVENTS, ["example_id", "history"])
    place = pc.index_in(examples["example_id"], value_set=table["example_id"].combine_chunks())
    return examples.append_column("events", table["history"].take(place))


def looks_further(used: UsedFields, data_dir: Path) -> bool:
    """Tell whether templates look at more of items and users than titles and summaries."""
    if used.user or used.has("text") or used.has("category"):
        return True
    path = data_dir / ATTRIBUTE_FILES["item"]
    return path.is_file() and bool(used.among(pq.read_schema(path).names[1:]))


class UserTable:
    """All users of a run that have attributes, each as `UserFields`."""

    def __init__(self, data_dir: Path, used: UsedFields) -> None:
        """Read the attributes that ``used`` wants; nothing where templates do not say `user`."""
        self._attributes = _Columns(data_dir, "user", used) if used.user else None

    @property
    def is_empty(self) -> bool:
        """Whether no user has anything to say."""
        return self._attributes is None or not self._attributes.names

    @property
    def somebody(self) -> str:
        """The id of a user who is in the table; empty where nobody is."""
        return next(iter(self._attributes.ids), "") if self._attributes else ""

    def of(self, user_id: str) -> UserFields:
        """Return a user; one that is not in the table has no values."""
        if self._attributes is None or self.is_empty:
            return NOBODY
        return UserFields(self._attributes.of(user_id))


class _Columns:
    """Columns of one table of attributes, by id."""

    def __init__(self, data_dir: Path, owner: str, used: UsedFields) -> None:
        path = data_dir / ATTRIBUTE_FILES[owner]
        self.names: tuple[str, ...] = ()
        self._values: list[list[Any]] = []
        self._places: dict[str, int] = {}
        if path.is_file():
            self.names = used.among(pq.read_schema(path).names[1:])
            table = pq.read_table(path, columns=[f"{owner}_id", *self.names])
            self._places = {one: place for place, one in enumerate(table[0].to_pylist())}
            self._values = [[as_value(value) for value in table[name].to_pylist()] for name in self.names]
        self.none: Attributes = tuple((name, None) for name in self.names)
        """Those of one that the table lacks."""

    @property
    def ids(self) -> Iterable[str]:
        """Who or what is in the table."""
        return self._places

    def of(self, owner: str) -> Attributes:
        """Return the attributes of an item or user; all missing for one that the table lacks."""
        place = self._places.get(owner)
        if place is None:
            return self.none
        return tuple((name, values[place]) for name, values in zip(self.names, self._values, strict=True))


def users_of_examples(data_dir: Path, examples: Iterable[int]) -> list[str]:
    """Return the user of each of the ``examples``, by their ids."""
    table = schema.read_table(data_dir / "examples.parquet", schema.EXAMPLES, ["example_id", "user_id"])
    place = pc.index_in(pa.array(examples, pa.int64()), value_set=table["example_id"].combine_chunks())
    users: list[str] = table["user_id"].take(place).to_pylist()
    return users


def copy_attributes(data_dir: Path, folder: Path, items: Sequence[str], users: Sequence[str]) -> None:
    """Write the attributes of some items and users into another folder that stands in for the data stage's."""
    for owner, ids in (("item", items), ("user", users)):
        path = data_dir / ATTRIBUTE_FILES[owner]
        if path.is_file():
            table = pl.scan_parquet(path, glob=False).filter(pl.col(f"{owner}_id").is_in(list(ids)))
            pq.write_table(table.collect().to_arrow(), folder / path.name)
