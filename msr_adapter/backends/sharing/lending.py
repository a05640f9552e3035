"""Keys and values of shared beginnings, lent to the rows that go on from them.

A row's copy lives for one layer of one pass: expanding a picture's 2,900 tokens to 21 rows would take gigabytes if all
layers were held at once, and takes their share of one layer here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Beginnings:
    """The state after some beginnings, one row each, left-padded."""

    layers: "list[tuple[torch.Tensor, torch.Tensor]]"
    """Keys and values, each (beginnings, heads, tokens, width)."""
    mask: "torch.Tensor"
    """(beginnings, tokens): 1 where there is a token."""

    @staticmethod
    def of(cache: Any, mask: "torch.Tensor") -> "Beginnings":
        """Take what a pass over beginnings left in its cache."""
        return Beginnings([(layer.keys, layer.values) for layer in cache.layers], mask)

    def lend(self, rows: Sequence[int]) -> "tuple[Any, torch.Tensor]":
        """Return a cache that continues beginning ``rows[i]`` in row i, and the mask of the tokens before, (rows,
        tokens).

        The cache serves one forward pass and keeps nothing of it.
        """
        import torch

        from msr_adapter.backends.sharing.lent_cache import lend

        chosen = torch.tensor(rows, device=self.mask.device)
        mask = self.mask[chosen]
        # Padding is on the left, so the columns that all these rows lack are in front.
        begin = int((mask.sum(0) == 0).sum())
        cache = lend(self.layers, chosen[:1] if len(set(rows)) == 1 else chosen, begin)
        return cache, mask[:, begin:]


def merge(parts: Sequence[Beginnings]) -> Beginnings:
    """Return the beginnings of all parts, the shorter ones padded on the left. O(size of all).

    Several parts are used up layer by layer: at no time are all of them held twice.
    """
    import torch
    from torch.nn.functional import pad

    if len(parts) == 1:
        return parts[0]
    width = max(part.mask.shape[1] for part in parts)
    lacks = [width - part.mask.shape[1] for part in parts]

    def joined(tensors: "Sequence[torch.Tensor]") -> "torch.Tensor":
        return torch.cat([pad(each, (0, 0, lack, 0)) for each, lack in zip(tensors, lacks, strict=True)])

    layers = []
    while parts[0].layers:
        layer = [part.layers.pop(0) for part in parts]
        layers.append((joined([keys for keys, _ in layer]), joined([values for _, values in layer])))
    masks = [pad(part.mask, (lack, 0)) for part, lack in zip(parts, lacks, strict=True)]
    return Beginnings(layers, torch.cat(masks))
