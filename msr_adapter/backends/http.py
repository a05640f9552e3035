"""Requests to a server: responses of bounded size, so that no server can fill the memory, and retries that end.

Retries wait with exponential back-off and full jitter (Brooker, 2015), or as long as `Retry-After` says.
"""

import asyncio
import json
import os
import random
import time
import zlib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self, TypeVar

import httpx

from msr_adapter.config.schema import ServerConfig
from msr_adapter.errors import MsrError, plural
from msr_adapter.redaction import quoted
from msr_adapter.system import retry_after

LARGEST = 16 * 2**20
"""Bytes of a response, as sent and unpacked: a thousand times what is asked for."""
_DEEPEST = 64
"""Levels of nested JSON."""
_PACKED = {"gzip": 31, "x-gzip": 31, "deflate": 47}
"""Encoding -> zlib's window; 47 reads zlib and gzip alike."""
ACCEPTED = {"Accept-Encoding": "gzip, deflate"}
"""The encodings that are unpacked here, with a limit."""
_PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""States that pass by themselves: overload, restarts, time-outs."""
LASTING = frozenset({400, 401, 403, 404, 405, 415, 422, 500, 501})
"""States that a request which was never made before may get for what it is, 500 from servers that it breaks."""
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
                late = isinstance(error, TimeoutError | httpx.TimeoutException)
                last, wait = "no answer in time" if late else quoted(error, self._secrets) or type(error).__name__, None
                unreached = unreached and isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
            if attempt < self._server.retries:
                await asyncio.sleep(self._pause(attempt, wait))
        raise GaveUpError(f"{last} ({plural(self._server.retries + 1, 'attempt')})", unreached=unreached)

    def _pause(self, attempt: int, asked: float | None) -> float:
        """Return the seconds until the next attempt: what the server asked for, or full jitter, capped."""
        longest = self._server.longest_wait
        jitter = random.uniform(0, min(longest, self._server.first_wait * 2**attempt))
        return jitter if asked is None else min(longest, asked) + jitter / 10  # not all clients at once


@contextmanager
def reading_answer(kind: str) -> Iterator[None]:
    """Turn whatever an answer does to those who read it into `BrokenAnswerError`; ``kind`` is what it is not.

    What this module raises, and what says that no answer came, passes.
    """
    try:
        yield
    except (GaveUpError, BrokenAnswerError, RefusedError, UnusableServerError, MsrError):
        raise
    except (httpx.TransportError, TimeoutError, MemoryError):
        raise
    except Exception as error:  # an answer is data: nothing that is in it is a bug of ours
        raise BrokenAnswerError(f"not {kind} ({type(error).__name__})") from None


def token_numbers(answer: Mapping[str, Any]) -> tuple[int, int]:
    """Return how many tokens an answer says were read and written; 0 where it does not say."""
    usage = answer.get("usage") or {}
    found = [int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")]
    if not all(0 <= one < 2**31 for one in found):
        raise ValueError("numbers of tokens that no prompt has")
    return found[0], found[1]


async def post(client: httpx.AsyncClient, url: str, content: Mapping[str, object]) -> httpx.Response:
    """Send JSON and return the whole response. Raises `GaveUpError` for one that is larger than `LARGEST`."""
    async with client.stream("POST", url, json=content, headers=ACCEPTED) as response:
        body = _BoundedBody(response)  # of raw parts: httpx unpacks without a limit
        async for part in response.aiter_raw():
            body.add(part)
        return body.complete()


def post_now(client: httpx.Client, url: str, content: Mapping[str, object], seconds: float) -> httpx.Response:
    """Send JSON and return the whole response, as `post`; `BrokenAnswerError` if it trickles for ``seconds``."""
    end = time.monotonic() + seconds
    with client.stream("POST", url, json=content, headers=ACCEPTED) as response:
        body = _BoundedBody(response)
        for part in response.iter_raw():
            body.add(part)
            if time.monotonic() > end:
                raise BrokenAnswerError("no answer in time")
        return body.complete()


def read_json(response: httpx.Response) -> Any:
    """Return the JSON of a response. Raises `ValueError` for what is none, or is nested too deeply."""
    try:
        found = json.loads(response.content)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    # Level by level: what parsed within the recursion limit may still be too deep for whoever walks it next.
    level: list[Any] = [found] if isinstance(found, dict | list) else []
    for _ in range(_DEEPEST):
        inner = [value for one in level for value in (one.values() if isinstance(one, dict) else one)]
        level = [one for one in inner if isinstance(one, dict | list)]
        if not level:
            return found
    raise ValueError("nested too deeply")


def _too_large() -> GaveUpError:
    return GaveUpError(f"the answer is larger than {LARGEST // 2**20} MiB")


class _BoundedBody:
    """The bytes of one response so far."""

    def __init__(self, response: httpx.Response) -> None:
        packing = response.headers.get("Content-Encoding", "").strip().lower()
        if packing not in {"", "identity", *_PACKED}:
            raise GaveUpError(f"the server compresses its answer in a way that was not asked for ({packing[:40]!r})")
        length = response.headers.get("Content-Length", "")
        # int() raises for a text of thousands of digits.
        if length.isdecimal() and len(length) < 20 and int(length) > LARGEST:
            raise _too_large()
        self._unpack = zlib.decompressobj(_PACKED[packing]) if packing in _PACKED else None
        self._sent, self._data, self._response = 0, bytearray(), response

    def add(self, part: bytes) -> None:
        """Add a part as sent. Raises `GaveUpError` when it is too much, `BrokenAnswerError` when it is damaged."""
        self._sent += len(part)
        if self._unpack is not None:
            try:
                # The limit goes to zlib: a small response may unpack to gigabytes.
                part = self._unpack.decompress(part, LARGEST + 1 - len(self._data))
            except zlib.error as error:
                raise BrokenAnswerError(f"the answer cannot be decompressed ({type(error).__name__})") from None
        self._data += part
        if self._sent > LARGEST or len(self._data) > LARGEST:
            raise _too_large()

    def complete(self) -> httpx.Response:
        """Return the response with its body unpacked."""
        response = self._response
        if self._unpack is not None and not self._unpack.eof and self._sent:
            raise BrokenAnswerError("the answer is incomplete")
        # As bytes: a value need not be ASCII.
        headers = [(name, value) for name, value in response.headers.raw
                   if name.lower() not in (b"content-encoding", b"content-length", b"transfer-encoding")]  # fmt: skip
        return httpx.Response(
            response.status_code, headers=headers, content=bytes(self._data), request=response.request
        )


def sent_secrets(response: httpx.Response) -> list[str]:
    """Return what the request carried and no message may repeat: the key."""
    scheme, _, key = response.request.headers.get("Authorization", "").partition(" ")
    return [one for one in (key, scheme if not key else "") if one]


def _said(response: httpx.Response) -> str:
    """Return the server's own words: the message of an error object, else the text."""
    # Not by the charset that the server names: it may name anything.
    text = response.content.decode("utf-8", "replace")
    try:
        content = json.loads(response.content)
    except (ValueError, RecursionError):
        return text
    error = content.get("error", content.get("detail", content)) if isinstance(content, dict) else content
    try:
        return str(error.get("message", error)) if isinstance(error, dict) else str(error)
    except RecursionError:
        return text
