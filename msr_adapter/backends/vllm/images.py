"""Images as training shrinks them, kept while requests show them, and how many tokens each takes."""

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msr_adapter.generation.request import IMAGE_PLACEHOLDER, Image
from msr_adapter.llamafactory.prompt_encoder import Encoder

_BUDGET = 2**28
"""Bytes of pixels that are kept; the oldest go first, and are read again."""


class ShrunkImages:
    """Images by their digests. Memory: `_BUDGET` bytes, and those of one prompt."""

    def __init__(self, expanding: Encoder, plain: Encoder) -> None:
        """``expanding`` writes every token of an image into a prompt, as training does; ``plain`` writes one."""
        self._expanding, self._plain = expanding, plain
        self._kept: OrderedDict[str, Any] = OrderedDict()
        self._bytes = 0
        self._added: dict[tuple[int, int], int] = {}

    def get(self, images: Sequence[Image]) -> list[Any]:
        """Return the images (Pillow, RGB). Raises `OSError` where one cannot be read."""
        return [self._one(image) for image in images]

    def added_tokens(self, images: Sequence[Image]) -> int:
        """Return how many tokens training has for ``images`` beyond those of the plain prompt.

        Families make a number of tokens of an image's size alone, so that one image of each size is counted.
        """
        return sum(self._added_by(image) for image in images)

    def _added_by(self, image: Image) -> int:
        size = tuple(self._one(image).size)
        if size not in self._added:
            self._added[size] = _length(self._expanding, image.path) - _length(self._plain, image.path)
        return self._added[size]

    def _one(self, image: Image) -> Any:
        if image.digest in self._kept:
            self._kept.move_to_end(image.digest)
            return self._kept[image.digest]
        shrunk = self._expanding.resized_image(image.path)
        self._kept[image.digest] = shrunk
        self._bytes += _size(shrunk)
        while self._bytes > _BUDGET and len(self._kept) > 1:
            self._bytes -= _size(self._kept.popitem(last=False)[1])
        return shrunk


def _length(encoder: Encoder, image: Path) -> int:
    return len(encoder.encode(IMAGE_PLACEHOLDER, [image]))


def _size(image: Any) -> int:
    return int(image.width * image.height * 3)
