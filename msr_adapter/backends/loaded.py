"""A model in memory and how to ask it: the odds of fixed answers in one pass, or greedy text."""

import inspect
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msr_adapter.backends.decoding import Decoder, Row, rows_alike
from msr_adapter.config.models import ModelRef
from msr_adapter.generation.request import Completion, Request
from msr_adapter.llamafactory.encode import Encoder, collate
from msr_adapter.llamafactory.models import is_small
from msr_adapter.llamafactory.weights import Weights

if TYPE_CHECKING:
    import torch

Work = tuple[Request, list[int]]
"""A request and the tokens of its prompt."""


class LoadedModel:
    """A model in memory and how to ask it."""

    def __init__(self, model: ModelRef, weights: Weights) -> None:
        import torch
        from transformers import GenerationConfig

        self.encoder = Encoder(model, weights)
        if is_small(model) and "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(1)
        self.network = self.encoder.load_model()
        # The folder's own generation_config may sample or penalise repetition; ours is greedy and nothing else.
        self.network.generation_config = GenerationConfig()
        self._parameters = inspect.signature(self.network.forward).parameters
        # The few architectures without this argument compute the logits of all positions, at a price in memory.
        self._last_only = {"logits_to_keep": 1} if "logits_to_keep" in self._parameters else {}
        self._collator = self.encoder.collator(self.network)
        self._choice_tokens: dict[tuple[str, ...], tuple[int, ...]] = {}

    def score(self, work: list[Work]) -> list[Completion]:
        """One forward pass; log-probability of each choice's first token over the whole vocabulary."""
        import torch

        choices = work[0][0].choices
        with torch.inference_mode():
            logits = self.network(**self._inputs(work), use_cache=False, **self._last_only).logits[:, -1]
            logprobs = logits.float().log_softmax(-1)[:, self._tokens(choices)].tolist()
        return [
            Completion(request.key, "", tuple(row), "choice", len(ids), 0)
            for (request, ids), row in zip(work, logprobs, strict=True)
        ]

    def write(self, work: list[Work]) -> list[Completion]:
        """Greedy text up to a stop token or the budget, for models whose rows cannot share a cache: see `Decoder`."""
        import torch

        inputs = self._inputs(work)
        if "image_grid_thw" in inputs and "mm_token_type_ids" in self._parameters:
            # `generate` derives M-RoPE positions, and those of the tokens to come, from the token types itself.
            inputs["mm_token_type_ids"] = (inputs["input_ids"] == self.network.config.image_token_id).int()
        inputs.pop("position_ids", None)
        budget = max(request.max_new_tokens for request, _ in work)
        with torch.inference_mode():
            output = self.network.generate(
                **inputs, do_sample=False, max_new_tokens=budget,
                eos_token_id=self.encoder.stop_ids, pad_token_id=self.encoder.tokenizer.pad_token_id,
            )  # fmt: skip
        answers = output[:, inputs["input_ids"].shape[1] :].tolist()
        return [self._cut(request, ids, row) for (request, ids), row in zip(work, answers, strict=True)]

    def decoder(self, images: Callable[[int], Sequence[Path]]) -> Decoder | None:
        """Return what decodes a stream of rows, whose pictures ``images`` finds by number; None: use `write`."""
        if not rows_alike(self.network):
            return None

        def inputs(rows: Sequence[Row]) -> "dict[str, torch.Tensor]":
            return self._collated([row.prompt for row in rows], [images(row.number) for row in rows])

        image_token = getattr(self.network.config, "image_token_id", None)
        return Decoder(self.network, inputs, self.encoder.stop_ids, image_token)

    def completion(self, request: Request, row: Row) -> Completion:
        """Return the answer of a decoded row."""
        return self._completion(request, row.prompt, row.answer, row.stopped)

    def _cut(self, request: Request, prompt: list[int], answer: list[int]) -> Completion:
        ends = [place for place, token in enumerate(answer) if token in self.encoder.stop_ids]
        kept = answer[: min([*ends[:1], request.max_new_tokens])]
        return self._completion(request, prompt, kept, bool(ends) and ends[0] < request.max_new_tokens)

    def _completion(self, request: Request, prompt: list[int], answer: list[int], stopped: bool) -> Completion:
        text = self.encoder.tokenizer.decode(answer, skip_special_tokens=True).strip()
        return Completion(request.key, text, (), "stop" if stopped else "length", len(prompt), len(answer))

    def _inputs(self, work: list[Work]) -> "dict[str, torch.Tensor]":
        return self._collated([ids for _, ids in work], [[image.path for image in r.images] for r, _ in work])

    def _collated(self, prompts: Sequence[list[int]], images: Sequence[Sequence[Path]]) -> "dict[str, torch.Tensor]":
        batch = collate(self._collator, prompts, images)
        return {name: value.to(self.network.device) for name, value in batch.items()}

    def _tokens(self, choices: tuple[str, ...]) -> list[int]:
        if choices not in self._choice_tokens:
            self._choice_tokens[choices] = self.encoder.answer_tokens(choices)
        return list(self._choice_tokens[choices])
