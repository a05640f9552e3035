"""Likelihoods of whole texts from a server: prompt and text are sent as numbers of tokens, and told back one by one.

A chat endpoint tells log-probabilities of what it writes itself. vLLM's `/v1/completions` with `echo` tells those of
the prompt: the trained one with the text behind it, as tokens, so that no template of the server's has a say. What
comes back has to be of these very tokens: anything else would meet every request, and ends the stage.
"""

import math
from collections.abc import Sequence
from typing import Any

import httpx

from msr_adapter.backends.http import (
    BrokenAnswerError,
    GaveUpError,
    RefusedError,
    UnusableServerError,
    read_json,
    reading_answer,
    sent_secrets,
    token_numbers,
)
from msr_adapter.backends.label_tokens import Send
from msr_adapter.backends.reference_prompts import ReferencePrompts
from msr_adapter.config.schema import ModelConfig
from msr_adapter.errors import StageError, plural
from msr_adapter.generation.request import Completion, Request, reason_of, why_impossible
from msr_adapter.redaction import quoted

SENT_AS_TOKENS = "sent as tokens, those of the training: no chat template of the server's has a say"
"""What is known of the prompts."""
_PATH = "completions"
_NUMBER = "token_id:"
_NONE = -9999.0
"""What vLLM writes for minus infinity, which JSON does not know."""
_ABSENT = frozenset({404, 405})
_REFUSED = frozenset({400, 422, 501})
"""How servers refuse what they do not know; any other status says nothing of what they know."""
_HERE = "serve the model by vLLM, or score with the model on this machine: remove evaluate.scorer"


