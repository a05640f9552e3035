"""Trying again: exponential back-off with full jitter, `Retry-After` honoured, an end to it in any case."""

import asyncio
import json
import os
import random
from collections.abc import Awaitable, Callable
from typing import Self, TypeVar

import httpx

from msr_adapter.config.schema import ServerConfig
from msr_adapter.redaction import quoted
from msr_adapter.system import retry_after

_PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""States that pass: overload, restarts, time-outs."""
_HINTS = {
    401: ("the key is missing or wrong", "set the environment variable that model.server.key_variable names"),
    403: ("the key may not use this model", "use a key that may"),
    404: ("the URL or the model's name is wrong", "check model.server.url (with /v1) and model.path"),
}

T = TypeVar("T")


class GaveUpError(Exception):
    """This request has no answer and will not get one now."""

    def __init__(self, text: str, *, unreached: bool = False) -> None:
        """``unreached``: no attempt even got a connection."""
        super().__init__(text)
        self.unreached = unreached


class BrokenAnswerError(Exception):
    """What came back is damaged; another try may do better."""


class UnusableServerError(Exception):
    """No request will be answered: the cause and the next step are in ``hint``."""

    def __init__(self, text: str, hint: tuple[str, str]) -> None:
        super().__init__(text)
        self.hint = hint


class RefusedError(Exception):
    """An answer with a status other than 200."""

    def __init__(self, status: int, text: str, wait: float | None) -> None:
        super().__init__(f"status {status}: {text}" if text else f"status {status}")
        self.status, self.wait = status, wait

    @classmethod
    def from_response(cls, response: httpx.Response) -> Self:
        """Keep what the server said, on one line and short, and how long it asks to wait."""
        text = quoted(_said(response), sent_secrets(response))
        return cls(response.status_code, text, retry_after(response.headers.get("Retry-After")))


class Attempts:
    """The attempts at one request."""

    def __init__(self, server: ServerConfig) -> None:
        self._server = server
        self._secrets = [os.environ.get(server.key_variable or "", "")]

    async def run(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Await ``ask`` until it answers. Raises `GaveUpError` after the last attempt or on a refusal of this request,
        `UnusableServerError` on a refusal that meets every request."""
        unreached = True
        for attempt in range(self._server.retries + 1):
            try:
                return await ask()
            except RefusedError as error:
                if error.status in _HINTS:
                    raise UnusableServerError(str(error), _HINTS[error.status]) from None
                if error.status not in _PASSING:
                    raise GaveUpError(str(error)) from None
                last, wait, unreached = str(error), error.wait, False
            except (httpx.TransportError, TimeoutError, BrokenAnswerError) as error:
                last, wait = self._named(error), None
                unreached = unreached and isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
            if attempt < self._server.retries:
                await asyncio.sleep(self._pause(attempt, wait))
        raise GaveUpError(f"{last} ({self._server.retries + 1} attempts)", unreached=unreached)

    def _pause(self, attempt: int, asked: float | None) -> float:
        """Seconds until the next attempt: what the server asked for, or full jitter (Brooker, 2015), capped."""
        longest = self._server.longest_wait
        jitter = random.uniform(0, min(longest, self._server.first_wait * 2**attempt))
        return jitter if asked is None else min(longest, asked) + jitter / 10

    def _named(self, error: Exception) -> str:
        if isinstance(error, TimeoutError | httpx.TimeoutException):
            return "no answer in time"
        return quoted(error, self._secrets) or type(error).__name__


def sent_secrets(response: httpx.Response) -> list[str]:
    """Return what the request carried and no message may repeat: the key."""
    scheme, _, key = response.request.headers.get("Authorization", "").partition(" ")
    return [one for one in (key, scheme if not key else "") if one]


def _said(response: httpx.Response) -> str:
    """Return the server's own words: the message of an error object, else the text."""
    try:
        content = json.loads(response.content)
    except (ValueError, RecursionError):
        return response.text
    error = content.get("error", content.get("detail", content)) if isinstance(content, dict) else content
    try:
        return str(error.get("message", error)) if isinstance(error, dict) else str(error)
    except RecursionError:
        return response.text
