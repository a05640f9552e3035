"""What is kept of a log, its images, and who is trained and tested on."""

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from msr_adapter.config.models.base import Model
from msr_adapter.config.models.sources import Source


class KCore(Model):
    """Iterated minimum degrees; 1 keeps everything."""

    users: int = Field(1, ge=1)
    """Fewest interactions a kept user has."""
    items: int = Field(1, ge=1)
    """Fewest interactions a kept item has."""


class Limit(Model):
    """A smaller experiment: samples users (never rows), seeded."""

    users: int | None = Field(None, ge=1)
    """Users drawn uniformly after the k-core."""
    items: int | None = Field(None, ge=2)
    """Most popular items kept, before the k-core."""


class Images(Model):
    """Where item images come from and what happens without one."""

    folder: Path | None = None
    """Holds `{item}.jpg` or any other raster image, in sub-folders too; the items' `image` column, if it has paths, is
    relative to it; `msr fetch-images` fills it. Nothing outside it is read. A shop draws its own."""
    missing: Literal["text-only", "placeholder", "error"] = "text-only"
    """An item whose image is absent or unusable: prompt without image, a grey image, or stop. Always counted."""
    max_pixels: int = Field(589_824, ge=784)
    """Stored images are shrunk to at most this many pixels."""
    max_side: int = Field(2048, ge=28)
    """Stored images are shrunk until their longest side has at most this many pixels."""
    max_file_mb: int = Field(50, ge=1)
    """A larger image file is not opened, nor downloaded to its end."""
    max_file_pixels: int = Field(64_000_000, ge=784, le=178_000_000)
    """An image whose header claims more pixels is not decoded."""


class Data(Model):
    """Where the log comes from and what is kept of it."""

    source: Source
    """The log and the titles."""
    max_expansion: int = Field(100, ge=1)
    """A gzip file may hold this many times its own size (64 MiB in any case); more is refused as a bomb."""
    k_core: KCore = KCore()
    """Drops rare users and items."""
    limit: Limit = Limit()
    """Makes the experiment smaller."""
    images: Images = Images()
    """The items' pictures."""


class Split(Model):
    """Who is trained on and who is tested on."""

    kind: Literal["user-holdout", "leave-last-out"] = "user-holdout"
    """user-holdout: 80/10/10 by user, the last item is the target. leave-last-out: test = last, validation =
    second-last, training targets are earlier; every user is in all three."""
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
    """Train, validation and test share of users (user-holdout only)."""
    max_history: int = Field(10, ge=1)
    """Latest items before the target that are kept as history."""
    min_history: int = Field(1, ge=1)
    """A target with fewer items before it is no example."""
    train_targets: int = Field(1, ge=1)
    """Latest positions of a training user that become training targets; 1 = the last only, as in the paper."""

    @field_validator("fractions")
    @classmethod
    def _fractions_sum_to_one(cls, fractions: tuple[float, float, float]) -> tuple[float, float, float]:
        if abs(sum(fractions) - 1) > 1e-6 or min(fractions) < 0:
            raise ValueError(f"{', '.join(map(str, fractions))} are not shares that sum to 1")
        return fractions
