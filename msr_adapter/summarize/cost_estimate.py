"""What a stage is about to ask, estimated before it asks: calls, tokens, and what the cache answers already."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, NamedTuple, Protocol

import PIL.Image

from msr_adapter.config.schema import ModelConfig
from msr_adapter.generation import Answer, Chain, Completion, Image
from msr_adapter.generation.request_chains import Chains, Lookup
from msr_adapter.llamafactory.token_counts import image_tokens, overhead, token_counter
from msr_adapter.progress import Reporter
from msr_adapter.prompts.variables import IMAGE_PLACEHOLDER

_SAMPLED = 1_000
"""Chains whose prompts are rendered and counted, evenly spaced; fewer are all counted."""
_FED = 10_000
"""Chains that are moved through the cache at a time: their number sets the memory."""
_MARKS = 2
"""Tokens around an image's own."""


class ExpectedRequest(NamedTuple):
    """One request of a chain, as far as it is known before the answers."""

    prompt: str
    """Answers to come are named in it between ‹ and ›."""
    to_come: int
    """Tokens that these answers can have, at most."""
    images: tuple[Image, ...] = ()


class PlannedChain(Protocol):
    """A chain that can tell what it will ask."""

    def __call__(self) -> Chain[Any]:
        """Begin the chain."""

    def decisions(self) -> Iterator[object]:
        """Yield, request by request, what decides it: equal for requests that will be equal."""

    def expected(self) -> Iterator[ExpectedRequest]:
        """Yield the requests, at most as many as there can be."""


@dataclass(frozen=True)
class CostEstimate:
    """The cost of a stage that has not begun. Requests depend on earlier answers, so that most numbers are bounds."""

    calls: int
    """Distinct requests, at most: answers may turn out equal, and a chain may end early."""
    cached: int
    """Those that are answered already, as far as can be told now."""
    to_ask: int
    """The rest, at most."""
    prompt_tokens: int
    """Of the requests to ask: an estimate."""
    prompt_tokens_most: int
    answer_tokens: int | None
    """An estimate by the answers that are known; None without any."""
    answer_tokens_most: int
    counted: str
    """How tokens were counted, and whether in all chains."""

    def line(self, label: str) -> str:
        """Return the estimate as one line for the log."""
        if not self.to_ask:
            return f"{label}: all {self.calls:,} requests are answered already"
        about = "" if self.answer_tokens is None else f"about {self.answer_tokens:,}, "
        return (
            f"{label}: {self.calls:,} requests at most, {self.cached:,} answered already; to ask {self.to_ask:,}: "
            f"about {self.prompt_tokens:,} prompt tokens (at most {self.prompt_tokens_most:,}), "
            f"answer tokens {about}at most {self.answer_tokens_most:,} ({self.counted})"
        )

    def tell(self, reporter: Reporter, label: str) -> None:
        """Note what is left to ask, if anything is."""
        if self.to_ask:
            reporter.note(self.line(label))

    def as_dict(self) -> dict[str, Any]:
        """Return all fields by name, for a manifest."""
        return asdict(self)


class Counter:
    """Counts the tokens of requests to one model without loading it."""

    def __init__(self, model: ModelConfig) -> None:
        self._model = model
        self._count, self.how = token_counter(model)
        self._around = overhead(model, self._count)

    def text(self, prompt: str) -> int:
        """Return the tokens of a prompt and of the chat template around it, without its image."""
        return self._count(prompt.replace(IMAGE_PLACEHOLDER, "")) + self._around

    def image(self, image: Image) -> int | None:
        """Return the tokens of an image; None if its kind of model is unknown or it cannot be read."""
        try:
            with PIL.Image.open(image.path) as opened:  # reads the header alone
                known = image_tokens(self._model, *opened.size)
        except (OSError, SyntaxError, ValueError):  # the request will fail and be told
            return None
        return None if known is None else known + _MARKS

    def images(self, images: Sequence[Image]) -> int | None:
        """Return the tokens of all ``images``; None as above for any."""
        found = [self.image(image) for image in images]
        return None if None in found else sum(number or 0 for number in found)


def estimate_cost(starts: Sequence[PlannedChain], known: Lookup, model: ModelConfig, budget: int) -> CostEstimate:
    """Return what is left to ask of ``starts``. O(chains), plus the rendering of a sample of their prompts."""
    cached, to_ask, read, written = _known(starts, known)
    calls = cached + to_ask
    mean = written / cached if cached else None
    counter = Counter(model)
    size, most, sampled, blind = _sizes(starts, counter, 1.0 if mean is None else min(1.0, mean / budget))
    steps = max(1, sampled)
    expected = round(size / steps * to_ask)
    return CostEstimate(
        calls, cached, to_ask, expected, max(expected, round(most / steps * calls) - read) if to_ask else 0,
        None if mean is None else round(mean * to_ask), to_ask * budget,
        counter.how
        + (f"; in {_SAMPLED:,} of {len(starts):,} chains" if len(starts) > _SAMPLED else "")
        + ("; images not counted" if blind else ""),
    )  # fmt: skip


def spaced(number: int, wanted: int) -> list[int]:
    """Return at most ``wanted`` of the places 0..number-1, evenly spaced."""
    wanted = min(number, wanted)
    return [place * number // wanted for place in range(wanted)]


def _known(starts: Sequence[PlannedChain], known: Lookup) -> tuple[int, int, int, int]:
    """Return how many requests are answered already, how many are left at most, and the tokens read and written."""
    seen: dict[str, tuple[int, int]] = {}
    # Only of chains that stand at a request something is left: one that reached its end may have taken fewer requests
    # than were planned, or such as other chains turned out to share.
    left: set[object] = set()
    for start in range(0, len(starts), _FED):
        part = starts[start : start + _FED]
        chains = Chains(part)
        chains.feed(known)
        answers: list[Answer] = list(chains.answers.values())
        seen.update((a.key, (a.tokens_in, a.tokens_out)) for a in answers if isinstance(a, Completion))
        for place in chains.stuck():
            left.update(islice(part[place].decisions(), chains.steps[place], None))
    return len(seen), len(left), sum(read for read, _ in seen.values()), sum(written for _, written in seen.values())


def _sizes(starts: Sequence[PlannedChain], counter: Counter, share: float) -> tuple[float, float, int, bool]:
    """Return estimated and greatest tokens of the distinct requests of a sample, their number, and whether an image
    could not be counted; ``share`` of the tokens to come are expected."""
    size = most = 0.0
    seen: set[object] = set()
    blind = False
    for place in spaced(len(starts), _SAMPLED):
        for decision, request in zip(starts[place].decisions(), starts[place].expected(), strict=True):
            if decision not in seen:
                seen.add(decision)
                image = counter.images(request.images)
                blind = blind or image is None
                fixed = counter.text(request.prompt) + (image or 0)
                size, most = size + fixed + share * request.to_come, most + fixed + request.to_come
    return size, most, len(seen), blind
