"""The state of rows in the middle of decoding: keys and values, which of them count, and where each row is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class States:
    """n rows over c columns; a column may be padding in some rows and is dropped once it is in all."""

    layers: "list[tuple[torch.Tensor, torch.Tensor]]"
    """Keys and values, each (n, heads, c, width)."""
    mask: "torch.Tensor"
    """(n, c): 1 where a column is a token of the row."""
    positions: "torch.Tensor"
    """(..., n, 1): position of each row's last token; M-RoPE has several."""
    tokens: "torch.Tensor"
    """(n,): each row's next token, not read yet."""

    def keep(self, rows: Sequence[int]) -> "States":
        """Return the state of some rows, in their order. O(size of the state), nothing copied when all are kept."""
        if len(rows) == len(self.tokens):
            return self
        chosen = self.tokens.new_tensor(list(rows))
        mask = self.mask[chosen]
        used = mask.any(0).nonzero()[:, 0]
        if len(used) == mask.shape[1]:
            layers = [(keys[chosen], values[chosen]) for keys, values in self.layers]
        else:
            mask = mask[:, used]
            layers = [(keys[chosen][:, :, used], values[chosen][:, :, used]) for keys, values in self.layers]
        return States(layers, mask, self.positions[..., chosen, :], self.tokens[chosen])

    def first(self, length: int) -> "States":
        """Return the state after the first ``length`` columns; its tokens and positions mean nothing."""
        if length >= self.mask.shape[1]:
            return self
        layers = [(keys[:, :, :length], values[:, :, :length]) for keys, values in self.layers]
        return States(layers, self.mask[:, :length], self.positions, self.tokens)

    @staticmethod
    def open(before: "States | None", count: int, mask: "torch.Tensor") -> "tuple[Any, torch.Tensor]":
        """Return a fresh cache of ``count`` rows that continues ``before``, and the mask of old and new columns.

        One row of ``before`` is lent to all without a copy.
        """
        import torch
        from transformers import DynamicCache

        cache = DynamicCache()
        if before is None:
            return cache, mask
        for number, (keys, values) in enumerate(before.layers):
            cache.update(keys.expand(count, -1, -1, -1), values.expand(count, -1, -1, -1), number)
        return cache, torch.cat([before.mask.expand(count, -1).to(mask.dtype), mask], dim=1)


def merge(one: States | None, other: States) -> States:
    """Return the rows of both, the shorter padded on the left. O(size of both)."""
    import torch

    if one is None:
        return other
    width = max(one.mask.shape[1], other.mask.shape[1])
    a, b = _widened(one, width), _widened(other, width)
    layers = [(torch.cat([ka, kb]), torch.cat([va, vb])) for (ka, va), (kb, vb) in zip(a.layers, b.layers, strict=True)]
    return States(
        layers, torch.cat([a.mask, b.mask]), torch.cat([a.positions, b.positions], dim=-2),
        torch.cat([a.tokens, b.tokens]),
    )  # fmt: skip


def _widened(state: States, width: int) -> States:
    from torch.nn.functional import pad

    more = width - state.mask.shape[1]
    if not more:
        return state
    layers = [(pad(keys, (0, 0, more, 0)), pad(values, (0, 0, more, 0))) for keys, values in state.layers]
    return States(layers, pad(state.mask, (more, 0)), state.positions, state.tokens)
