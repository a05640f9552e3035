"""The generated dataset: how many of what, and what tastes are in."""

from typing import Literal

from pydantic import Field

from msr_adapter.config.schema.base import MOST_DRAWN, StrictModel, Weight


class SyntheticSourceConfig(StrictModel):
    """A generated dataset with drawn images, for demos and tests: the true preferences are known."""

    kind: Literal["synthetic"]
    """A synthetic dataset, generated from the seed."""
    users: int = Field(500, ge=1, le=MOST_DRAWN)
    """Users drawn."""
    items: int = Field(300, ge=30, le=MOST_DRAWN)
    """Items drawn, each with a title and an image."""
    interactions_per_user: int = Field(12, ge=2, le=MOST_DRAWN)
    """Mean length of a user's log."""
    noise: Weight = 1.0
    """Temperature of the choices: 0 = users always choose what they like best; larger = noisier choices."""
    drift: float = Field(0.0, ge=0, le=1)
    """How tastes change along a log: probability that the favourite motifs (colours, genres) change between two
    choices. A new word becomes the first, the first becomes the second. 0 = tastes stay: order says little."""
    offered: float = Field(1.0, ge=0.01, le=1)
    """Share of the items that a user is shown at each choice, drawn anew. 1 = all of them: users take the best first,
    so that a log lists its items about best first, which a ranking can exploit."""
    attributes: bool = False
    """Whether items have a price and a brand that neither title nor image tells, and users a taste in both.
    `data.items.attributes: [price, brand]` lets templates say them."""
    second_image: bool = False
    """Whether each item has a second image, of a motif and a colour drawn anew, which users like as they do the first
    one's."""
