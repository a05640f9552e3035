"""What a log says of how it should be used: how many rows a core keeps, ratings, words for events, images."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from msr_adapter.arrays import Codes
from msr_adapter.config.schema import DataConfig, FileFormatConfig, KCoreConfig
from msr_adapter.data.audit.recognition import Recognition
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.filters import k_core
from msr_adapter.data.images.decode import ImageError
from msr_adapter.data.images.locate import FindImage, image_finder, image_name, is_url
from msr_adapter.data.interaction_log import encode
from msr_adapter.data.readers.column_names import candidates, canonical
from msr_adapter.data.readers.sources import read
from msr_adapter.data.readers.table_layout import table_at
from msr_adapter.data.readers.table_scan import collect, scan

_EVENT_NAMES = {"event", "eventtype", "eventname", "action", "actiontype", "behavior", "behaviour", "behaviortype",
                "behaviourtype", "interactiontype", "activity"}  # fmt: skip
_SESSION_NAMES = {"session", "sessionid", "usersession", "usersessionid", "sessionkey", "gasessionid", "visitid"}
_MOST_EVENTS = 20
"""More values than that are no words for events."""
_CORES = (3, 2, 1)
"""Minimum degrees that are tried."""


@dataclass(frozen=True)
class LogFacts:
    """Counts of a log, before any filter."""

    rows: int
    users: int
    items: int
    kept: Mapping[int, int]
    """Minimum degree of users and items -> rows that its core keeps."""
    unseen: Mapping[int, int]
    """Minimum degree -> items of its core that are new to every user: as many negatives can be drawn for all."""
    rating: tuple[str, float, float] | None = None
    """A column of ratings that is not read, its lowest and its highest value."""
    events: tuple[str, Mapping[str, int]] | None = None
    """A column that says what happened, and how often each word stands in it."""
    session: str | None = None
    """A column of sessions that is not read."""
    split: bool = False
    """Whether the log says who is trained and tested on."""
    images: int = 0
    """Items with an image in the folder, or by their column."""
    urls: int = 0
    """Items whose column of images holds a URL."""
    titles: bool = False
    """Whether a table of items is there."""

    @property
    def core(self) -> int:
        """The highest minimum degree that keeps at least half of the rows; 1 where none does."""
        return next((core for core in _CORES if 2 * self.kept[core] >= self.rows), 1)


def log_facts(data: DataConfig, recognised: list[Recognition]) -> LogFacts:
    """Read a log and its items. O(rows) time; 16 bytes a row."""
    audit = Audit()
    corpus = read(data.source, 0, audit)
    split = "split" in corpus.interactions.collect_schema().names()
    log = encode(corpus, audit)
    cores = {core: k_core(log.user, log.item, KCoreConfig(users=core, items=core)) for core in _CORES}
    unseen = {core: _unseen(log.user[rows], log.item[rows]) for core, rows in cores.items()}
    images = urls = 0
    if corpus.items is not None and "image" in corpus.items.columns:
        named = [image_name(value) for value in corpus.items["image"].to_list()]
        urls = sum(isinstance(value, str) and is_url(value) for value in named)
    if data.images.folder is not None or urls < len(log.items):
        ids = log.items.to_list()
        find = image_finder(ids, corpus, data.images)
        images = sum(_has(find, item) for item in ids)
    rating, events = _unread(data, recognised)
    kept = {core: int(rows.sum()) for core, rows in cores.items()}
    return LogFacts(len(log.user), len(log.users), len(log.items), kept, unseen, rating, events,
                    _unread_session(data, recognised), split, images, urls, corpus.items is not None)  # fmt: skip


def _unseen(user: Codes, item: Codes) -> int:
    return len(np.unique(item)) - int(np.bincount(user).max()) if len(user) else 0


def _has(find: FindImage, item: str) -> bool:
    try:
        find(item)
    except ImageError:
        return False
    return True


def _unread_session(data: DataConfig, recognised: list[Recognition]) -> str | None:
    """Return the column of the log that is called like a session and is not read, of logs whose columns are named."""
    unused = next((one.unused for one in recognised if "user" in one.columns), ())
    named = (name for name in unused if canonical(name) in _SESSION_NAMES)
    return next(named, None) if hasattr(data.source, "columns") else None


def _unread(
    data: DataConfig, recognised: list[Recognition]
) -> tuple[tuple[str, float, float] | None, tuple[str, Mapping[str, int]] | None]:
    """Return what columns that are not read say of ratings and events; of logs whose columns are found by name."""
    path = getattr(data.source, "interactions", None)
    log = next((one for one in recognised if "user" in one.columns), None)
    if not isinstance(path, Path) or log is None or not hasattr(data.source, "columns"):
        return None, None
    said = FileFormatConfig(**{key: getattr(data.source, key) for key in FileFormatConfig.model_fields
                               if hasattr(data.source, key)})  # fmt: skip
    ratings = candidates(log.unused, "rating")[:1]
    events = [name for name in log.unused if canonical(name) in _EVENT_NAMES][:1]
    if not ratings and not events:
        return None, None
    table = table_at(path, said)
    frame = collect(table, scan(table, [*ratings, *events]).select(*ratings, *events))
    rating = None
    for name in ratings:
        values = frame[name].cast(pl.String, strict=False).str.strip_chars().cast(pl.Float64, strict=False).drop_nulls()
        if values.n_unique() > 1:
            low, high = (float(one) for one in (values.min(), values.max()) if isinstance(one, float))
            rating = (name, low, high)
    for name in events:
        counts = frame[name].cast(pl.String, strict=False).drop_nulls().value_counts(sort=True)
        if 1 < counts.height <= _MOST_EVENTS:
            return rating, (name, dict(counts.rows()))
    return rating, None
