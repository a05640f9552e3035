"""Where a log comes from: one model per format."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from msr_adapter.config.models.base import Model


class Columns(Model):
    """Names of the columns of a generic table; null = found by the well-known aliases."""

    user: str | None = None
    """Column of the user ids, which are text: leading zeros survive."""
    item: str | None = None
    """Column of the item ids, in the log and in the table of items."""
    timestamp: str | None = None
    """Seconds, milliseconds or ISO dates; a log without time is taken in row order."""
    title: str | None = None
    """Column of the item titles."""


class TableSource(Model):
    """A generic log: csv, tsv, jsonl or parquet."""

    kind: Literal["table"]
    """A generic log: csv, tsv, jsonl or parquet."""
    interactions: Path
    """One row per interaction: user, item, timestamp."""
    items: Path | None = None
    """One row per item: item, title. Without it, titles are empty."""
    columns: Columns = Columns()
    """Names of the columns, where they are none of the well-known ones."""


class MicroLensSource(Model):
    """MicroLens-50k/100k as published."""

    kind: Literal["microlens"]
    """MicroLens-50k/100k as published."""
    pairs: Path
    """`*_pairs.csv` (user,item,timestamp) or `*_pairs.tsv` (user<TAB>item item item, oldest first)."""
    titles: Path
    """`*_titles.csv` (item,title)."""


class ShopSource(Model):
    """A generated shop with drawn covers, for demos and tests: the true tastes are known."""

    kind: Literal["shop"]
    """A generated shop."""
    users: int = Field(500, ge=1)
    """Users drawn."""
    items: int = Field(300, ge=30)
    """Items drawn, each with a title and a cover."""
    interactions_per_user: int = Field(12, ge=2)
    """Mean length of a user's log."""
    noise: float = Field(1.0, ge=0)
    """Temperature of the choices: 0 = users always take what they like best; larger = noisier tastes."""


Source = Annotated[TableSource | MicroLensSource | ShopSource, Field(discriminator="kind")]
