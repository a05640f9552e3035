"""The odds of fixed answers from a chat endpoint: one token, its alternatives, and what is certain of the rest."""

import math
from collections.abc import Mapping, Sequence

import httpx

from msr_adapter.backends.bodies import read_json
from msr_adapter.backends.retry import BrokenAnswerError, GaveUpError
from msr_adapter.generation.request import Completion, Request, reason_of

Names = Sequence[Sequence[frozenset[str]]]
"""Per choice, per spelling of it: the texts by which a server may call its first token."""

_SLACK = 1e-6
"""Servers round to float32: the mass that is left is not known better than this."""
_TIGHT = 1e-3
"""A log-probability that is known this well is no bound."""


def read_odds(request: Request, response: httpx.Response, names: Names) -> Completion:
    """Return the log-probability of each choice from a response of status 200.

    A first token that is not among the alternatives is bounded: it is no likelier than the least of them, and than the
    mass they leave. Such a choice is one of `Completion.bounded`. Raises `BrokenAnswerError` if the response is no
    answer, `GaveUpError` if it has no alternatives.
    """
    try:
        answer = read_json(response)
        choice = answer["choices"][0]
        content = (choice.get("logprobs") or {}).get("content") or []
        given = [(str(one["token"]), float(one["logprob"])) for one in content[0]["top_logprobs"]] if content else []
        usage = answer.get("usage") or {}
        tokens = [int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")]
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, OverflowError) as e:
        raise BrokenAnswerError(f"not an answer with logprobs ({type(e).__name__})") from None
    if not given:
        raise GaveUpError("the server gave no top_logprobs: it does not know them, or does not allow them")
    found = [_side(side, given) for side in names]
    bounded = [place for place, (_, is_bound) in enumerate(found) if is_bound]
    return Completion(request.key, "", tuple(value for value, _ in found), reason_of(bounded), *tokens)


def _side(spellings: Sequence[frozenset[str]], given: Sequence[tuple[str, float]]) -> tuple[float, bool]:
    """Return the log-probability of a choice and whether it is only an upper bound."""
    masses = [_mass(names, given) for names in spellings]
    known = sum(mass for mass in masses if mass is not None)
    missing = sum(mass is None for mass in masses)
    if not missing:
        return math.log(known), False
    least, left = (min(math.exp(value) for _, value in given), 1 - sum(math.exp(value) for _, value in given))
    most = known + min(missing * least, max(left, 0.0) + _SLACK)
    return (math.log(known), False) if known and math.log(most / known) < _TIGHT else (math.log(most), True)


def _mass(names: frozenset[str], given: Sequence[tuple[str, float]]) -> float | None:
    """Return the probability of a token; what a server gives the same text counts together. None = not among them."""
    found = [math.exp(value) for token, value in given if token in names]
    return max(sum(found), math.ulp(0.0)) if found else None


def overlapping(names: Names) -> Mapping[str, int]:
    """Return the texts that stand for more than one choice, with their number."""
    sides = [frozenset[str]().union(*side) for side in names]
    every = [name for side in sides for name in side]
    return {name: every.count(name) for name in sorted(set(every)) if every.count(name) > 1}
