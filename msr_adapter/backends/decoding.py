"""Greedy text for a stream of prompts: rows that end make way for the next ones, a common prefix is read once.

Prompts are padded on the left, with explicit positions and masks: a row's logits do not depend on its neighbours, but
for rounding.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_LEAST_SHARED = 8
"""A common prefix of fewer tokens is not worth a pass of its own."""

Inputs = dict[str, "torch.Tensor"]


@dataclass(frozen=True)
class DecodingState:
    """Keys, values and mask of n rows over c columns. A column that is padding in all rows is dropped by `keep`."""

    layers: "list[tuple[torch.Tensor, torch.Tensor]]"
    """Keys and values, each (n, heads, c, width)."""
    mask: "torch.Tensor"
    """(n, c): 1 where a column is a token of the row."""
    positions: "torch.Tensor"
    """(..., n, 1): position of each row's last token; M-RoPE has several."""
    tokens: "torch.Tensor"
    """(n,): each row's next token, not read yet."""

    def keep(self, rows: Sequence[int]) -> "DecodingState":
        """Return the state of some rows, in their order. O(size of the state), nothing copied when all are kept."""
        if len(rows) == len(self.tokens):
            return self
        chosen = self.tokens.new_tensor(list(rows))
        mask = self.mask[chosen]
        # Columns that were padding of the rows that are gone only cost memory and attention from here on.
        used = mask.any(0).nonzero()[:, 0]
        if len(used) == mask.shape[1]:
            layers = [(keys[chosen], values[chosen]) for keys, values in self.layers]
        else:
            mask = mask[:, used]
            layers = [(keys[chosen][:, :, used], values[chosen][:, :, used]) for keys, values in self.layers]
        return DecodingState(layers, mask, self.positions[..., chosen, :], self.tokens[chosen])

    def first(self, length: int) -> "DecodingState":
        """Return the state after the first ``length`` columns, as views; its tokens and positions must not be used."""
        if length >= self.mask.shape[1]:
            return self
        layers = [(keys[:, :, :length], values[:, :, :length]) for keys, values in self.layers]
        return DecodingState(layers, self.mask[:, :length], self.positions, self.tokens)

    @staticmethod
    def open_cache(before: "DecodingState | None", count: int, mask: "torch.Tensor") -> "tuple[Any, torch.Tensor]":
        """Return a fresh cache of ``count`` rows that continues ``before``, and the mask of old and new columns.

        One row of ``before`` serves all, as a view, until the first layer appends to it.
        """
        import torch
        from transformers import DynamicCache

        cache = DynamicCache()
        if before is None:
            return cache, mask
        for number, (keys, values) in enumerate(before.layers):
            cache.update(keys.expand(count, -1, -1, -1), values.expand(count, -1, -1, -1), number)
        return cache, torch.cat([before.mask.expand(count, -1).to(mask.dtype), mask], dim=1)


def merge(one: DecodingState | None, other: DecodingState) -> DecodingState:
    """Return the rows of both, the shorter padded on the left. O(size of both)."""
    import torch

    if one is None:
        return other
    width = max(one.mask.shape[1], other.mask.shape[1])
    a, b = _widened(one, width), _widened(other, width)
    layers = [(torch.cat([ka, kb]), torch.cat([va, vb])) for (ka, va), (kb, vb) in zip(a.layers, b.layers, strict=True)]
    return DecodingState(
        layers, torch.cat([a.mask, b.mask]), torch.cat([a.positions, b.positions], dim=-2),
        torch.cat([a.tokens, b.tokens]),
    )  # fmt: skip


def _widened(state: DecodingState, width: int) -> DecodingState:
    from torch.nn.functional import pad

    more = width - state.mask.shape[1]
    if not more:
        return state
    # `pad` counts axes from the last one: nothing beside the width, ``more`` columns in front of the tokens.
    layers = [(pad(keys, (0, 0, more, 0)), pad(values, (0, 0, more, 0))) for keys, values in state.layers]
    return DecodingState(layers, pad(state.mask, (more, 0)), state.positions, state.tokens)


@dataclass
class DecodingRow:
    """One prompt on its way to an answer."""

    number: int
    prompt: list[int]
    budget: int
    """Tokens the answer may have."""
    answer: list[int] = field(default_factory=list)
    stopped: bool = False
    """True: the model ended the answer itself; False: the budget did."""


