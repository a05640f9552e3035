"""A model in one of its roles."""

from typing import Literal

from pydantic import Field

from msr_adapter.config.models.base import Model


class ModelRef(Model):
    """A model in one of the three roles, and everything that decides how a prompt reaches it."""

    path: str
    """`tiny` (bundled, 1M parameters), a local folder, or a hub id."""
    revision: str | None = None
    """Branch, tag or commit of a hub model."""
    template: str = "qwen2_vl"
    """LLaMA-Factory template name; it must be the model's own."""
    default_system: str | None = None
    """Replaces the template's system text; an empty string removes it."""
    image_max_pixels: int = Field(262_144, ge=784)
    """Larger images are shrunk to this many pixels before the model sees them."""
    image_min_pixels: int = Field(1_024, ge=1)
    """Smaller images are enlarged to this many pixels."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the weights in training and scoring."""
    batch_size: int = Field(32, ge=1)
    """Prompts per forward pass."""
    backend: Literal["huggingface", "scripted"] = "huggingface"
    """`scripted` answers by rule, for tests of the machinery only."""
