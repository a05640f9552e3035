"""The last decoder layer, made to do what a pass needs of it and no more.

After it nothing looks at any token but the last of each row, whose logits are read, and after a shared prefix not even
at that: keys and values are all that is wanted. The layer's own code does the work, so that no family's attention is
written again here: it is asked for the keys and values of all tokens and stopped there by an exception, then run once
more for the last token alone, as in decoding.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from msr_adapter.backends.prefix_cache.compatibility import base_network

if TYPE_CHECKING:
    import torch

Wanted = Literal["last", "state"]
"""What is read after a pass: the hidden state of each row's last token, or keys and values alone."""

_CACHE = "past_key_values"
_TOKENS_AXIS = {"position_ids": -1, "cache_position": -1, "position_embeddings": -2, "attention_mask": -2}
"""Argument of a decoder layer -> its axis of query tokens, counted from the last."""
_HIDDEN_AXES, _MASK_AXES = 3, 4


class LastLayer:
    """One model's last decoder layer. Saves up to one layer's work in as many as there are: little in a deep model,
    much in a small one. Memory: a copy of the layer's input, and its keys and values while a pass lasts."""

    def __init__(self, network: Any) -> None:
        """Wrap the last decoder layer of ``network``; where there is none that is known, nothing is saved."""
        bare = base_network(network)
        layers: Sequence[Any] = getattr(bare.get_decoder(), "layers", ()) if hasattr(bare, "get_decoder") else ()
        # accelerate's hooks replace `forward` too, to move weights between devices around each call of the layer.
        self.trusted = len(layers) > 0 and not hasattr(layers[-1], "_hf_hook")
        """Whether less may be computed: to be set to False where that changes the answers."""
        self._wanted: Wanted | None = None
        if self.trusted:
            self._whole = layers[-1].forward
            layers[-1].forward = self._forward

    @contextmanager
    def only(self, wanted: Wanted) -> Iterator[None]:
        """While the context lasts, compute all keys and values and, if "last" is wanted, the last token of each row.

        All other tokens leave the layer as they entered it.
        """
        self._wanted = wanted if self.trusted else None
        try:
            yield
        finally:
            self._wanted = None

    def _forward(self, *given: Any, **named: Any) -> Any:
        """Stand in for the layer's `forward`: compute what is wanted, or all where an argument is not known."""
        # Families that hand a layer more than hidden states by position are left alone.
        usual = self._wanted is not None and len(given) == 1 and given[0].ndim == _HIDDEN_AXES
        last = _of_last(named) if usual else None
        if last is None:
            return self._whole(*given, **named)
        hidden: torch.Tensor = given[0]
        kept = _Kept(named.get(_CACHE))
        try:
            # A layer that never calls `update` ends here: it has no use for a cache, and has done all its work.
            return self._whole(hidden, **named | {_CACHE: kept})
        except _EnoughError:
            if self._wanted == "state":
                return hidden
        # The other tokens leave as they came: nothing after the last layer mixes tokens, so nobody reads them.
        made = hidden.clone()
        made[:, -1:] = self._whole(hidden[:, -1:], **last | {_CACHE: kept})
        return made


class _EnoughError(Exception):
    """The keys and values are known."""


class _Kept:
    """A cache that takes the new keys and values at the first `update` and raises `_EnoughError` there; the second
    `update` returns all of them. Everything else is asked of the real cache."""

    def __init__(self, cache: Any) -> None:
        self._cache = cache
        self._known: tuple[torch.Tensor, torch.Tensor] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)

    def update(
        self, keys: "torch.Tensor", values: "torch.Tensor", *rest: Any, **named: Any
    ) -> "tuple[torch.Tensor, torch.Tensor]":
        """Return the known and the new keys and values together."""
        if self._known is not None:
            return self._known
        self._known = (keys, values) if self._cache is None else self._cache.update(keys, values, *rest, **named)
        raise _EnoughError


def _of_last(named: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a layer's named arguments cut down to the last token; None if one of them is of an unknown kind."""
    import torch

    if _CACHE not in named:
        return None
    last: dict[str, Any] = {}
    for name, value in named.items():
        parts = value if isinstance(value, tuple) else (value,)
        tensors = [part for part in parts if isinstance(part, torch.Tensor)]
        axis = _TOKENS_AXIS.get(name)
        if value is None or name == _CACHE or (axis is None and isinstance(value, bool | int | float | str)):
            last[name] = value
        elif axis is None or len(tensors) < len(parts):
            return None
        elif name == "attention_mask" and tensors[0].ndim != _MASK_AXES:  # says which keys are there, no more
            last[name] = value
        else:
            cut = tuple(tensor.narrow(axis, tensor.shape[axis] - 1, 1) for tensor in tensors)
            last[name] = cut if isinstance(value, tuple) else cut[0]
    return last
