"""Label log-probabilities from a server: exact ones where it takes the numbers of tokens, else those of alternatives.

A chat endpoint returns the likeliest few alternatives to its token. A label word that is not among them is no likelier
than the least of them, and than the mass that they leave: its log-probability is a bound, and the answer says so. Where
`label_tokens` finds that the server takes the numbers of the label words, these are asked for instead.
"""

import math
from collections.abc import Mapping, Sequence

import httpx

from msr_adapter.backends.http import GaveUpError, read_json, reading_answer, token_numbers
from msr_adapter.backends.label_tokens import (
    ExactWays,
    LabelTokens,
    Send,
    completion,
    find_ways,
    probe_request,
    read_scores,
    score_body,
)
from msr_adapter.backends.openai_messages import chat
from msr_adapter.backends.prompt_likelihoods import SENT_AS_TOKENS, PromptLikelihoods
from msr_adapter.backends.reference_prompts import LabelNames, ReferencePrompts, compare_prompts
from msr_adapter.config.schema import ModelConfig
from msr_adapter.errors import StageError
from msr_adapter.files import digest
from msr_adapter.generation.request import Completion, Request, reason_of, why_impossible
from msr_adapter.llamafactory.model_weights import own_adapters, trained_stamp

_FIELDS = {"path", "revision", "template", "default_system", "image_max_pixels", "image_min_pixels"}
"""Fields of the trained model that decide what is sent and how the answer is read; images are shrunk by them."""
_SLACK = 1e-6
"""Servers round to float32: the mass that is left is not known better than this."""
_NUMBER = "token_id:"
_TIGHT = 1e-3
"""A log-probability that is known this well is no bound."""


