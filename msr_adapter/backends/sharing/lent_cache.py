"""A cache that lends: what it joins for a layer is not kept. Imports transformers."""

from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer


class _LentLayer(DynamicLayer):  # type: ignore[misc]
    """Gives one pass the old and the new keys and values together, and forgets them."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, rows: torch.Tensor) -> None:
        super().__init__()
        self.keys, self.values, self.is_initialized = keys, values, True
        self._rows = rows

    def update(self, keys: torch.Tensor, values: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor, torch.Tensor]:
        return self._joined(self.keys, keys), self._joined(self.values, values)

    def _joined(self, old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        lent = old[self._rows].expand(len(new), -1, -1, -1)  # one row serves all without a copy
        return torch.cat([lent, new], dim=2)


def lend(layers: list[tuple[torch.Tensor, torch.Tensor]], rows: torch.Tensor, begin: int) -> Any:
    """Return a cache for one pass: row i goes on from row ``rows[i]`` of ``layers``, whose first ``begin`` columns are
    left out; a single row serves any number."""
    return Cache(layers=[_LentLayer(keys[:, :, begin:], values[:, :, begin:], rows) for keys, values in layers])
