"""Keys and values of shared prefixes, handed to the rows that continue them. Imports torch: import it late.

A row's copy of its prefix lives for one layer of one pass. With the cache classes of transformers all layers' copies
would be held at once: an image's 2,900 tokens in front of 21 rows would take gigabytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import pad
from transformers.cache_utils import Cache, DynamicLayer

Layers = list[tuple[torch.Tensor, torch.Tensor]]
"""Keys and values of each layer, each (rows, heads, tokens, width)."""


@dataclass(frozen=True)
class SharedPrefixes:
    """Keys, values and mask of some prefixes, one row each, left-padded."""

    layers: Layers
    mask: torch.Tensor
    """(prefixes, tokens): 1 where there is a token."""

    @staticmethod
    def of(cache: Cache, mask: torch.Tensor) -> "SharedPrefixes":
        """Return what a forward pass over prefixes left in its cache; no copy."""
        return SharedPrefixes([(layer.keys, layer.values) for layer in cache.layers], mask)

    def continued(self, rows: Sequence[int]) -> tuple[Cache, torch.Tensor]:
        """Return a cache in which row i continues prefix ``rows[i]``, and the mask of the tokens before, (rows,
        tokens).

        The cache serves one forward pass and keeps nothing of it.
        """
        chosen = torch.tensor(rows, device=self.mask.device)
        mask = self.mask[chosen]
        # Padding is on the left, so the columns that all these rows lack are in front.
        begin = int((mask.sum(0) == 0).sum())
        return continued_cache(self.layers, chosen[:1] if len(set(rows)) == 1 else chosen, begin), mask[:, begin:]


def merge(parts: Sequence[SharedPrefixes]) -> SharedPrefixes:
    """Return the prefixes of all parts, the shorter ones padded on the left. O(size of all).

    Several parts are used up layer by layer: at no time are all of them held twice.
    """
    if len(parts) == 1:
        return parts[0]
    width = max(part.mask.shape[1] for part in parts)
    lacks = [width - part.mask.shape[1] for part in parts]

    def joined(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        # `pad` counts axes from the last one: nothing beside the width, ``lack`` columns in front of the tokens.
        return torch.cat([pad(each, (0, 0, lack, 0)) for each, lack in zip(tensors, lacks, strict=True)])

    layers = []
    while parts[0].layers:
        layer = [part.layers.pop(0) for part in parts]
        layers.append((joined([keys for keys, _ in layer]), joined([values for _, values in layer])))
    masks = [pad(part.mask, (lack, 0)) for part, lack in zip(parts, lacks, strict=True)]
    return SharedPrefixes(layers, torch.cat(masks))


def continued_cache(layers: Layers, rows: torch.Tensor, begin: int) -> Cache:
    """Return a cache for one pass: row i continues row ``rows[i]`` of ``layers``, whose first ``begin`` columns are
    left out; a single row serves any number."""
    buffers = _Buffer(rows), _Buffer(rows)
    return Cache(layers=[_PrefixLayer(keys[:, :, begin:], values[:, :, begin:], buffers) for keys, values in layers])


class _Buffer:
    """Memory for one layer's joined keys or values, used by every layer of a pass in turn.

    A layer is done with what it was given before the next one asks, so one buffer is enough; and asking for fresh
    memory layer by layer costs a CPU more than the copying.
    """

    def __init__(self, rows: torch.Tensor) -> None:
        self._rows = rows
        self._held: torch.Tensor | None = None

    def joined(self, old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        """Return row ``rows[i]`` of ``old``, then row i of ``new``: (rows, heads, tokens of both, width)."""
        shape = (len(new), old.shape[1], old.shape[2] + new.shape[2], old.shape[3])
        if self._held is None or self._held.shape != shape:
            self._held = new.new_empty(shape)
        before, after = self._held[:, :, : old.shape[2]], self._held[:, :, old.shape[2] :]
        if len(self._rows) == 1:
            before.copy_(old[self._rows])  # broadcast: one row serves all
        else:
            torch.index_select(old, 0, self._rows, out=before)
        after.copy_(new)
        return self._held


class _PrefixLayer(DynamicLayer):  # type: ignore[misc]
    """Gives one pass the old and the new keys and values together, and forgets them."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, buffers: tuple[_Buffer, _Buffer]) -> None:
        super().__init__()
        # Until it is initialised a layer reports 0 tokens, and the model would make its mask without the prefix.
        self.keys, self.values, self.is_initialized = keys, values, True
        self._buffers = buffers

    def update(self, keys: torch.Tensor, values: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor, torch.Tensor]:
        return self._buffers[0].joined(self.keys, keys), self._buffers[1].joined(self.values, values)
