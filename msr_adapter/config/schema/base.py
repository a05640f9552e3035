"""What all config classes share."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

MOST = 1_000_000_000
"""Of what is counted: more fits no index, and no log that one machine reads."""
MOST_DRAWN = 100_000_000
"""Users or items of a synthetic dataset, interactions of its users."""
MOST_NEGATIVES = 10_000_000
"""Negatives of one positive."""
MOST_TOKENS = 100_000_000
"""Tokens of a text or a row."""
MOST_PIXELS = 178_000_000
"""Of one image: above that, Pillow takes it for a bomb."""
MOST_IMAGES = 16
"""Images of one item that may be used."""
MOST_PROCESSES = 65_536
"""Workers, machines, or requests at a time."""
MOST_SECONDS = 31_536_000.0
"""A year; clocks and time-outs overflow far above it."""
MOST_WEIGHT = 1_000_000.0
"""Of a weight or a temperature: float32 still tells neighbours apart."""

# Every number of the config has both bounds, and none may be NaN or infinite: what a library cannot hold is refused by
# `msr check`, not by the library in the middle of a run.
Count = Annotated[int, Field(ge=1, le=MOST)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
"""NumPy's and torch's generators take 32 bits."""
Seconds = Annotated[float, Field(gt=0, le=MOST_SECONDS)]
Weight = Annotated[float, Field(ge=0, le=MOST_WEIGHT)]
Amount = Annotated[float, Field(ge=-1e15, le=1e15)]
"""A value of the data, such as a rating."""


def allowed(words: str) -> JsonDict:
    """Return field metadata with words for what it may hold, where those made from its type would mislead."""
    return {"allowed": words}


class StrictModel(BaseModel):
    """Base of all config classes: frozen, no unknown keys, the text under a field is its documentation."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True,
                              allow_inf_nan=False)  # fmt: skip
