"""A local model through transformers, with prompts encoded by LLaMA-Factory's own template and image plug-in."""

import inspect
import os
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from msr_adapter.config.models import ModelRef
from msr_adapter.errors import StageError
from msr_adapter.files import digest
from msr_adapter.generation.request import Answer, Completion, Failure, Request
from msr_adapter.llamafactory.encode import Encoder, collate
from msr_adapter.llamafactory.models import is_small, model_stamp, trained_stamp

if TYPE_CHECKING:
    import torch

_LIBRARIES = ("llamafactory", "transformers", "torch")
_CPU_TOKENS = 2_048
"""Tokens of one scoring pass on a CPU: larger ones leave its caches (1.6x slower at 11,000; `benchmarks/score.py`)."""


class HuggingFaceBackend:
    """Greedy text and the odds of fixed answers, in length-sorted, left-padded batches."""

    def __init__(self, model: ModelRef, adapter: Path | None = None, full_model: Path | None = None) -> None:
        self.model = model
        self._adapter, self._full_model = adapter, full_model
        self._identity = ""
        self._loaded: _Loaded | None = None
        self._batch_size = model.batch_size

    @property
    def label(self) -> str:
        """The model as configured, and whether it was trained."""
        trained = " + adapter" if self._adapter else ", fine-tuned" if self._full_model else ""
        return f"{self.model.path} ({self.model.template}, {self.model.dtype}){trained}"

    @property
    def identity(self) -> str:
        """Digest of weights, adapter, template, system text, pixel limits, dtype and versions; loads no model."""
        if not self._identity:
            trained = [trained_stamp(folder) if folder else None for folder in (self._adapter, self._full_model)]
            settings = self.model.model_dump(include={
                "template", "default_system", "image_max_pixels", "image_min_pixels", "dtype",
            })  # fmt: skip
            versions = [metadata.version(name) for name in _LIBRARIES]
            self._identity = digest([model_stamp(self.model), trained, settings, versions])
        return self._identity

    def complete(self, requests: Sequence[Request]) -> list[Answer]:
        """Answer all requests in their order; the model is loaded at the first call. An unreadable image fails."""
        if not requests:
            return []
        loaded = self._load()
        encoded = [_encode(loaded.encoder, request) for request in requests]
        prompts = [prompt if isinstance(prompt, list) else [] for prompt in encoded]
        answers: dict[int, Answer] = {row: ids for row, ids in enumerate(encoded) if isinstance(ids, Failure)}
        for rows in _alike(requests):
            rows = [row for row in rows if row not in answers]
            if not rows:
                continue
            scoring = bool(requests[rows[0]].choices)
            cap = _CPU_TOKENS if scoring and loaded.network.device.type == "cpu" else None
            # Longest first: what does not fit the memory shows at once.
            rows.sort(key=lambda row: -len(prompts[row]))
            for batch in split(rows, [len(prompts[row]) for row in rows], self.model.batch_size, cap):
                work = [(requests[row], prompts[row]) for row in batch]
                answer = loaded.score if scoring else loaded.write
                answers.update(zip(batch, self._within_memory(answer, work), strict=True))
        return [answers[row] for row in range(len(requests))]

    def _load(self) -> "_Loaded":
        if self._loaded is None:
            self._loaded = _Loaded(self.model, self._adapter, self._full_model)
        return self._loaded

    def _within_memory(self, answer: "_Ask", work: "list[_Work]") -> list[Completion]:
        """Answer ``work`` in pieces that fit the GPU: halves the piece when memory runs out, and stays there."""
        import torch

        done: list[Completion] = []
        while len(done) < len(work):
            piece = work[len(done) : len(done) + self._batch_size]
            try:
                done += answer(piece)
            except torch.OutOfMemoryError as error:
                if len(piece) == 1:
                    raise StageError(
                        f"A single prompt of {len(piece[0][1])} tokens does not fit the GPU's memory",
                        "the model, the image or the preference text is too large for this device",
                        "lower model.image_max_pixels, choose bfloat16, or use a smaller model",
                    ) from error
                torch.cuda.empty_cache()
                self._batch_size = len(piece) // 2
        return done


class _Loaded:
    """A model in memory and how to ask it."""

    def __init__(self, model: ModelRef, adapter: Path | None, full_model: Path | None) -> None:
        import torch
        from transformers import GenerationConfig

        self.encoder = Encoder(model, adapter, full_model)
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

    def score(self, work: "list[_Work]") -> list[Completion]:
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

    def write(self, work: "list[_Work]") -> list[Completion]:
        """Greedy text up to a stop token or the budget."""
        import torch

        inputs = self._inputs(work)
        if "image_grid_thw" in inputs and "mm_token_type_ids" in self._parameters:
            # `generate` derives M-RoPE positions, and those of the tokens to come, from the token types itself.
            inputs["mm_token_type_ids"] = (inputs["input_ids"] == self.network.config.image_token_id).int()
        inputs.pop("position_ids", None)
        tokenizer = self.encoder.tokenizer
        with torch.inference_mode():
            output = self.network.generate(
                **inputs, do_sample=False, max_new_tokens=work[0][0].max_new_tokens,
                eos_token_id=self.encoder.stop_ids, pad_token_id=tokenizer.pad_token_id,
            )  # fmt: skip
        answers = output[:, inputs["input_ids"].shape[1] :].tolist()
        return [self._text(request, ids, row) for (request, ids), row in zip(work, answers, strict=True)]

    def _text(self, request: Request, prompt: list[int], answer: list[int]) -> Completion:
        ends = [place for place, token in enumerate(answer) if token in self.encoder.stop_ids]
        kept = answer[: ends[0]] if ends else answer[: request.max_new_tokens]
        text = self.encoder.tokenizer.decode(kept, skip_special_tokens=True).strip()
        return Completion(request.key, text, (), "stop" if ends else "length", len(prompt), len(kept))

    def _inputs(self, work: "list[_Work]") -> "dict[str, torch.Tensor]":
        images = [[image.path for image in request.images] for request, _ in work]
        batch = collate(self._collator, [ids for _, ids in work], images)
        return {name: value.to(self.network.device) for name, value in batch.items()}

    def _tokens(self, choices: tuple[str, ...]) -> list[int]:
        if choices not in self._choice_tokens:
            self._choice_tokens[choices] = self.encoder.answer_tokens(choices)
        return list(self._choice_tokens[choices])


_Work = tuple[Request, list[int]]
_Ask = Callable[[list[_Work]], list[Completion]]


def split(rows: Sequence[int], lengths: Sequence[int], size: int, cap: int | None) -> Iterator[Sequence[int]]:
    """Cut ``rows``, longest first, into batches of at most ``size`` rows and, padded, about ``cap`` tokens."""
    start = 0
    while start < len(rows):
        fitting = size if cap is None else min(size, max(1, cap // lengths[start]))
        yield rows[start : start + fitting]
        start += fitting


def _encode(encoder: Encoder, request: Request) -> list[int] | Failure:
    try:
        return encoder.encode(request.prompt, [image.path for image in request.images])
    except OSError as error:  # Pillow's errors on damaged files are among them
        names = ", ".join(image.path.name for image in request.images)
        return Failure(request.key, f"image {names} cannot be read ({type(error).__name__})")


def _alike(requests: Sequence[Request]) -> list[list[int]]:
    """Group row numbers by what may share a batch: the choices, or the token budget."""
    groups: dict[tuple[tuple[str, ...], int], list[int]] = {}
    for row, request in enumerate(requests):
        groups.setdefault((request.choices, 0 if request.choices else request.max_new_tokens), []).append(row)
    return list(groups.values())
