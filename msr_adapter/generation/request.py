"""What a model is asked, what it answers, and what every backend is: `Request`, `Answer`, `Backend`.

The key of a request covers all that can change the answer.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from msr_adapter.errors import StageError
from msr_adapter.files import digest
from msr_adapter.generation.scoring_stats import ScoringStats

IMAGE_PLACEHOLDER = "<image>"
_BOUNDED = "bounded"


@dataclass(frozen=True)
class Image:
    """An image file and the digest of its bytes; only the digest identifies it."""

    path: Path
    digest: str


@dataclass(frozen=True)
class Request:
    """One user turn to one model: free text (``choices`` empty) or the log-probabilities of fixed answers."""

    model: str
    """Identity of model, adapter, template, pixels and dtype, as given by `Backend.identity`."""
    prompt: str
    """The user message; each image stands where `IMAGE_PLACEHOLDER` does."""
    images: tuple[Image, ...] = ()
    choices: tuple[str, ...] = ()
    """Answers to score by their first token, e.g. ``("Yes", "No")``; nothing is generated."""
    max_new_tokens: int = 0
    """Budget of the greedy answer when ``choices`` is empty."""
    also: tuple[tuple[str, ...], ...] = ()
    """Per choice, further words whose probability counts as its own; empty = none has any."""
    whole: Literal["", "answer", "turn"] = ""
    """What of each choice is scored. "": its first token, as above. answer: all tokens that training would read as this
    answer, each after the ones before it. turn: those that end the turn as well."""

    @cached_property
    def key(self) -> str:
        """SHA-256 of everything that can change the answer."""
        # Without further words the key is what it was before there were any: old caches go on answering.
        asked = [self.model, self.prompt, [i.digest for i in self.images], list(self.choices), self.max_new_tokens]
        if self.whole:
            asked.append({"whole": self.whole})
        return digest([*asked, [list(more) for more in self.also]] if any(self.also) else asked)

    @property
    def label_words(self) -> tuple[tuple[str, ...], ...]:
        """All words that count as each choice, the choice itself first; none where choices are scored whole."""
        if self.whole:
            return ()
        also = self.also or ((),) * len(self.choices)
        return tuple((choice, *more) for choice, more in zip(self.choices, also, strict=True))


@dataclass(frozen=True)
class Completion:
    """The answer to the request with the same key."""

    key: str
    text: str
    choice_logprobs: tuple[float, ...]
    """Log-probability of each choice, over the vocabulary: of the first tokens of its label words, or of all its tokens
    together where it is scored whole; empty for text."""
    finish_reason: str
    """``stop``, ``length`` or ``choice``; ``bounded:PLACES`` when some choices are only bounded."""
    tokens_in: int
    tokens_out: int
    """Tokens written, or scored where choices are scored whole."""

    @property
    def bounded(self) -> tuple[int, ...]:
        """Places of the choices that are only known to be no likelier than their log-probability says."""
        head, _, places = self.finish_reason.partition(":")
        return tuple(map(int, places.split(","))) if head == _BOUNDED else ()


def reason_of(bounded: Sequence[int]) -> str:
    """Return the finish reason of scored answers, of which the choices at the places ``bounded`` are bounds."""
    return f"{_BOUNDED}:{','.join(map(str, bounded))}" if bounded else "choice"


ROUNDING = 0.01
"""How far a probability may lie above 1: sums of numbers that were rounded to 16 bits do."""


def why_impossible(logprobs: Sequence[float], *, bounds: bool = False) -> str:
    """Return why numbers cannot be the log-probabilities of different answers, or nothing.

    ``bounds``: some are upper bounds, which may be more than 1 together.
    """
    if any(math.isnan(one) or one == math.inf for one in logprobs):
        return "a log-probability is not a number"
    if (largest := max(logprobs, default=0.0)) > ROUNDING:
        return f"a log-probability is {largest:.4g}, above 0"
    mass = sum(math.exp(one) for one in logprobs)
    return "" if bounds or mass <= 1 + ROUNDING else f"the probabilities of different answers sum to {mass:.4g}"


@dataclass(frozen=True)
class Failure:
    """Why the request with the same key has no answer; it is recorded and asked again by the next run."""

    key: str
    reason: str
    """One line, without secrets."""


class EngineLostError(StageError):
    """What holds the model is gone, and this process cannot bring it back: another process may, with the same work."""


Answer = Completion | Failure

Follow = Callable[[Answer], Sequence[Request]]
"""Takes an answer and returns the requests that it makes possible."""


def ends_there(_: Answer) -> Sequence[Request]:
    """Return no further requests."""
    return ()


class Backend(Protocol):
    """Answers requests.

    Implementations subclass it, so that they have the defaults of `stats` and of whatever is added later. A backend is
    one row of `config.schema.backends.BACKENDS` and one file in `backends/`.
    """

    @property
    def label(self) -> str:
        """What a reader of the cache calls this model."""

    @property
    def identity(self) -> str:
        """Digest of all that, beside the request, can change an answer; computed without loading weights."""

    @property
    def stats(self) -> ScoringStats | None:
        """What scoring took so far, and why prompts did not share prefixes; None: this backend counts nothing."""
        return None

    @property
    def facts(self) -> Mapping[str, str]:
        """What a manifest says of who answers: its name and version, and why it was chosen; empty for the default."""
        return {}

    def complete(self, requests: Sequence[Request], follow: Follow = ends_there) -> Sequence[Answer]:
        """Answer all requests, in their order; the backend batches and sorts by length as it likes.

        ``follow`` sees each answer as soon as it is there; what it returns is answered too, after the given ones.
        A fault of one request is its `Failure`; only what concerns every request is raised, as `StageError`.
        """
        ...


class BackendWrapper(Backend):
    """A backend around another one: the same answers, stats and identity. Subclasses override `complete`."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    @property
    def label(self) -> str:
        """As `Backend.label`."""
        return self._backend.label

    @property
    def identity(self) -> str:
        """As `Backend.identity`."""
        return self._backend.identity

    @property
    def stats(self) -> ScoringStats | None:
        """As `Backend.stats`."""
        return self._backend.stats

    @property
    def facts(self) -> Mapping[str, str]:
        """As `Backend.facts`."""
        return self._backend.facts

    def complete(self, requests: Sequence[Request], follow: Follow = ends_there) -> Sequence[Answer]:
        """As `Backend.complete`."""
        return self._backend.complete(requests, follow)


def engine_facts(backend: Backend) -> dict[str, dict[str, object]]:
    """Return what a manifest says of who answered, under ``engine``; nothing for the back end that is the default.

    With ``trial``: how many prompts transformers answered too, the largest difference of log-odds, and the allowed one.
    It is absent where everything was answered before, and no engine was started.
    """
    facts: dict[str, object] = dict(backend.facts)
    if backend.stats and backend.stats.trial:
        facts["trial"] = asdict(backend.stats.trial)
    return {"engine": facts} if facts else {}


@runtime_checkable
class Remote(Protocol):
    """What a backend does beside `Backend` when its prompts are put together elsewhere."""

    def compare(self, requests: Sequence[Request]) -> str:
        """Return one line on whether prompts have the tokens of the training; asked once, then remembered.

        Raises `StageError` with the first difference.
        """

    def exactness(self, requests: Sequence[Request] = ()) -> str:
        """Return one line on how log-probabilities of answers are got; found out with ``requests``, then remembered.

        Empty while it is not known.
        """
