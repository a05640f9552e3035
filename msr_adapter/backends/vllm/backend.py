"""A local model through vLLM, with prompts encoded by LLaMA-Factory's own template."""

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence

from msr_adapter.backends.huggingface import encode, identity_of, unreadable
from msr_adapter.backends.vllm.adapters import EngineWeights, engine_weights, how_applied
from msr_adapter.backends.vllm.engine import Engine, EngineAnswer, EnginePrompt, EngineSetup, EngineShare
from msr_adapter.backends.vllm.images import ShrunkImages
from msr_adapter.backends.vllm.installed import require_version
from msr_adapter.backends.vllm.trial import ReferenceAnswer, compare, references
from msr_adapter.config.schema import ModelConfig
from msr_adapter.errors import StageError
from msr_adapter.files import digest
from msr_adapter.generation.request import (
    Answer,
    Backend,
    Completion,
    EngineLostError,
    Failure,
    Follow,
    Request,
    ends_there,
)
from msr_adapter.generation.scoring_stats import ScoringStats
from msr_adapter.llamafactory.family_recognition import resolve_template
from msr_adapter.llamafactory.model_weights import BASE, Weights, own_adapters
from msr_adapter.llamafactory.prompt_encoder import Encoder


def make(model: ModelConfig, weights: Weights) -> Backend:
    """Return the back end with all of the GPUs that this process sees for one engine."""
    return make_engine(model, weights, EngineShare())


def make_engine(model: ModelConfig, weights: Weights, share: EngineShare) -> Backend:
    """Return the back end whose engine has ``share`` of the GPUs; nothing is loaded yet.

    A reward model compares answers by a head that vLLM does not have: transformers answers for it.
    """
    if weights.reward:
        from msr_adapter.backends.reward_model import RewardBackend

        return RewardBackend(model, weights)
    return VllmBackend(model, weights, share)


class VllmBackend(Backend):
    """Greedy text and log-probabilities of label words or whole texts from one engine, which batches as they come."""

    def __init__(self, model: ModelConfig, weights: Weights = BASE, share: EngineShare | None = None) -> None:
        self.model = resolve_template(model)
        self._weights, self._share = weights, share or EngineShare()
        self._identity = ""
        self._running: _StartedEngine | None = None
        self._stats = ScoringStats()

    @property
    def label(self) -> str:
        """The model as configured, whether it was trained, and the engine."""
        tuned = ", fine-tuned" if self._weights.full else ""
        adapters = " + adapter" * len(own_adapters(self.model) + self._weights.adapters)
        return f"{self.model.path} ({self.model.template}, {self.model.dtype}, vllm){tuned}{adapters}"

    @property
    def identity(self) -> str:
        """Digest of all that identifies the model, and of the engine and its version; loads no model."""
        made = self._identity or digest(["vllm", require_version(), identity_of(self.model, self._weights)])
        self._identity = made
        return made

    @property
    def stats(self) -> ScoringStats:
        """What scoring has taken so far, and how the engine compared with transformers."""
        return self._stats

    @property
    def facts(self) -> Mapping[str, str]:
        """The engine, its version, and how it applies adapters."""
        applied = how_applied(self.model, self._weights)
        return {"name": f"vllm {require_version()}"} | ({"adapters": applied} if applied else {})

    def complete(self, requests: Sequence[Request], follow: Follow = ends_there) -> list[Answer]:
        """Answer all requests, and those that ``follow`` adds, in the order asked. An unreadable image fails.

        The engine is started, and compared with transformers, at the first call. Raises `EngineLostError` when it dies.
        """
        self._make_room(max((len(request.images) for request in requests), default=0))
        running = self._running or self._start(requests)
        if running is None:
            # There is no prompt to try an engine with: each says why, and what would follow is answered likewise.
            return _all_failed(Encoder(self.model), requests, follow) if requests else []
        self._running = running
        asked, answers = list(requests), dict[int, Answer]()
        waiting = deque(range(len(asked)))

        def settle(number: int, answer: Answer) -> None:
            answers[number] = answer
            for more in follow(answer):
                waiting.append(len(asked))
                asked.append(more)

        try:
            while waiting or running.engine.busy:
                while waiting:
                    number = waiting.popleft()
                    if failure := running.hand_over(number, asked[number]):
                        settle(number, failure)
                if running.engine.busy:
                    for number, answer in running.engine.step():
                        settle(number, running.read(asked[number], answer, self._stats))
                    self._stats.passes += 1
        except BaseException:
            running.engine.abort()
            raise
        return [answers[number] for number in range(len(asked))]

    def _make_room(self, images: int) -> None:
        """End an engine that was started for fewer ``images`` a prompt than are asked about now: another follows it."""
        if self._running is not None and images > self._running.shown > 0:
            self._running.engine.close()
            self._running = None

    def _start(self, requests: Sequence[Request]) -> "_StartedEngine | None":
        """Start the engine and compare it with transformers; None where none of ``requests`` can be encoded."""
        require_version()
        known = references(self.model, self._weights, requests) if requests else []
        if not known:
            return None
        weights = engine_weights(self.model, self._weights, self.identity)
        running = _StartedEngine(self.model, weights, self._share, max(len(request.images) for request in requests))
        try:
            answers = dict(running.answers(known))
        except EngineLostError as error:
            # Others would die over it too: it has answered nothing yet.
            raise StageError(
                f"{error.what}, on the first prompts", "this version of vLLM cannot run the model on this device",
                "set backend: huggingface, or look at the log of the worker",
            ) from error  # fmt: skip
        trial = compare(known, [answers[place] for place in range(len(known))], self.model, running.piece)
        self._stats.trial = trial.with_another(self._stats.trial)
        return running


