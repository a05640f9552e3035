"""What is kept of a log, its images, and who is trained and tested on."""

from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from msr_adapter.config.schema.attributes import ItemAttributesConfig, UserAttributesConfig
from msr_adapter.config.schema.base import MOST, MOST_IMAGES, MOST_PIXELS, Count, StrictModel, allowed
from msr_adapter.config.schema.sources import SourceConfig
from msr_adapter.config.schema.tables import ColumnName

MOMENT = "a date (2024-06-30 or 2024-06-30T12:00:00Z), milliseconds since 1970, or null"
_LATEST = 253_402_300_799_999
"""Milliseconds of the last moment of the year 9999, where calendars end."""


class KCoreConfig(StrictModel):
    """Iterated minimum degrees; 1 keeps everything. A split by time counts what was known when training ends."""

    users: Count = 1
    """Fewest interactions a kept user has."""
    items: Count = 1
    """Fewest interactions a kept item has."""


class LimitConfig(StrictModel):
    """A smaller experiment: samples users (never rows), seeded."""

    users: Count | None = None
    """Users drawn uniformly after the k-core; under `split.kind: temporal`, of those known when training ends first."""
    items: int | None = Field(None, ge=2, le=MOST)
    """Most popular items kept, before the k-core; popular as training knows it under `split.kind: temporal`."""
    unseen_items: int | None = Field(None, ge=0, le=MOST)
    """Items of the table that no interaction names, kept beside those of the log: so many, drawn by the seed; 0 = none.
    null: all of them, or none where `items` is given."""


class ImagesConfig(StrictModel):
    """Where item images come from and what happens without one."""

    folder: Path | None = None
    """Holds `{item}.jpg` or any other raster image, in sub-folders too; the items' `image` column, if it has paths, is
    relative to it; `msr fetch-images` fills it. Nothing outside it is read. A synthetic dataset draws its own."""
    max: int = Field(1, ge=1, le=MOST_IMAGES)
    """Images of an item that are used, in order: those of a list in the column `image`, then of `columns`; else the
    files `{item}.jpg`, `{item}_*.jpg` and `{item}/*.jpg`. Equal ones count once."""
    columns: tuple[ColumnName, ...] = ()
    """Columns of the table of items that name further images, in order; read where `max` is above 1."""
    missing: Literal["text-only", "placeholder", "error"] = "text-only"
    """An item whose image is absent or unusable: prompt without image, a grey image, or stop. Always counted."""
    max_pixels: int = Field(589_824, ge=784, le=MOST_PIXELS)
    """Stored images are shrunk to at most this many pixels."""
    max_side: int = Field(2048, ge=28, le=65_535)
    """Stored images are shrunk until their longest side has at most this many pixels."""
    max_file_mb: int = Field(50, ge=1, le=65_536)
    """A larger image file is not opened, nor downloaded to its end."""
    max_file_pixels: int = Field(64_000_000, ge=784, le=MOST_PIXELS)
    """An image whose header claims more pixels is not decoded."""
    frames: int | None = Field(None, ge=1, le=64)
    """Frames of a video or of an animated image, evenly spaced, as images of the item; `max` is to be as many at least.
    null: an animated image's first frame, and no videos."""

    @model_validator(mode="after")
    def _keep_the_frames(self) -> "ImagesConfig":
        if self.frames is not None and self.frames > self.max:
            raise ValueError(f"frames: {self.frames} needs max: {self.frames} or more (here {self.max})")
        return self


class DataConfig(StrictModel):
    """Where the log comes from and what is kept of it."""

    source: SourceConfig
    """The log and the titles."""
    items: ItemAttributesConfig = ItemAttributesConfig()
    """Columns of the items that templates may show."""
    users: UserAttributesConfig | None = None
    """A table of users, of whom templates may show columns."""
    max_expansion: Count = 100
    """A gzip file may hold this many times its own size (64 MiB in any case); more is refused as a bomb."""
    k_core: KCoreConfig = KCoreConfig()
    """Drops rare users and items."""
    limit: LimitConfig = LimitConfig()
    """Makes the experiment smaller."""
    repeats: Literal["keep", "first"] = "first"
    """What becomes of a user's further interactions with an item. first: they are left out and counted, so that every
    target is new to its user. keep: they stay in histories, and the next item may be one that the user had before; rows
    with the same user, item and time are one."""
    images: ImagesConfig = ImagesConfig()
    """The items' images."""


