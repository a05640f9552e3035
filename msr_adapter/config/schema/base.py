"""What all config classes share."""

from typing import Any

from pydantic import BaseModel, ConfigDict


def allowed(words: str) -> dict[str, Any]:
    """Return field metadata with words for what it may hold, where those made from its type would mislead."""
    return {"allowed": words}


class StrictModel(BaseModel):
    """Base of all config classes: frozen, no unknown keys, the text under a field is its documentation."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True)
