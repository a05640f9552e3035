"""Images as the processor left them when their tokens were counted, kept until the model asks for them.

Reading and shrinking an image takes longer than anything else that is done with it on a CPU, and is done once.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

_BUDGET = 2**28
"""Bytes kept; the oldest go first, and are processed again."""


class ProcessedImages:
    """Keeps the model inputs that one template's image plug-in made of single images, until `take` returns them.

    Memory: at most ``budget`` bytes.
    """

    def __init__(self, plugin: Any, budget: int = _BUDGET) -> None:
        """Wrap the image processing of ``plugin``, which must belong to one encoder alone."""
        from llamafactory.data.mm_plugin import BasePlugin

        self._budget, self._size = budget, 0
        self._kept: OrderedDict[str, Mapping[str, Tensor]] = OrderedDict()
        self._process = plugin._get_mm_inputs
        # Some families make more of a batch than of its images one by one: they are left alone.
        if type(plugin).get_mm_inputs is BasePlugin.get_mm_inputs:
            plugin._get_mm_inputs = self._watch

    def take(self, images: Sequence[Path]) -> "dict[str, Tensor] | None":
        """Return the inputs of ``images`` together and forget them; None: not all are kept, or they do not stack."""
        import torch

        names = [str(path) for path in images]
        if len(set(names)) < len(names) or not all(name in self._kept for name in names):
            return None
        parts = [self._forget(name) for name in names]
        alike = {tuple((key, value.dtype, value.shape[1:]) for key, value in part.items()) for part in parts}
        return {key: torch.cat([part[key] for part in parts]) for key in parts[0]} if len(alike) == 1 else None

    def _watch(
        self, images: Sequence[Any], videos: Sequence[Any], audios: Sequence[Any], *rest: Any, **named: Any
    ) -> Any:
        made = self._process(images, videos, audios, *rest, **named)
        alone = len(images) == 1 and isinstance(images[0], str) and not videos and not audios
        if alone and images[0] not in self._kept:
            self._keep(images[0], made)
        return made

    def _keep(self, name: str, made: Mapping[str, "Tensor"]) -> None:
        """Keep the inputs of one image, if all are tensors; the oldest go where the budget is exceeded."""
        import torch

        inputs = dict(made)
        if not all(isinstance(value, torch.Tensor) for value in inputs.values()):
            return
        self._kept[name] = inputs
        self._size += _bytes(inputs)
        while self._size > self._budget:
            self._forget(next(iter(self._kept)))

    def _forget(self, name: str) -> Mapping[str, "Tensor"]:
        inputs = self._kept.pop(name)
        self._size -= _bytes(inputs)
        return inputs


def _bytes(inputs: Mapping[str, "Tensor"]) -> int:
    return sum(value.nbytes for value in inputs.values())
