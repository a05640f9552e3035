"""Scores prompts by a plan: prefixes first, then what follows them, in batches of similar length across groups."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from msr_adapter.backends.prefix_cache.batch_sizer import BatchSizer
from msr_adapter.backends.prefix_cache.batches import Batches, Inputs, Piece, Prompt
from msr_adapter.backends.prefix_cache.last_layer import LastLayer
from msr_adapter.backends.prefix_cache.prompt_grouping import Group, Plan
from msr_adapter.generation.scoring_stats import ScoringStats

if TYPE_CHECKING:
    import torch

    from msr_adapter.backends.prefix_cache.kv_cache import SharedPrefixes

Read = Callable[["torch.Tensor"], list[tuple[float, ...]]]
"""Takes the logits after each row's last token, (rows, vocabulary), and returns what is kept of them."""
Take = Callable[[Sequence[int], "torch.Tensor"], list[tuple[float, ...]]]
"""Takes the numbers of rows and the logits after each one's last tokens, (rows, tokens, vocabulary)."""
Found = tuple[int, tuple[float, ...]]
"""The number of a row, and what `Read` took from its logits."""


@dataclass(frozen=True)
class Reading:
    """What is read of a pass: of how many of each row's last tokens, and what is kept of the logits after them."""

    take: Take
    tokens: Callable[[int], int] = lambda _: 1
    """Last tokens of a row, by its number; what it does not share with others has at least as many."""

    @classmethod
    def of_last(cls, read: Read) -> "Reading":
        """Return what reads the last token alone."""
        return cls(lambda _, logits: read(logits[:, -1]))


@dataclass(frozen=True)
class _Rest:
    """What follows a shared prefix in one row."""

    row: int
    prefix: int
    """Which of the wave's prefixes; -1 = none."""
    piece: Piece

    def __len__(self) -> int:
        return len(self.piece)


