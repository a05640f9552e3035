"""Exact label log-probabilities from servers that take the numbers of tokens, and how one finds out that a server does.

Two request shapes are known. vLLM (seen in 0.26) takes `logprob_token_ids` beside a chat request and returns these
tokens and the sampled one, whatever their rank. SGLang has `/v1/score`, which takes the tokens of a prompt, without
images, and returns the probability of each of `label_token_ids`. Servers that do not know a field ignore it or refuse
the request, so each shape is tried once on one prompt, and what came back decides.
"""

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import httpx

from msr_adapter.backends.http import BrokenAnswerError, GaveUpError, RefusedError, read_json, reading_answer
from msr_adapter.config.schema import ServerConfig
from msr_adapter.generation.request import Completion, Request, reason_of, why_impossible
from msr_adapter.redaction import quoted

LabelTokens = Sequence[Sequence[int]]
"""Per choice: the numbers of the first tokens of its label words."""

Send = Callable[[str, Mapping[str, object]], Awaitable[httpx.Response]]
"""Sends JSON to an address and returns the response of status 200. A refusal is a `RefusedError`, at once; what passes
by itself is tried again, and is a `GaveUpError` in the end."""

SAME = 0.25
"""How far two log-probabilities of one token may lie apart for one prompt: logits near 20 are rounded to 0.125 in 16
bits; a prompt with other tokens in it is mostly further away."""
_PROBE = "Is this a question?"
_FIRST_TOKENS = 4
_UNKNOWN_FIELD = frozenset({400, 422, 500, 501})
"""How servers refuse a field that they do not know; any other status refuses the request, whatever it holds."""


@dataclass(frozen=True)
class ExactWays:
    """By which request shapes a server tells exact log-probabilities of label words."""

    chat: bool = False
    """Its chat endpoint takes `logprob_token_ids`."""
    score: bool = False
    """It has SGLang's `/v1/score`: for prompts without images."""
    said: str = ""
    """One line on what was found."""


class ProbedScoring(Protocol):
    """What a probe asks of the scoring that wants to know."""

    def natural(self, request: Request) -> dict[str, object]:
        """Return the chat request for the likeliest alternatives."""

    def asked(self, request: Request, tokens: Sequence[int]) -> dict[str, object]:
        """Return the chat request for the log-probabilities of ``tokens``."""

    def scored(self, request: Request, tokens: Sequence[int]) -> dict[str, object]:
        """Return the request to `/v1/score`."""

    def found(self, response: httpx.Response) -> Mapping[int, float]:
        """Return the log-probabilities in an answer to a chat request, by token, as far as they are known tokens."""


def probe_request(requests: Sequence[Request]) -> Request:
    """Return the prompt to try a server with: the first without an image, else a question of a few words."""
    asked = [request for request in requests if request.choices]
    plain = next((request for request in asked if not request.images), None)
    first = asked[0]
    return plain or Request(first.model, _PROBE, choices=first.choices, also=first.also)


async def find_ways(
    server: ServerConfig, scoring: ProbedScoring, request: Request, labels: LabelTokens, send: Send
) -> ExactWays:
    """Try both shapes with one prompt and return what the server takes.

    Raises `GaveUpError` where the server gave no answer that tells.
    """
    base, tokens = server.url.rstrip("/"), [token for words in labels for token in words]
    # The first numbers of a vocabulary are never among the likeliest by chance: what holds them all was made for us.
    tried = list(dict.fromkeys([*tokens, *range(_FIRST_TOKENS)]))
    chat, why_not = f"{base}/chat/completions", "ignored"
    try:
        response = await send(chat, scoring.asked(request, tried))
        if scoring.found(response).keys() >= set(tried):
            return ExactWays(chat=True, said="exact: the server takes logprob_token_ids")
    except RefusedError as error:
        if error.status not in _UNKNOWN_FIELD:
            raise GaveUpError(str(error)) from None
        why_not = f"refused ({quoted(error)})"
    except BrokenAnswerError as error:
        why_not = f"answered with something that is {quoted(error)}"
    alternatives = f"the {server.top_logprobs} likeliest alternatives; a label word not among them has only a bound"
    fault = await _try_score(f"{base}/score", scoring, request, tokens, chat, send)
    told = f"logprob_token_ids is {why_not}, /v1/score {fault or 'is served'}"
    if fault:
        return ExactWays(said=f"from {alternatives} ({told})")
    return ExactWays(score=True, said=f"exact for prompts without an image; for others from {alternatives} ({told})")


async def _try_score(
    address: str, scoring: ProbedScoring, request: Request, tokens: Sequence[int], chat: str, send: Send
) -> str:
    """Return why `/v1/score` is not to be used, or nothing.

    A server may put tokens of its own between the parts of a prompt, and another library has another endpoint of this
    name: its probabilities must be those of the chat endpoint for the same prompt.
    """
    try:
        response = await send(address, scoring.scored(request, tokens))
        given = dict(zip(tokens, read_scores(response, len(tokens)), strict=True))
    except RefusedError as error:
        absent = error.status in (404, 405)
        return "is not served" if absent else f"is refused ({quoted(error)})"
    except (BrokenAnswerError, GaveUpError) as error:
        return f"gives no scores ({quoted(error)})"
    try:
        known = scoring.found(await send(chat, scoring.natural(request)))
    except (RefusedError, BrokenAnswerError, GaveUpError) as error:
        return f"cannot be compared with the chat answers ({quoted(error)})"
    both = {token: (given[token], known[token]) for token in tokens if token in known}
    if not both:
        return "cannot be compared with the chat answers: no label word is among their alternatives"
    far = [pair for pair in both.values() if abs(pair[0] - pair[1]) > SAME]
    if far:
        ours, theirs = (math.exp(value) for value in far[0])
        return f"disagrees with the chat answers (probability {ours:.3g}, {theirs:.3g} in chat): the prompts differ"
    return ""


def score_body(model: str, prompt: Sequence[int], tokens: Sequence[int]) -> dict[str, object]:
    """Return the JSON for `/v1/score`: the prompt as tokens, whose last one is the item."""
    return {
        "model": model, "query": list(prompt[:-1]), "items": [[prompt[-1]]], "label_token_ids": list(tokens),
        "apply_softmax": False, "item_first": False,
    }  # fmt: skip


def read_scores(response: httpx.Response, count: int) -> list[float]:
    """Return the log-probabilities of ``count`` tokens from an answer of `/v1/score`.

    Raises `BrokenAnswerError` if it is none, `GaveUpError` for numbers that are no probabilities.
    """
    with reading_answer("an answer with scores"):
        [row] = read_json(response)["scores"]
        values = [float(value) for value in row]
        if len(values) != count:
            raise ValueError("another number of scores")
        negative = next((value for value in values if not value >= 0), None)
    if negative is not None:
        raise GaveUpError(f"impossible probabilities from the server: {negative:.4g}")
    # The smallest float stands for a probability that was rounded to 0, which has no logarithm.
    logprobs = [math.log(max(value, math.ulp(0.0))) if value < math.inf else math.inf for value in values]
    if reason := why_impossible(logprobs):
        raise GaveUpError(f"impossible probabilities from the server: {reason}")
    return logprobs


def completion(request: Request, labels: LabelTokens, logprobs: Sequence[float], tokens_in: int) -> Completion:
    """Return the exact answer: the words of each choice count together."""
    values = iter(logprobs)
    masses = [sum(math.exp(next(values)) for _ in words) for words in labels]
    choices = tuple(math.log(max(mass, math.ulp(0.0))) for mass in masses)
    return Completion(request.key, "", choices, reason_of(()), tokens_in, 0)