class _StartedEngine:
    """An engine, and what makes its prompts."""

    def __init__(self, model: ModelConfig, weights: EngineWeights, share: EngineShare, images: int) -> None:
        """Start it for prompts of at most ``images`` images each."""
        self._expanding, self._plain = Encoder(model), Encoder(model, expand_images=False)
        self._images = ShrunkImages(self._expanding, self._plain)
        self.shown = max(images, 1) if self._expanding.sees_images else 0
        self.engine = Engine(model, EngineSetup(weights, share, tuple(self._expanding.stop_ids), self.shown))

    def hand_over(self, number: int, request: Request) -> Failure | None:
        """Hand a request to the engine, or return why that cannot be done."""
        tokens = [token for side in self._sides(request) for token in side]
        prompt = self._prompt(request, tokens, request.max_new_tokens)
        if isinstance(prompt, Failure):
            return prompt
        try:
            self.engine.add(number, prompt)
        except ValueError as error:
            return Failure(request.key, str(error))
        return None

    def answers(self, known: Sequence[ReferenceAnswer]) -> Iterator[tuple[int, EngineAnswer]]:
        """Yield the places of ``known`` and what the engine answers there. Raises `StageError` if it takes one not."""
        for place, one in enumerate(known):
            prompt = self._prompt(one.request, one.tokens, 1)
            try:
                if isinstance(prompt, Failure):
                    raise ValueError(prompt.reason)
                self.engine.add(place, prompt)
            except ValueError as error:
                raise StageError(
                    f"vLLM does not answer a prompt that transformers answers: {error}", "", "set backend: huggingface"
                ) from error
        while self.engine.busy:
            yield from self.engine.step()

    def read(self, request: Request, answer: EngineAnswer, stats: ScoringStats) -> Completion:
        """Return an answer of the engine as every back end gives it, and count it where it is a score."""
        length = len(answer.prompt_ids) - len(answer.scored)
        self._require_length(request, length)
        if not request.choices:
            ids = answer.ids
            stopped = bool(ids) and ids[-1] in self._expanding.stop_ids
            kept = ids[:-1] if stopped else ids
            text = self._expanding.tokenizer.decode(kept, skip_special_tokens=True).strip()
            return Completion(request.key, text, (), "stop" if stopped else "length", length, len(kept))
        stats.rows += 1
        stats.tokens_flat += len(answer.prompt_ids)
        stats.tokens_planned += len(answer.prompt_ids) - answer.cached
        stats.tokens_processed += len(answer.prompt_ids) - answer.cached
        if request.whole:
            logprob = math.fsum(answer.scored)
            return Completion(request.key, "", (logprob,), "choice", length, len(answer.scored))
        logprobs = tuple(_sum([answer.logprobs[token] for token in side]) for side in self._sides(request))
        return Completion(request.key, "", logprobs, "choice", length, 0)

    def piece(self, token: int) -> str:
        """Return the text of a token."""
        return str(self._expanding.tokenizer.convert_ids_to_tokens(token))

    def _prompt(self, request: Request, tokens: Sequence[int], budget: int) -> EnginePrompt | Failure:
        """Return the prompt of a request, or its failure: an image cannot be read.

        A text that is scored whole ends it, and its tokens are those that are asked for.
        """
        ids = encode(self._plain, request, request.label_words)
        if isinstance(ids, Failure):
            return ids
        try:
            pixels = self._images.get(request.images)
        except OSError as error:
            return unreadable(request, type(error).__name__)
        if request.whole:
            answer = self._plain.scored_ids(request.choices[0], end=request.whole == "turn")
            return EnginePrompt([*ids, *answer], request.images, tuple(pixels), scored=tuple(answer))
        return EnginePrompt(ids, request.images, tuple(pixels), tuple(tokens), budget)

    def _sides(self, request: Request) -> tuple[tuple[int, ...], ...]:
        """Return the first tokens of each choice's label words; none for a text, written or scored."""
        return self._expanding.side_tokens(request.label_words) if request.label_words else ()

    def _require_length(self, request: Request, length: int) -> None:
        """Raise `StageError` where an image has another number of tokens than in training: the trial saw only some."""
        if not request.images:
            return
        plain = len(self._plain.encode(request.prompt, [image.path for image in request.images], request.label_words))
        if length != (trained := plain + self._images.added_tokens(request.images)):
            names = ", ".join(image.path.name for image in request.images)
            raise StageError(
                f"vLLM reads a different prompt from training: {length} tokens, not {trained}, with image {names}",
                "this version shrinks images of this size differently", "set backend: huggingface",
            )  # fmt: skip


def _sum(logprobs: Sequence[float]) -> float:
    """Return the log-probability of any of some tokens."""
    most = max(logprobs)
    if math.isinf(most) or len(logprobs) == 1:
        return most
    return most + math.log(sum(math.exp(one - most) for one in logprobs))


def _all_failed(encoder: Encoder, requests: Sequence[Request], follow: Follow) -> list[Answer]:
    asked, answers = list(requests), list[Answer]()
    while len(answers) < len(asked):
        request = asked[len(answers)]
        found = encode(encoder, request, request.label_words)
        failed = found if isinstance(found, Failure) else unreadable(request, "readable now, but not before")
        answers.append(failed)
        asked += follow(failed)
    return answers