class PlanRunner:
    """Runs plans on one model. Memory: the keys and values of one wave of prefixes, within ``budget`` bytes or of a
    single one, one layer's copies of them, and one pass."""

    def __init__(
        self, network: Any, batches: Batches, batch_sizer: BatchSizer, budget: int, stats: ScoringStats
    ) -> None:
        self._network, self._batches, self._batch_sizer = network, batches, batch_sizer
        self.last_layer = LastLayer(network)
        self._budget, self._stats = budget, stats

    def run(
        self, plan: Plan, prompts: Sequence[Prompt], reading: Reading, batch_sizer: BatchSizer | None = None
    ) -> Iterator[Found]:
        """Yield the number of every row that is in a group with what ``reading`` takes from its logits, in any order.

        ``batch_sizer`` bounds the passes in place of the runner's own.

        When memory runs out, passes and waves become smaller and then do without sharing; a row that does not fit
        alone raises `torch.OutOfMemoryError`.
        """
        asked = _Asked(prompts, reading, batch_sizer or self._batch_sizer)
        for wave in self._waves(plan.groups):
            yield from self._within_memory(wave, asked)

    def _within_memory(self, groups: Sequence[Group], asked: "_Asked") -> Iterator[Found]:
        """Run ``groups`` as one wave, as two of half the size where memory runs out, and at last without sharing."""
        import torch

        done: set[int] = set()
        try:
            for found in self._run_wave(groups, asked):
                done.add(found[0])
                yield found
            return
        except torch.OutOfMemoryError:
            # Passes are down to one row already (`BatchSizer`). What can still go: the features of images that are
            # kept, then the other prefixes of the wave, then sharing itself.
            if not self._batches.forget() and not any(group.shared for group in groups):
                raise
        # Outside of `except`: the exception's traceback holds the tensors of the failed pass.
        torch.cuda.empty_cache()
        left = [Group(group.shared, tuple(row for row in group.rows if row not in done)) for group in groups]
        left = [group for group in left if group.rows]
        if len(left) == 1:
            left = [Group(0, left[0].rows)]
        # `_waves` reads the budget as it goes: the waves to come are smaller at once.
        self._budget = max(1, self._budget // 2)
        for part in (left[: len(left) // 2], left[len(left) // 2 :]):
            if part:
                yield from self._within_memory(part, asked)

    def _waves(self, groups: Iterable[Group]) -> Iterator[list[Group]]:
        """Cut groups into waves whose prefixes, padded, fit the budget, at least one each; the longest come first."""
        wave: list[Group] = []
        for group in sorted(groups, key=lambda group: -group.shared):
            if wave and (len(wave) + 1) * wave[0].shared * self._token_bytes > self._budget:
                yield wave
                wave = []
            wave.append(group)
        if wave:
            yield wave

    def _run_wave(self, groups: Sequence[Group], asked: "_Asked") -> Iterator[Found]:
        """Compute all prefixes of ``groups``, then yield every row with what is taken from its logits."""
        prompts, reading = asked.prompts, asked.reading
        shared = sorted((group for group in groups if group.shared), key=lambda group: -group.shared)
        self._batches.warm(prompts[row] for group in groups for row in group.rows)
        prefixes = self._compute_prefixes([Piece(prompts[group.rows[0]], 0, group.shared) for group in shared])
        continued = [
            _Rest(row, number, Piece(prompts[row], group.shared, len(prompts[row])))
            for number, group in enumerate(shared)
            for row in group.rows
        ]
        alone = [_Rest(row, -1, Piece(prompts[row], 0, len(prompts[row])))
                 for group in groups if not group.shared for row in group.rows]  # fmt: skip
        # Apart: a row without a prefix would be padded by the length of the longest one.
        for rests in (continued, alone):
            # Longest first: what does not fit the memory shows at once, and rows of a pass are of similar length.
            rests.sort(key=lambda rest: -len(rest))
            passes = asked.batch_sizer.each(rests, len, lambda part: self._answers(part, prefixes, reading))
            for part, values in passes:
                self._stats.add_pass(len(part), len(part[0]))
                yield from zip((rest.row for rest in part), values, strict=True)

    def _answers(
        self, rests: Sequence[_Rest], prefixes: "SharedPrefixes | None", reading: Reading
    ) -> list[tuple[float, ...]]:
        """Return what ``reading`` takes of one pass."""
        rows = [rest.row for rest in rests]
        return reading.take(rows, self._last_logits(rests, prefixes, max(map(reading.tokens, rows))))

    def trial_logits(self, prompt: Prompt) -> "torch.Tensor":
        """Return the logits after a prompt, (4, vocabulary), in all the ways in which it may be computed: in two pieces
        cut at two places, as padded rows of one pass, two of which show its images; and whole. Counts nothing."""
        import torch

        size, cuts = len(prompt), self._batches.cuts(prompt)
        prefixes = self._states([Piece(prompt, 0, cut) for cut in cuts])
        rests = [_Rest(0, number, Piece(prompt, cuts[number], size)) for number in (1, 1, 0)]
        whole = [_Rest(0, -1, Piece(prompt, 0, size))]
        return torch.cat([self._last_logits(rests, prefixes), self._last_logits(whole, None)])[:, -1]

    def _compute_prefixes(self, pieces: Sequence[Piece]) -> "SharedPrefixes | None":
        """Return the state after each of ``pieces``, longest first; None if there are none."""
        from msr_adapter.backends.prefix_cache.kv_cache import merge

        parts = []
        for part, states in self._batch_sizer.each(pieces, len, self._states):
            self._stats.add_pass(len(part), len(part[0]))
            parts.append(states)
        return merge(parts) if parts else None

    @cached_property
    def _token_bytes(self) -> int:
        """Memory of one token's keys and values over all layers."""
        config = self._network.config.get_text_config()
        # Some configs lack these: then each attention head has keys of its own, and an equal share of the width.
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return int(2 * config.num_hidden_layers * heads * width * self._network.dtype.itemsize)

    def _states(self, pieces: Sequence[Piece]) -> "SharedPrefixes":
        """Return the state after each of ``pieces``, in one pass."""
        from transformers import DynamicCache

        from msr_adapter.backends.prefix_cache.kv_cache import SharedPrefixes

        inputs = self._batches.inputs(pieces)
        cache = DynamicCache()
        with self.last_layer.only("state"):
            self._forward(inputs | {"past_key_values": cache, "use_cache": True})
        return SharedPrefixes.of(cache, inputs["attention_mask"])

    def _last_logits(
        self, rests: Sequence[_Rest], prefixes: "SharedPrefixes | None", tokens: int = 1
    ) -> "torch.Tensor":
        """Return the logits after the last ``tokens`` tokens of each row, (rows, tokens, vocabulary)."""
        import torch

        inputs = self._batches.inputs([rest.piece for rest in rests])
        past: Inputs = {"use_cache": False}
        if rests[0].prefix >= 0 and prefixes is not None:
            cache, mask = prefixes.continued([rest.prefix for rest in rests])
            past = {"past_key_values": cache, "use_cache": True}
            # The mask is over all keys, those of the prefix too; ids and positions are of the new tokens alone.
            inputs["attention_mask"] = torch.cat([mask, inputs["attention_mask"]], dim=1)
        # The shortened last layer is for one token; of a teacher-forced answer nearly all tokens of a row are read.
        with self.last_layer.only("last") if tokens == 1 else nullcontext():
            return self._forward(inputs | past, tokens)

    def _forward(self, inputs: Inputs, tokens: int = 1) -> "torch.Tensor":
        import torch

        with torch.inference_mode():
            # 1 is the least, also where no logits are wanted: transformers takes 0 for all positions.
            logits: torch.Tensor = self._network(**inputs, logits_to_keep=tokens).logits[:, -tokens:]
        return logits


@dataclass(frozen=True)
class _Asked:
    """What is run, and what is read of it."""

    prompts: Sequence[Prompt]
    reading: Reading
    batch_sizer: BatchSizer
