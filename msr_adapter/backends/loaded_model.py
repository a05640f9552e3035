"""A model in memory and how to ask it: log-probabilities of label words, or greedy text."""

import inspect
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from msr_adapter.backends.decoding import Decoder, DecodingRow
from msr_adapter.backends.prefix_cache.batch_sizer import BatchSizer
from msr_adapter.backends.prefix_cache.batches import Piece, Prompt
from msr_adapter.backends.prefix_cache.compatibility import base_network, why_unsharable
from msr_adapter.backends.prefix_cache.forced_answers import answer_logprobs, token_logprobs
from msr_adapter.backends.prefix_cache.prefix_cache import PrefixCache
from msr_adapter.config.schema import ModelConfig
from msr_adapter.generation.request import Completion, Image, Request
from msr_adapter.llamafactory.model_weights import Weights, is_small
from msr_adapter.llamafactory.prompt_encoder import Encoder, collate

if TYPE_CHECKING:
    import torch

Work = tuple[Request, list[int]]
"""A request and the tokens of its prompt."""
LabelTokens = tuple[tuple[int, ...], ...]
"""First tokens of each choice's label words."""
_CPU_LOGITS, _GPU_LOGITS = 2**28, 2**31
"""Bytes of the logits of a pass that reads them at every token of its answers."""


