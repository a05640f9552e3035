"""What all config models share."""

from typing import Any

from pydantic import BaseModel, ConfigDict


def allowed(words: str) -> dict[str, Any]:
    """Words for what a field may hold, where those made from its type would mislead."""
    return {"allowed": words}


class StrictModel(BaseModel):
    """Base of all config models."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True)
