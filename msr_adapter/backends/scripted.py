"""A backend that answers by rule: for tests of everything around a model, never for results."""

import math
from collections.abc import Callable, Sequence

from msr_adapter.config.schema import ModelConfig
from msr_adapter.files import digest
from msr_adapter.generation.request import Backend, Completion, Follow, Request, ends_there
from msr_adapter.llamafactory.model_weights import BASE, Weights

Rule = Callable[[Request], str]


def make(_: ModelConfig, weights: Weights) -> Backend:
    """Return the backend; trained weights change its identity alone."""
    return ScriptedBackend(trained=weights != BASE)


def make_scorer(_: ModelConfig, __: ModelConfig, weights: Weights) -> Backend:
    """Return the backend in place of a server."""
    return ScriptedBackend(trained=weights != BASE)


class ScriptedBackend(Backend):
    """Deterministic answers that depend on the whole request; counts its calls."""

    label = "scripted"
    identity = ""

    def __init__(self, *, trained: bool = False, rule: Rule | None = None) -> None:
        self.identity = digest(["scripted", trained, None if rule is None else rule.__qualname__])
        self.calls = 0
        """Times `complete` was called."""
        self.answered: list[str] = []
        """Keys of all requests answered, in order."""
        self._rule = rule or _echo

    def complete(self, requests: Sequence[Request], follow: Follow = ends_there) -> list[Completion]:
        """Answer free text by the rule and choices by log-probabilities drawn from the request's key.

        A choice that is scored whole has one of between -1 and -2 a word.
        """
        self.calls += 1
        asked, answers = list(requests), list[Completion]()
        while len(answers) < len(asked):
            answers.append(self._answer(asked[len(answers)]))
            asked += follow(answers[-1])
        self.answered += [answer.key for answer in answers]
        return answers

    def _answer(self, request: Request) -> Completion:
        tokens_in = len(request.prompt.split())
        if request.whole:
            (text,) = request.choices
            tokens = len(text.split()) or 1
            share = int(digest([request.key])[:8], 16) / 0xFFFFFFFF
            return Completion(request.key, "", (-tokens * (1 + share),), "choice", tokens_in, tokens)
        if request.choices:
            return Completion(request.key, "", _logprobs(request), "choice", tokens_in, 0)
        words = self._rule(request).split()
        kept = words[: request.max_new_tokens]
        reason = "stop" if len(kept) == len(words) else "length"
        return Completion(request.key, " ".join(kept), (), reason, tokens_in, len(kept))


def _logprobs(request: Request) -> tuple[float, ...]:
    """Log-probabilities that share 90% of the mass among the choices."""
    weights = [1 + int(digest([request.key, choice])[:8], 16) for choice in request.choices]
    return tuple(math.log(0.9 * weight / sum(weights)) for weight in weights)


def _echo(request: Request) -> str:
    return f"A summary of {len(request.prompt)} characters and {len(request.images)} images, {request.key[:8]}."
