"""A vector as the text of a completion: base64 of its float32 numbers, little-endian. So the cache keeps it."""

import base64
import binascii

import numpy as np

from msr_adapter.arrays import Vectors
from msr_adapter.errors import StageError

_FLOAT = np.dtype("<f4")


def to_text(vector: Vectors) -> str:
    """Return the text of a vector (dimension,)."""
    return base64.b64encode(np.asarray(vector, _FLOAT).tobytes()).decode("ascii")


def to_vector(text: str) -> Vectors:
    """Return the vector of a text (dimension,); `StageError` for a text that is none."""
    try:
        found = np.frombuffer(base64.b64decode(text, validate=True), _FLOAT).astype(np.float32)
    except (binascii.Error, ValueError):
        found = np.empty(0, np.float32)
    if not len(found) or not np.isfinite(found).all():
        raise StageError("an embedding in the cache is no vector of numbers", next_step="run `msr cache prune --all`")
    return found


def unit(vectors: Vectors) -> Vectors:
    """Return rows of length 1 (n, dimension); rows of zeros stay. `StageError` for what is no number."""
    if not np.isfinite(vectors).all():
        raise StageError(
            "an embedding is not a number", "the model's numbers overflow", "choose bfloat16 or float32 for it"
        )
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1), dtype=np.float32)