class LoadedModel:
    """A model in memory and how to ask it."""

    def __init__(self, model: ModelConfig, weights: Weights, batch_sizer: BatchSizer, *, device: str = "auto") -> None:
        """Load it (seconds to minutes); ``batch_sizer`` bounds and learns what one scoring pass holds."""
        import torch
        from transformers import GenerationConfig

        self.encoder = Encoder(model, weights, device=device)
        self.encoder.keep_images()
        if is_small(model) and "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(1)
        self.network = self.encoder.load_model()
        # The folder's own generation_config may sample or penalise repetition; ours is greedy and nothing else.
        self.network.generation_config = GenerationConfig()
        self._parameters = inspect.signature(base_network(self.network).forward).parameters
        # The few architectures without this argument compute the logits of all positions, at a price in memory.
        self._last_only = {"logits_to_keep": 1} if "logits_to_keep" in self._parameters else {}
        self._collator = self.encoder.collator(self.network)
        self._label_tokens: dict[tuple[tuple[str, ...], ...], LabelTokens] = {}
        self.batch_sizer = batch_sizer
        self._likelihood_sizer = BatchSizer(batch_sizer.rows, _likelihood_tokens(self.network))
        self.prefix_cache = PrefixCache(
            self.network,
            self.encoder.pixels,
            lambda prompt: self._collated([prompt]),
            self.encoder.tokenizer.pad_token_id,
            batch_sizer,
            why_unsharable(self.network, last_logits_only=bool(self._last_only)),
        )

    def scores(self, work: Sequence[Work]) -> Iterator[tuple[int, Completion]]:
        """Yield each prompt's place in ``work``, all with the same choices, and its answer, in any order.

        Common prefixes are computed once where the model allows that. Raises `torch.OutOfMemoryError` if a prompt does
        not fit alone.
        """
        tokens = self._tokens(work[0][0].label_words)
        prompts = [self._prompt(ids, request.images) for request, ids in work]
        refusal = self.prefix_cache.refusal(prompts)
        if refusal:
            self.prefix_cache.stats.reasons.add(refusal)
            found = self._one_by_one(work, tokens)
        else:
            found = self.prefix_cache.score(prompts, partial(_label_logprobs, tokens))
        for place, logprobs in found:
            request, ids = work[place]
            yield place, Completion(request.key, "", logprobs, "choice", len(ids), 0)

    def likelihoods(self, work: Sequence[Work]) -> Iterator[tuple[int, Completion]]:
        """Yield each prompt's place in ``work`` and the log-probability of its one answer, all tokens of it together.

        As `scores`: prefixes of prompts are computed once where the model allows that.
        """
        answers = [self.encoder.scored_ids(request.choices[0], end=request.whole == "turn") for request, _ in work]
        prompts = [self._prompt(ids, request.images) for request, ids in work]
        refusal = self.prefix_cache.refusal(prompts)
        if refusal:
            self.prefix_cache.stats.reasons.add(refusal)
            found = self._forced_one_by_one(work, answers)
        else:
            found = self.prefix_cache.likelihoods(prompts, answers, self._likelihood_sizer)
        for place, logprobs in found:
            request, ids = work[place]
            yield place, Completion(request.key, "", logprobs, "choice", len(ids), len(answers[place]))

    def _forced_one_by_one(
        self, work: Sequence[Work], answers: Sequence[list[int]]
    ) -> Iterator[tuple[int, tuple[float, ...]]]:
        """Yield each prompt's place and the log-probability of its answer from plain passes, longest first."""
        forced = [(request, [*ids, *answer[:-1]]) for (request, ids), answer in zip(work, answers, strict=True)]
        places = sorted(range(len(work)), key=lambda place: -len(forced[place][1]))
        stats = self.prefix_cache.stats
        stats.add_unshared(
            [len(ids) for _, ids in forced], [image.digest for request, _ in work for image in request.images]
        )
        passes = self._likelihood_sizer.each(
            places, lambda place: len(forced[place][1]),
            lambda part: self.forced([forced[place] for place in part], [answers[place] for place in part]),
        )  # fmt: skip
        for part, logprobs in passes:
            stats.add_pass(len(part), len(forced[part[0]][1]))
            yield from zip(part, logprobs, strict=True)

    def forced(self, work: Sequence[Work], answers: Sequence[Sequence[int]]) -> list[tuple[float]]:
        """Return the log-probability of each answer whose tokens but the last end the prompt, from one plain pass."""
        return answer_logprobs(self._answer_logits(work, max(map(len, answers))), answers)

    def answer_tokens(self, request: Request, ids: list[int], answer: Sequence[int]) -> list[float]:
        """Return the log-probability of each token of an answer after the prompt ``ids``, from one plain pass."""
        logits = self._answer_logits([(request, [*ids, *answer[:-1]])], len(answer))
        found: list[float] = token_logprobs(logits[0], answer).tolist()
        return found

    def _answer_logits(self, work: Sequence[Work], longest: int) -> "torch.Tensor":
        """Return the logits (n, tokens, V) of whole prompts, of the last ``longest`` tokens at least."""
        import torch

        keep = {"logits_to_keep": longest} if self._last_only else {}
        with torch.inference_mode():
            logits: torch.Tensor = self.network(**self._inputs(work), use_cache=False, **keep).logits
        return logits

    def score(self, work: Sequence[Work]) -> list[Completion]:
        """Answer whole prompts with the same choices in one plain forward pass; `scores` equals it but for rounding."""
        logprobs = self._plain(work, self._tokens(work[0][0].label_words))
        return [
            Completion(request.key, "", row, "choice", len(ids), 0)
            for (request, ids), row in zip(work, logprobs, strict=True)
        ]

    def _one_by_one(self, work: Sequence[Work], tokens: LabelTokens) -> Iterator[tuple[int, tuple[float, ...]]]:
        """Yield each prompt's place and log-probabilities from plain passes, longest first; shares nothing."""
        places = sorted(range(len(work)), key=lambda place: -len(work[place][1]))
        stats = self.prefix_cache.stats
        stats.add_unshared(
            [len(ids) for _, ids in work], [image.digest for request, _ in work for image in request.images]
        )
        passes = self.batch_sizer.each(
            places, lambda place: len(work[place][1]), lambda part: self._plain([work[place] for place in part], tokens)
        )
        for part, logprobs in passes:
            stats.add_pass(len(part), len(work[part[0]][1]))
            yield from zip(part, logprobs, strict=True)

    def mean_states(self, work: Sequence[Work]) -> "Iterator[tuple[int, torch.Tensor]]":
        """Yield each prompt's place and the mean of its last hidden states (D,) in float32, on the CPU, longest first.

        The mean is over the tokens between those that every prompt of the template begins and ends with.
        """
        places = sorted(range(len(work)), key=lambda place: -len(work[place][1]))
        passes = self.batch_sizer.each(
            places,
            lambda place: len(work[place][1]),
            lambda part: self._mean_states([work[place] for place in part]),
        )
        for part, states in passes:
            yield from zip(part, states, strict=True)

    def _mean_states(self, work: Sequence[Work]) -> "torch.Tensor":
        import torch

        before, after = self.encoder.frame
        with torch.inference_mode():
            made = self.network(**self._inputs(work), use_cache=False, output_hidden_states=True, **self._last_only)
            states: torch.Tensor = made.hidden_states[-1]
            width = states.shape[1]  # rows are padded on the left
            kept = torch.zeros(states.shape[:2], dtype=torch.bool)
            for row, (_, ids) in enumerate(work):
                kept[row, width - len(ids) + before : width - after] = True
            kept = kept.to(states.device)
            total = (states.float() * kept[:, :, None]).sum(1)
            return (total / kept.sum(1, keepdim=True).clamp(min=1)).cpu()

    def first_token(self, request: Request, ids: list[int]) -> "torch.Tensor":
        """Return the log-probability of every token of the vocabulary, (V,), to be the first of the answer."""
        return self._logits([(request, ids)])[0].float().log_softmax(-1)

    def _plain(self, work: Sequence[Work], tokens: LabelTokens) -> list[tuple[float, ...]]:
        return _label_logprobs(tokens, self._logits(work))

    def _logits(self, work: Sequence[Work]) -> "torch.Tensor":
        """Return the logits (n, V) after each whole prompt, from one plain forward pass."""
        import torch

        with torch.inference_mode():
            logits: torch.Tensor = self.network(**self._inputs(work), use_cache=False, **self._last_only).logits
        return logits[:, -1]

    def write(self, work: list[Work]) -> list[Completion]:
        """Write greedy texts, each up to a stop token or its budget, all rows in step.

        For models that `Decoder` cannot serve: see `decoder`.
        """
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

    def decoder(self, first: Sequence[int], images: Callable[[int], Sequence[Image]]) -> Decoder | None:
        """Return what decodes a stream of rows, whose images ``images`` finds by number; None: use `write`.

        A model that does not take the text of the ``first`` prompt in pieces cannot be decoded in a stream.
        """
        if self.prefix_cache.refusal_of_text(self._prompt(first, ())):
            return None

        def inputs(rows: Sequence[DecodingRow]) -> dict[str, Any]:
            prompts = [self._prompt(row.prompt, images(row.number)) for row in rows]
            # Only its images are in the way: those are encoded anew, the stream of tokens works all the same.
            if self.prefix_cache.refusal(prompts):
                return self._collated(prompts)
            return self.prefix_cache.batches.inputs([Piece(prompt, 0, len(prompt)) for prompt in prompts])

        image_token = getattr(self.network.config, "image_token_id", None)
        return Decoder(self.network, inputs, self.encoder.stop_ids, image_token)

    def completion(self, request: Request, row: DecodingRow) -> Completion:
        """Return the answer of a decoded row."""
        return self._completion(request, row.prompt, row.answer, row.stopped)

    def _cut(self, request: Request, prompt: list[int], answer: list[int]) -> Completion:
        """Return an answer of `generate` without what follows its own end: rows go on until the longest is done."""
        ends = [place for place, token in enumerate(answer) if token in self.encoder.stop_ids]
        kept = answer[: min([*ends[:1], request.max_new_tokens])]
        return self._completion(request, prompt, kept, bool(ends) and ends[0] < request.max_new_tokens)

    def _completion(self, request: Request, prompt: list[int], answer: list[int], stopped: bool) -> Completion:
        text = self.encoder.tokenizer.decode(answer, skip_special_tokens=True).strip()
        return Completion(request.key, text, (), "stop" if stopped else "length", len(prompt), len(answer))

    def _prompt(self, ids: Sequence[int], images: Sequence[Image]) -> Prompt:
        return self.prefix_cache.batches.prompt(ids, images)

    def _inputs(self, work: Sequence[Work]) -> "dict[str, torch.Tensor]":
        return self._collated([self._prompt(ids, request.images) for request, ids in work])

    def _collated(self, prompts: Sequence[Prompt]) -> "dict[str, torch.Tensor]":
        ids = [prompt.ids.tolist() for prompt in prompts]
        batch = collate(self._collator, ids, [[image.path for image in prompt.images] for prompt in prompts])
        return {name: value.to(self.network.device) for name, value in batch.items()}

    def _tokens(self, words: tuple[tuple[str, ...], ...]) -> LabelTokens:
        if words not in self._label_tokens:
            self._label_tokens[words] = self.encoder.side_tokens(words)
        return self._label_tokens[words]


def _likelihood_tokens(network: Any) -> int:
    """Return how many tokens a pass may have of which all logits are read."""
    on_cpu = network.device.type == "cpu"
    words: int = network.get_input_embeddings().weight.shape[0]
    size: int = network.dtype.itemsize
    return max(1, min(2_048, (_CPU_LOGITS if on_cpu else _GPU_LOGITS) // (words * size)))


def _label_logprobs(labels: LabelTokens, logits: "torch.Tensor") -> list[tuple[float, ...]]:
    """Return for each row the log-probability of each label's tokens together, over the whole vocabulary."""
    import torch

    logprobs = logits.float().log_softmax(-1)
    columns = [logprobs[:, list(tokens)].logsumexp(-1) for tokens in labels]
    return [tuple(row) for row in torch.stack(columns, dim=1).tolist()]