class ServerScoring:
    """Scores through a server that serves a model trained on top of ``base``: label words, or whole texts."""

    def __init__(self, served: ModelConfig, base: ModelConfig, stamps: Sequence[str]) -> None:
        """``stamps`` identify the trained weights, where they are known here. A system text is the trained one."""
        assert served.server is not None
        system = served.default_system if served.default_system is not None else base.default_system
        self._model, self._server = served.model_copy(update={"default_system": system}), served.server
        self._base, self._stamps, self._reference = base, list(stamps), ReferencePrompts(base)
        self._names: dict[tuple[tuple[str, ...], ...], LabelNames] = {}
        self._tokens: dict[tuple[tuple[str, ...], ...], LabelTokens] = {}
        self.ways: ExactWays | None = None
        """By what the server tells label words; None before it was tried."""
        self._likelihoods = PromptLikelihoods(self._model, self._reference)

    @property
    def said(self) -> str:
        """One line on how log-probabilities are got; empty before the server was tried."""
        return self._likelihoods.said or (self.ways.said if self.ways else "")

    @property
    def identity(self) -> str:
        """Digest of all that decides how an answer is found among the alternatives; loads nothing."""
        base = self._base.model_dump(mode="json", include=_FIELDS)
        adapters = [trained_stamp(folder) for folder in own_adapters(self._base)]
        # "odds" is what these scores were once called: the word stays, so that cached answers are found.
        return digest(["odds", base, adapters, self._model.default_system, self._stamps, self._server.top_logprobs])

    def resolve(self, requests: Sequence[Request]) -> None:
        """Find the tokens of all label words. Raises `StageError` when two choices cannot be told apart, or a prompt
        whose text is scored whole cannot be sent."""
        self._likelihoods.require([request for request in requests if request.whole])
        for request in requests:
            if request.label_words and request.label_words not in self._names:
                names = self._reference.names(request.label_words)
                if twice := ambiguous(names):
                    raise StageError(
                        f"Two answers look the same among a server's alternatives: {', '.join(map(repr, twice))}",
                        "their first tokens differ in something that text does not show, such as a leading blank",
                        "score with the model on this machine: remove evaluate.scorer",
                    )
                self._names[request.label_words] = names
                self._tokens[request.label_words] = self._reference.tokens(request.label_words)

    async def find_ways(self, requests: Sequence[Request], send: Send) -> None:
        """Find out, once, whether the server tells exact log-probabilities. `GaveUpError` if it does not answer,
        `UnusableServerError` if whole texts are to be scored and it tells no likelihoods."""
        if whole := next((request for request in requests if request.whole), None):
            if not self._likelihoods.said:
                await self._likelihoods.try_server(whole, send)
            return
        if self.ways is not None or not any(request.choices for request in requests):
            return
        probe = probe_request(requests)
        if labels := self._tokens[probe.label_words]:
            self.ways = await find_ways(self._server, self, probe, labels, send)
        else:
            said = f"from the {self._server.top_logprobs} likeliest alternatives, or bounds ({self._reference.absent})"
            self.ways = ExactWays(said=said)

    def query(self, request: Request) -> tuple[str, dict[str, object]]:
        """Return the path below the server's URL, and the JSON for it, that ask for the label words of a request, or
        for its whole text.

        Raises `OSError` if an image cannot be read.
        """
        if request.whole:
            return self._likelihoods.query(request)
        tokens = [token for words in self._tokens[request.label_words] for token in words]
        if self._by_score(request):
            return "score", self.scored(request, tokens)
        return "chat/completions", self.asked(request, tokens) if self._by_tokens else self.natural(request)

    def natural(self, request: Request) -> dict[str, object]:
        """Return the JSON that asks for one greedy token and the likeliest alternatives to it."""
        return self._one_token(request) | {"top_logprobs": self._server.top_logprobs}

    def asked(self, request: Request, tokens: Sequence[int]) -> dict[str, object]:
        """Return the JSON that asks for one greedy token and the log-probabilities of ``tokens``."""
        # As many alternatives as tokens: some servers return no more of the tokens than of these.
        exact = {"logprob_token_ids": list(tokens), "return_tokens_as_token_ids": True, "top_logprobs": len(tokens)}
        return self._one_token(request) | exact

    def scored(self, request: Request, tokens: Sequence[int]) -> dict[str, object]:
        """Return the JSON for `/v1/score`, with the trained prompt as tokens."""
        return score_body(self._model.path, self._reference.encode(request), tokens)

    def _one_token(self, request: Request) -> dict[str, object]:
        return chat(self._model, request, self._reference.url) | {"max_tokens": 1, "logprobs": True}

    @property
    def _by_tokens(self) -> bool:
        return self.ways is not None and self.ways.chat

    def _by_score(self, request: Request) -> bool:
        return self.ways is not None and self.ways.score and not request.images

    def read(self, request: Request, response: httpx.Response) -> Completion:
        """Return the log-probabilities in a response of status 200 to `query`."""
        if request.whole:
            return self._likelihoods.read(request, response)
        labels = self._tokens[request.label_words]
        if self._by_score(request):
            logprobs = read_scores(response, sum(map(len, labels)))
            return completion(request, labels, logprobs, len(self._reference.encode(request)))
        if self._by_tokens:
            return read_logprobs(request, response, [[named(token) for token in words] for words in labels], every=True)
        return read_logprobs(request, response, self._names[request.label_words])

    def found(self, response: httpx.Response) -> dict[int, float]:
        """Return the log-probabilities of label words and of tokens by number in an answer to a chat request."""
        with reading_answer("an answer with logprobs"):
            given, _ = _alternatives(response)
        names = {text: token for known, labels in zip(self._names.values(), self._tokens.values(), strict=True)
                 for words, tokens in zip(known, labels, strict=True)
                 for texts, token in zip(words, tokens, strict=True) for text in texts}  # fmt: skip
        numbers = {token: int(token.removeprefix(_NUMBER)) for token, _ in given
                   if token.removeprefix(_NUMBER).isdecimal() and token.startswith(_NUMBER)}  # fmt: skip
        known = names | numbers
        return {known[token]: value for token, value in given if token in known}

    def compare(self, requests: Sequence[Request], headers: Mapping[str, str]) -> str:
        """Compare the server's prompts with the trained ones; see `compare_prompts`.

        Those of texts that are scored whole are sent as tokens, and need no comparison.
        """
        if whole := [request for request in requests if request.whole]:
            self._likelihoods.require(whole)
            return SENT_AS_TOKENS
        if not self._server.compare_prompts:
            return "not verified (server.compare_prompts is false)"
        return compare_prompts(self._model, self._server, self._reference, requests, headers)


def named(token: int) -> frozenset[str]:
    """Return what a server calls a token when it is asked for numbers."""
    return frozenset({f"{_NUMBER}{token}"})