class PromptLikelihoods:
    """Asks for texts behind prompts, and reads their log-probabilities; `ServerBackend` does the sending."""

    def __init__(self, served: ModelConfig, reference: ReferencePrompts) -> None:
        """``served`` is the model as the server calls it; ``reference`` encodes as training does."""
        assert served.server is not None
        self._name, self._url, self._reference = served.path, served.server.url.rstrip("/"), reference
        self.said = ""
        """One line on how the numbers are got; empty before the server was tried."""

    def require(self, requests: Sequence[Request]) -> None:
        """Raise `StageError` where one of ``requests`` cannot be sent as tokens."""
        if not requests:
            return
        if self._reference.encoder is None:
            raise StageError(
                f"Texts cannot be scored by a server without the trained model's tokenizer: {self._reference.absent}",
                "prompts are sent as numbers of tokens, which nobody else knows",
                "have the files of train.model on this machine, or remove evaluate.scorer",
            )
        if any(request.images for request in requests):
            raise StageError(
                "Texts cannot be scored by a server where prompts show images",
                "prompts are sent as numbers of tokens, and an image has none",
                "set train.images: false, or score with the model on this machine: remove evaluate.scorer",
            )

    async def try_server(self, request: Request, send: Send) -> None:
        """Find out with one request whether the server tells likelihoods, and how it names tokens.

        Raises `UnusableServerError` if it does not, `GaveUpError` where that is still not known.
        """
        path, content = self.query(request)
        try:
            _, numbered = self._told(request, await send(f"{self._url}/{path}", content))
        except RefusedError as error:
            if error.status in _ABSENT:
                cause = "it has a chat endpoint alone, or serves the model by another name than path"
                raise UnusableServerError(f"/{path} is not there: {error}", (cause, _HERE)) from None
            if error.status in _REFUSED:
                asked = plural(len(self._sent(request)[0]), "token")
                cause = "it knows no log-probabilities of prompts, no prompts of tokens, or none of this length"
                said = f"it refuses a prompt of {asked} with echo and logprobs: {error}"
                raise UnusableServerError(said, (cause, _HERE)) from None
            raise GaveUpError(str(error)) from None
        except BrokenAnswerError as error:
            raise GaveUpError(str(error)) from None
        verified = (
            "each is verified by its number" if numbered else "their count is verified, their numbers are not told"
        )
        self.said = f"exact: /{path} tells those of all tokens of a prompt and its text (echo); {verified}"

    def query(self, request: Request) -> tuple[str, dict[str, object]]:
        """Return the path below the server's URL, and the JSON for it, that ask for the likelihood of a text."""
        tokens, _ = self._sent(request)
        return _PATH, {
            "model": self._name, "prompt": tokens, "max_tokens": 1, "temperature": 0, "stream": False,
            "echo": True, "logprobs": 1, "return_tokens_as_token_ids": True,
        }  # fmt: skip

    def read(self, request: Request, response: httpx.Response) -> Completion:
        """Return the log-probability of a text from a response of status 200 to `query`.

        Raises `BrokenAnswerError` if the response is no answer, `UnusableServerError` if it tells something else.
        """
        logprobs, _ = self._told(request, response)
        tokens_in = len(self._sent(request)[0]) - len(logprobs)
        return Completion(request.key, "", (math.fsum(logprobs),), reason_of(()), tokens_in, len(logprobs))

    def _sent(self, request: Request) -> tuple[list[int], int]:
        """Return the tokens of a prompt and its text, and how many of them are the text's."""
        assert self._reference.encoder is not None, "require refuses this"
        text = self._reference.encoder.scored_ids(request.choices[0], end=request.whole == "turn")
        return [*self._reference.encode(request), *text], len(text)

    def _told(self, request: Request, response: httpx.Response) -> tuple[list[float], bool]:
        """Return the log-probability of each token of the text, and whether the server told the tokens' numbers."""
        sent, count = self._sent(request)
        with reading_answer("an answer with logprobs"):
            answer = read_json(response)
            told, (read, _) = answer["choices"][0].get("logprobs") or {}, token_numbers(answer)
            names, values = list(told.get("tokens") or ()), list(told.get("token_logprobs") or ())
            if len(names) != len(values):
                raise ValueError("tokens without log-probabilities")
        # The token that it has to write comes last, from a server that does not end the text at once.
        if len(names) not in (len(sent), len(sent) + 1):
            cause = "it ignores `echo`, or prompts have tokens of its own there, or are cut"
            told_of = f"it tells log-probabilities of {plural(len(names), 'token')}, and {len(sent)} were sent"
            raise UnusableServerError(told_of, (cause, _HERE))
        if read not in (0, len(sent)):  # 0: it does not say
            cause = "prompts have tokens of its own there, or are cut"
            raise UnusableServerError(f"it read {plural(read, 'token')}, and {len(sent)} were sent", (cause, _HERE))
        numbered = [isinstance(name, str) and name.startswith(_NUMBER) for name in names[: len(sent)]]
        for place, (token, name) in enumerate(zip(sent, names, strict=False)):
            if numbered[place] and name != f"{_NUMBER}{token}":
                said = f"token {place + 1} of a prompt is {_shown(name, response)} there, and {token} was sent"
                raise UnusableServerError(said, ("it serves another tokenizer, or changes prompts", _HERE))
        with reading_answer("an answer with log-probabilities"):  # a number may be too large for any
            logprobs = values[len(sent) - count : len(sent)]
            if why := next(filter(None, (_why_not(value, response) for value in logprobs)), ""):
                cause = "it tells no log-probabilities of prompts, or the model's numbers overflow in its precision"
                raise UnusableServerError(f"of a token of the text, {why}", (cause, _HERE))
            return [float(value) for value in logprobs], all(numbered)


def _why_not(value: Any, response: httpx.Response) -> str:
    """Return why a value of an answer is not the log-probability of a token, or nothing."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"it tells {'null' if value is None else _shown(value, response)} in place of a log-probability"
    if value <= _NONE:
        return "the probability is 0"
    return why_impossible([value])


def _shown(value: object, response: httpx.Response) -> str:
    return quoted(repr(value), sent_secrets(response))[:40]
