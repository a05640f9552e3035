"""What a reader is: it is handed the config of its kind and a context, and returns a corpus."""

from dataclasses import dataclass
from typing import Any, Protocol

import polars as pl

from msr_adapter.data.audit.report import Audit
from msr_adapter.data.readers.events import EventWords
from msr_adapter.synthetic import SyntheticDataset

FILTERED = ("low_rating", "no_time", "not_clicked", "other_event")
"""Why a row is left out: rated (or watched) too little, without a time; it is no interaction at all, but says that the
item was shown and not clicked; or it is of an event that is merely seen."""
NOT_CLICKED = FILTERED.index("not_clicked")


@dataclass(frozen=True)
class Corpus:
    """What a reader returns: everything in the order of the files, nothing dropped."""

    interactions: pl.LazyFrame
    """user_id, item_id (String, stripped, not empty), timestamp (Int64: milliseconds, or the position); where the
    source says it, split (String: one of `schema.SPLITS`); where a filter of the source drops rows, filtered (String:
    one of `FILTERED`, null = the row is kept). Such a row is no history and no target, but its item is seen; only what
    was shown and not clicked is not. Where the source has impressions, impression (String: which one, null = none);
    without that column, what one user was shown and clicked at one time is an impression. Where one row of a session
    is wanted, session (String: which one of the user's, null = none). Where the source has events,
    event (Int8) is the number of each row's word in ``events``, null where it is merely seen."""
    items: pl.DataFrame | None
    """item_id, title (String, as written, null = none), each item once; where the source has them also text, category
    (String) and image (String: path or URL; Binary: the file's bytes). None = the source has no table of items."""
    synthetic: SyntheticDataset | None = None
    """The generated dataset behind the log: it draws the images and knows the true preferences."""
    events: EventWords | None = None
    """What the numbers of the column event mean; None = the source has no events."""


@dataclass(frozen=True)
class ReadContext:
    """What a reader may use beside its config."""

    audit: Audit
    """Where it counts every row that it drops, and says what it guessed."""
    seed: int = 0
    """Of what is drawn: only the synthetic dataset draws anything."""


class Reader(Protocol):
    """Read the files of a source."""

    # `Any`, because each reader takes the config class of its own row in `SOURCES`.
    def __call__(self, source: Any, context: ReadContext, /) -> Corpus:
        """Return the corpus, its log lazy and in constant memory; one `UserError` with the problems of all files."""
