"""A local model through transformers, with prompts encoded by LLaMA-Factory's own template and image plug-in."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from importlib import metadata
from typing import Any, NoReturn

from PIL import Image as PillowImage

from msr_adapter.backends.decoding import DecodingRow
from msr_adapter.backends.loaded_model import LoadedModel, Work
from msr_adapter.backends.prefix_cache.batch_sizer import BatchSizer
from msr_adapter.config.schema import ModelConfig
from msr_adapter.errors import StageError
from msr_adapter.files import digest
from msr_adapter.generation.request import Answer, Backend, Completion, Failure, Follow, Request, ends_there
from msr_adapter.generation.scoring_stats import ScoringStats
from msr_adapter.llamafactory.family_recognition import resolve_template
from msr_adapter.llamafactory.model_files import first_answers
from msr_adapter.llamafactory.model_weights import BASE, Weights, model_stamp, own_adapters
from msr_adapter.llamafactory.prompt_encoder import Encoder

_LIBRARIES = ("llamafactory", "transformers", "torch")
_CPU_TOKENS, _GPU_TOKENS = 2_048, 32_768
"""Tokens of one scoring pass: larger ones leave a CPU's caches (1.6x slower at 11,000; `benchmarks/score.py`) and only
fill a GPU's memory."""
_CPU_PASS, _GPU_PASS = 32, 256
"""What a scoring pass costs beyond its tokens, in tokens: measured on a CPU, a guess for a GPU."""
_SCORED, _WRITTEN = 256, 64
"""Rows of a pass, and texts at a time, to begin with where `batch_size` is auto."""


class HuggingFaceBackend(Backend):
    """Greedy text and log-probabilities of label words, in length-sorted, left-padded batches; common prefixes are
    computed once.

    Memory on the device: the weights, `batch_size` rows, fewer once they did not fit, and what `PrefixCache` keeps.
    """

    def __init__(self, model: ModelConfig, weights: Weights = BASE) -> None:
        self.model = resolve_template(model)
        self._weights = weights
        self._identity = ""
        self._loaded: LoadedModel | None = None
        self._answered: set[bool] = set()
        """Whether prompts with images, and whether such without, have been answered."""
        self._slots = _WRITTEN if model.batch_size == "auto" else model.batch_size

    @property
    def label(self) -> str:
        """The model as configured, and whether it was trained."""
        tuned = ", fine-tuned" if self._weights.full else ""
        adapters = " + adapter" * len(own_adapters(self.model) + self._weights.adapters)
        return f"{self.model.path} ({self.model.template}, {self.model.dtype}){tuned}{adapters}"

    @property
    def identity(self) -> str:
        """Digest of all weights in order, template, system text, pixel limits, dtype and versions; loads no model."""
        self._identity = self._identity or identity_of(self.model, self._weights)
        return self._identity

    def complete(self, requests: Sequence[Request], follow: Follow = ends_there) -> list[Answer]:
        """Answer all requests, and those that ``follow`` adds, in the order asked. An unreadable image fails.

        The model is loaded at the first call.
        """
        if not requests:
            return []
        loaded, shown = self._load(), any(request.images for request in requests)
        with nullcontext() if shown in self._answered else first_answers(self.model.path):
            work = _Workload(loaded.encoder, requests, follow)
            self._score(work)
            self._write(work)
        self._answered.add(shown)
        return [work.answers[row] for row in range(len(work.requests))]

    @property
    def stats(self) -> ScoringStats:
        """What scoring has taken so far."""
        return self._loaded.prefix_cache.stats if self._loaded else ScoringStats()

    def _load(self) -> LoadedModel:
        if self._loaded is None:
            self._loaded = LoadedModel(self.model, self._weights, BatchSizer(rows_at_once(self.model)))
            fit_device(self._loaded.batch_sizer, self._loaded.network)
        return self._loaded

    def _score(self, work: "_Workload") -> None:
        """Score every request with choices that has no answer yet; one whose image is gone meanwhile fails."""
        import torch

        while groups := _scoring(work):
            for rows in groups:
                asked = [(work.requests[row], work.prompts[row]) for row in rows]
                try:
                    loaded = self._load()
                    whole = bool(asked[0][0].whole)
                    for place, answer in loaded.likelihoods(asked) if whole else loaded.scores(asked):
                        work.settle(rows[place], answer)
                except torch.OutOfMemoryError as error:
                    never_fits(max(len(work.prompts[row]) for row in rows if row not in work.answers), error)
                except OSError:
                    if not work.give_up_unreadable(rows):
                        raise

    def _write(self, work: "_Workload") -> None:
        """Write the texts; each answer may bring new prompts. Halves the rows under way when memory runs out."""
        import torch

        loaded = self._load()
        while waiting := work.waiting():
            try:
                decoder = loaded.decoder(waiting[0].prompt, lambda row: work.requests[row].images)
                if decoder is None:
                    asked = [(work.requests[row.number], row.prompt) for row in waiting[: self._slots]]
                    for row, answer in zip(waiting, self._within_memory(loaded.write, asked), strict=False):
                        work.settle(row.number, answer)
                    continue
                decoder.run(
                    waiting, self._slots,
                    lambda row: work.settle(row.number, loaded.completion(work.requests[row.number], row)),
                )  # fmt: skip
            except torch.OutOfMemoryError as error:
                if self._slots == 1:
                    never_fits(max(len(row.prompt) for row in waiting), error)
                self._slots = min(self._slots, len(waiting)) // 2 or 1
            except OSError:
                if not work.give_up_unreadable([row.number for row in waiting]):
                    raise
                continue
            else:
                continue
            # Outside of `except`: the exception's traceback holds the tensors of the failed pass.
            torch.cuda.empty_cache()

    def _within_memory(self, answer: "_Ask", work: list[Work]) -> list[Completion]:
        """Answer ``work`` in pieces that fit the GPU: halves the piece when memory runs out, and stays there."""
        import torch

        done: list[Completion] = []
        while len(done) < len(work):
            piece = work[len(done) : len(done) + self._slots]
            try:
                done += answer(piece)
            except torch.OutOfMemoryError as error:
                if len(piece) == 1:
                    never_fits(len(piece[0][1]), error)
                self._slots = len(piece) // 2
            else:
                continue
            # Outside of `except`: the exception's traceback holds the tensors of the failed pass.
            torch.cuda.empty_cache()
        return done