def read_logprobs(request: Request, response: httpx.Response, names: LabelNames, *, every: bool = False) -> Completion:
    """Return the log-probability of each choice from a response of status 200.

    A choice with a label word that is not among the alternatives is one of `Completion.bounded`; where ``every`` one
    was asked for by its number, it is a fault: what came back is no list of the likeliest, and bounds nothing. Raises
    `BrokenAnswerError` if the response is no answer, `GaveUpError` if it has no alternatives.
    """
    with reading_answer("an answer with logprobs"):
        given, tokens = _alternatives(response)
    if not given:
        raise GaveUpError("the server gave no top_logprobs: it does not know them, or does not allow them")
    all_names = frozenset[str]().union(*(texts for words in names for texts in words))
    if every:
        given = list(dict.fromkeys(given))  # the sampled token may be told once as such and once as asked for
        texts = [token for token, _ in given if token in all_names]
        if left_out := all_names - set(texts):
            raise GaveUpError(f"the server left out what it was asked for: {', '.join(sorted(left_out))}")
        if twice := {token for token in texts if texts.count(token) > 1}:
            raise GaveUpError(f"impossible probabilities from the server: {min(twice)!r} has several")
    with reading_answer("an answer with log-probabilities"):
        if reason := _impossible(given, all_names):
            raise GaveUpError(f"impossible probabilities from the server: {reason}")
        found = [_label_logprob(words, given) for words in names]
    bounded = [place for place, (_, is_bound) in enumerate(found) if is_bound]
    return Completion(request.key, "", tuple(value for value, _ in found), reason_of(bounded), *tokens)


def _alternatives(response: httpx.Response) -> tuple[list[tuple[str, float]], tuple[int, int]]:
    """Return the alternatives to the first token of an answer, and its numbers of tokens; raises for no answer."""
    answer = read_json(response)
    content = (answer["choices"][0].get("logprobs") or {}).get("content") or []
    given = [(str(one["token"]), float(one["logprob"])) for one in content[0]["top_logprobs"]] if content else []
    return given, token_numbers(answer)


def _impossible(given: Sequence[tuple[str, float]], label_names: frozenset[str]) -> str:
    """Return why these cannot be the alternatives to one token, or nothing.

    Two tokens may have one text, with and without the blank before them, but not three, nor one token twice: it is
    known by its log-probability. Other texts, of broken characters or of nothing, may come any number of times.
    """
    if reason := why_impossible([value for _, value in given]):
        return reason
    labels = [one for one in given if one[0] in label_names]
    texts = [token for token, _ in labels]
    twice = next((token for token, value in labels if labels.count((token, value)) > 1 or texts.count(token) > 2), None)
    return "" if twice is None else f"the alternative {twice!r} appears several times"


def _label_logprob(words: Sequence[frozenset[str]], given: Sequence[tuple[str, float]]) -> tuple[float, bool]:
    """Return the log-probability of a choice and whether it is only an upper bound."""
    masses = [_mass(names, given) for names in words]
    known = sum(mass for mass in masses if mass is not None)
    missing = sum(mass is None for mass in masses)
    if not missing:
        return math.log(known), False
    least, left = (min(math.exp(value) for _, value in given), 1 - sum(math.exp(value) for _, value in given))
    most = known + min(missing * least, max(left, 0.0) + _SLACK)
    # A rare label word that is missing beside a likely one changes nothing that shows: that is no bound.
    return (math.log(known), False) if known and math.log(most / known) < _TIGHT else (math.log(most), True)


def _mass(names: frozenset[str], given: Sequence[tuple[str, float]]) -> float | None:
    """Return the probability of a token; what a server gives the same text counts together. None = not among them."""
    found = [math.exp(value) for token, value in given if token in names]
    # exp of a very small log-probability is 0, of which there is no logarithm: the smallest float stands for it.
    return max(sum(found), math.ulp(0.0)) if found else None


def ambiguous(names: LabelNames) -> Mapping[str, int]:
    """Return the texts that stand for more than one choice, with their number."""
    choices = [frozenset[str]().union(*words) for words in names]
    every = [name for choice in choices for name in choice]
    return {name: every.count(name) for name in sorted(set(every)) if every.count(name) > 1}
