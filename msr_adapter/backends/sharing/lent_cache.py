"""A cache that lends: what it joins for a layer is not kept. Imports transformers."""

from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer


class _Space:
    """Room for one layer's joined keys or values, taken by every layer of a pass in turn: a layer is done with what it
    was given before the next one asks. Asking for fresh memory layer by layer costs a CPU more than the copying."""

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
            before.copy_(old[self._rows])  # one row serves all
        else:
            torch.index_select(old, 0, self._rows, out=before)
        after.copy_(new)
        return self._held


class _LentLayer(DynamicLayer):  # type: ignore[misc]
    """Gives one pass the old and the new keys and values together, and forgets them."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, spaces: tuple[_Space, _Space]) -> None:
        super().__init__()
        self.keys, self.values, self.is_initialized = keys, values, True
        self._spaces = spaces

    def update(self, keys: torch.Tensor, values: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor, torch.Tensor]:
        return self._spaces[0].joined(self.keys, keys), self._spaces[1].joined(self.values, values)


def lend(layers: list[tuple[torch.Tensor, torch.Tensor]], rows: torch.Tensor, begin: int) -> Any:
    """Return a cache for one pass: row i goes on from row ``rows[i]`` of ``layers``, whose first ``begin`` columns are
    left out; a single row serves any number."""
    spaces = _Space(rows), _Space(rows)
    return Cache(layers=[_LentLayer(keys[:, :, begin:], values[:, :, begin:], spaces) for keys, values in layers])