class SplitConfig(StrictModel):
    """Who is trained on and who is tested on."""

    kind: Literal["user-holdout", "leave-last-out", "temporal", "column"] = "user-holdout"
    """user-holdout: 80/10/10 by user, the last item is the target. leave-last-out: test = last, validation =
    second-last, training targets are earlier; every user is in all three. temporal: by the time of the target, the same
    dates for all users. column: as the source's own column says, row by row."""
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
    """Train, validation and test share of users (user-holdout only)."""
    validation_from: str | int | None = Field(None, json_schema_extra=allowed(MOMENT))
    """Training targets are before this moment; null = there is no validation (temporal only)."""
    test_from: str | int | None = Field(None, json_schema_extra=allowed(MOMENT))
    """Validation targets are before this moment, test targets at or after it (temporal only)."""
    until: str | int | None = Field(None, json_schema_extra=allowed(MOMENT))
    """Nothing at or after this moment is a target (temporal only)."""
    same_time: Literal["keep", "leave-out"] = "keep"
    """Items of the very time of the target that stand before it in the log: history, or left out of it (where equal
    times say nothing of the order, as in a log of days). What stands after the target is never history."""
    max_history: Count = 10
    """Latest items before the target that are kept as history."""
    history_window: Literal["items", "blocks"] = "items"
    """Where a history begins that `max_history` cuts. items: at the `max_history`-th last item, so that it moves with
    every interaction. blocks: at a multiple of `summarize.users.block`, counted from the user's first item, so that it
    has up to a block less, and the summaries of earlier blocks stay valid until it moves by a whole block; `msr
    recommend`, `score` and `serve` read the same window. For logs that grow."""
    min_history: Count = 1
    """A target with fewer items before it is no example."""
    train_targets: Count = 1
    """Latest positions of a training user that become training targets; 1 = the last only, as in the paper."""

    @field_validator("fractions")
    @classmethod
    def _fractions_sum_to_one(cls, fractions: tuple[float, float, float]) -> tuple[float, float, float]:
        if abs(sum(fractions) - 1) > 1e-6 or min(fractions) < 0:
            raise ValueError(f"{', '.join(map(str, fractions))} are not shares that sum to 1")
        return fractions

    @field_validator("validation_from", "test_from", "until")
    @classmethod
    def _moments_can_be_read(cls, moment: str | int | None) -> str | int | None:
        if isinstance(moment, str):
            try:
                milliseconds(moment)
            except (ValueError, OverflowError):
                raise ValueError(f"the text {moment!r}; expected {MOMENT}") from None
        if isinstance(moment, int) and abs(moment) > _LATEST:
            raise ValueError(f"the number {moment}; expected {MOMENT}, up to the year 9999")
        return moment

    @model_validator(mode="after")
    def _temporal_has_moments_in_order(self) -> "SplitConfig":
        if self.kind != "temporal":
            return self
        if self.test_from is None:
            raise ValueError("kind: temporal needs `test_from:`, the moment from which targets are tested")
        given = [moment for moment in (self.validation_from, self.test_from, self.until) if moment is not None]
        times = [milliseconds(moment) for moment in given]
        if any(later <= earlier for earlier, later in pairwise(times)):
            raise ValueError("validation_from, test_from and until must follow one another in time")
        return self


def milliseconds(moment: str | int) -> int:
    """Return a moment as logs hold it; dates without a zone are UTC. Raises ValueError on other text."""
    if isinstance(moment, int):
        return moment
    parsed = datetime.fromisoformat(moment)
    parsed = parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
    return round(parsed.timestamp() * 1000)