def identity_of(model: ModelConfig, weights: Weights) -> str:
    """Return the digest of all weights in order, and of everything else that decides a loaded model's answers."""
    settings = model.model_dump(include={
        "template", "default_system", "image_max_pixels", "image_min_pixels", "dtype",
    })  # fmt: skip
    versions = [metadata.version(name) for name in _LIBRARIES]
    if model.quantization != "none":
        settings["quantization"] = model.quantization
        versions.append(metadata.version("bitsandbytes"))
    return digest([model_stamp(model), weights.stamps(), settings, versions])


def rows_at_once(model: ModelConfig) -> int:
    """Return how many rows a scoring pass has to begin with."""
    return _SCORED if model.batch_size == "auto" else model.batch_size


def fit_device(batch_sizer: BatchSizer, network: Any) -> None:
    """Set how many tokens a scoring pass has to begin with, and what a pass costs beyond them."""
    on_cpu = network.device.type == "cpu"
    batch_sizer.tokens, batch_sizer.pass_cost = (_CPU_TOKENS, _CPU_PASS) if on_cpu else (_GPU_TOKENS, _GPU_PASS)


class _Workload:
    """Requests, encoded as they come in, and their answers; an answer may bring further requests."""

    def __init__(self, encoder: Encoder, requests: Sequence[Request], follow: Follow) -> None:
        self._encoder, self._follow = encoder, follow
        self.requests: list[Request] = []
        self.prompts: list[list[int]] = []
        self.answers: dict[int, Answer] = {}
        self._enter(requests)

    def settle(self, row: int, answer: Answer) -> list[DecodingRow]:
        """Keep the answer of a row and return the rows of the requests that follow it."""
        self.answers[row] = answer
        return self._enter(self._follow(answer))

    def give_up_unreadable(self, rows: Sequence[int]) -> bool:
        """Fail those of ``rows`` whose images can no longer be read; tell whether there were any."""
        asked = {row: self.requests[row] for row in rows if row not in self.answers and self.requests[row].images}
        lost = {row: request for row, request in asked.items() if not _readable(request)}
        for row, request in lost.items():
            self.settle(row, unreadable(request, "readable before, but not now"))
        return bool(lost)

    def waiting(self) -> list[DecodingRow]:
        """Return a fresh row for every text that is not written yet, longest prompt first."""
        rows = [self._row(number) for number in range(len(self.requests)) if number not in self.answers]
        return sorted(rows, key=lambda row: -len(row.prompt))

    def _row(self, number: int) -> DecodingRow:
        return DecodingRow(number, self.prompts[number], self.requests[number].max_new_tokens)

    def _enter(self, requests: Sequence[Request]) -> list[DecodingRow]:
        rows = []
        for request in requests:
            number = len(self.requests)
            encoded = encode(self._encoder, request, request.label_words)
            self.requests.append(request)
            self.prompts.append(encoded if isinstance(encoded, list) else [])
            rows += self.settle(number, encoded) if isinstance(encoded, Failure) else [self._row(number)]
        return rows


_Ask = Callable[[list[Work]], list[Completion]]


def encode(encoder: Encoder, request: Request, label_words: Sequence[Sequence[str]] = ()) -> list[int] | Failure:
    """Return the tokens of a request's prompt, or its failure: an image cannot be read.

    With ``label_words``, the tokens that all of them begin with (a blank, in some tokenizers) belong to the prompt.
    """
    try:
        return encoder.encode(request.prompt, [image.path for image in request.images], label_words)
    except OSError as error:  # Pillow's errors on damaged files are among them
        return unreadable(request, type(error).__name__)


def unreadable(request: Request, why: str) -> Failure:
    """Return the failure of a request whose images cannot be read."""
    names = ", ".join(image.path.name for image in request.images)
    return Failure(request.key, f"image {names} cannot be read ({why})")


def _readable(request: Request) -> bool:
    try:
        for image in request.images:
            with PillowImage.open(image.path) as opened:
                opened.load()
    except OSError:
        return False
    return True


def _scoring(work: _Workload) -> list[list[int]]:
    """Group the rows to be scored by their choices: those may share a batch. Answers scored whole are one group."""
    groups: dict[tuple[tuple[str, ...], ...], list[int]] = {}
    for row, request in enumerate(work.requests):
        if request.choices and row not in work.answers:
            groups.setdefault(request.label_words, []).append(row)
    return list(groups.values())


def never_fits(tokens: int, error: Exception) -> NoReturn:
    """Raise the `StageError` for a prompt that does not fit the memory alone."""
    raise StageError(
        f"A single prompt of {tokens} tokens does not fit in the GPU's memory",
        "the model, the image or the user summary is too large for this device",
        "lower model.image_max_pixels, choose bfloat16, or use a smaller model",
    ) from error