class Decoder:
    """Decodes rows in at most ``slots`` at a time. Memory: the keys and values of ``slots`` rows and one prefix."""

    def __init__(
        self,
        network: Any,
        collate: Callable[[Sequence[DecodingRow]], Inputs],
        stop_ids: Sequence[int],
        image_token: int | None,
    ) -> None:
        """``collate`` gives left-padded model inputs of rows; no prefix is shared beyond the first image."""
        self._network, self._collate = network, collate
        self._stop, self._image_token = frozenset(stop_ids), image_token
        self._shared: tuple[list[int], DecodingState] | None = None

    def run(
        self, rows: Sequence[DecodingRow], slots: int, finished: Callable[[DecodingRow], Sequence[DecodingRow]]
    ) -> None:
        """Decode ``rows``, longest prompt first; ``finished`` takes each row that ends and may return rows to add.

        Raises what the network raises; rows that were under way can be given to another call.
        """
        waiting = deque(sorted(rows, key=lambda row: -len(row.prompt)))
        state: DecodingState | None = None
        active: list[DecodingRow] = []
        while waiting or active:
            free = slots - len(active)
            # A prefill for every single row that ends would cost more than the empty slots do.
            if waiting and (not active or free >= min(len(waiting), max(1, slots // 4))):
                group = [waiting.popleft() for _ in range(min(free, len(waiting)))]
                state, active = merge(state, self._read(group)), active + group
            assert state is not None
            ended = self._accept(active, state.tokens.tolist())
            for place in ended:
                waiting.extend(finished(active[place]))
            left = sorted(set(range(len(active))) - set(ended))
            active = [active[place] for place in left]
            state = self._step(state.keep(left)) if left else None

    def _accept(self, active: Sequence[DecodingRow], tokens: Sequence[int]) -> list[int]:
        """Give every row its next token; return the places of those that end with it."""
        ended = []
        for place, (row, token) in enumerate(zip(active, tokens, strict=True)):
            row.stopped = token in self._stop
            if not row.stopped:
                row.answer.append(token)
            if row.stopped or len(row.answer) >= row.budget:
                ended.append(place)
        return ended

    def _read(self, group: Sequence[DecodingRow]) -> DecodingState:
        """Read the prompts of ``group``; their common prefix is read once, also across groups."""
        inputs = self._collate(group)
        if "position_ids" not in inputs:  # those of M-RoPE come with the batch
            counted = inputs["attention_mask"].long().cumsum(-1) - 1
            inputs = inputs | {"position_ids": counted.clamp(min=0)}
        shared = self._shared_prefix(group, inputs)
        return self._forward(inputs, None) if shared is None else self._forward(_after(inputs, shared), shared)

    def _shared_prefix(self, group: Sequence[DecodingRow], inputs: Inputs) -> DecodingState | None:
        """Return the state after the tokens that all prompts begin with, one row; None if they are too few."""
        if self._shared is not None:
            known, state = self._shared
            length = min(_common(known, row.prompt) for row in group)
            # A much shorter common prefix is a new template: better computed anew than shared in so small a part.
            if length >= max(_LEAST_SHARED, len(known) // 2):
                return state.first(min(length, min(len(row.prompt) for row in group) - 1))
        length = self._shareable(group)
        if length < _LEAST_SHARED or len(group) < 2:
            return None
        pad = inputs["input_ids"].shape[1] - len(group[0].prompt)
        # The prefix ends before the first image, so that no pixels go with it.
        one = {name: inputs[name][..., :1, pad : pad + length] for name in ("input_ids", "attention_mask")}
        one["position_ids"] = inputs["position_ids"][..., :1, pad : pad + length]
        self._shared = (group[0].prompt[:length], self._forward(one, None))
        return self._shared[1]

    def _shareable(self, group: Sequence[DecodingRow]) -> int:
        """Return how many tokens the prompts of ``group`` have in common before the first image."""
        length = min(_common(group[0].prompt, row.prompt) for row in group)
        # Each row reads its last token itself: that one's logits give the first token of the answer.
        length = min(length, min(len(row.prompt) for row in group) - 1)
        # The tokens of different images are equal: what follows the first one only looks the same.
        start = group[0].prompt[:length]
        return start.index(self._image_token) if self._image_token in start else length

    def _step(self, state: DecodingState) -> DecodingState:
        inputs = {
            "input_ids": state.tokens[:, None],
            "attention_mask": state.mask.new_ones(len(state.tokens), 1),
            "position_ids": state.positions + 1,
        }
        return self._forward(inputs, state)

    def _forward(self, inputs: Inputs, before: DecodingState | None) -> DecodingState:
        """Run the network on ``inputs`` after ``before`` (one row of which serves all) and return the new state.

        Its ``tokens`` are the likeliest next tokens.
        """
        import torch

        count = inputs["input_ids"].shape[0]
        past, mask = DecodingState.open_cache(before, count, inputs["attention_mask"])
        with torch.inference_mode():
            output = self._network(
                **(inputs | {"attention_mask": mask}), past_key_values=past, use_cache=True, logits_to_keep=1
            )
        return DecodingState(
            [(layer.keys, layer.values) for layer in output.past_key_values.layers],
            mask,
            inputs["position_ids"][..., -1:],
            output.logits[:, -1].argmax(-1),
        )


def _after(inputs: Inputs, shared: DecodingState) -> Inputs:
    """Return left-padded ``inputs`` without the first tokens of each row that ``shared`` holds."""
    import torch

    length = shared.mask.shape[1]
    # Rows end together, so that the first columns go. What then stands in front of a shorter row is its prefix: masked.
    pads = (inputs["attention_mask"] == 0).sum(-1, keepdim=True)
    columns = torch.arange(inputs["input_ids"].shape[1] - length, device=pads.device)
    rest = {name: value[..., length:] if name in ("input_ids", "position_ids") else value
            for name, value in inputs.items()}  # fmt: skip
    return rest | {"attention_mask": (columns >= pads).to(inputs["attention_mask"].dtype)}


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    pairs: Iterator[tuple[int, int]] = zip(one, other, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
