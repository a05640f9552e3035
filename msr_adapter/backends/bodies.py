"""What a server sends back, read with an end to it: bytes as sent, bytes unpacked, and how deep JSON is nested."""

import json
import time
import zlib
from typing import Any

import httpx

from msr_adapter.backends.retry import BrokenAnswerError, GaveUpError

LARGEST = 16 * 2**20
"""Bytes of an answer, as sent and unpacked: a thousand times what is asked for."""
_DEEPEST = 64
_PACKED = {"gzip": 31, "x-gzip": 31, "deflate": 47}
"""Encoding -> zlib's window; 47 reads zlib and gzip alike."""
ACCEPTED = {"Accept-Encoding": "gzip, deflate"}
"""The encodings that are unpacked here, with a limit."""


class _Body:
    """The bytes of one response so far."""

    def __init__(self, response: httpx.Response) -> None:
        packing = response.headers.get("Content-Encoding", "").strip().lower()
        if packing not in {"", "identity", *_PACKED}:
            raise GaveUpError(f"the server packs its answer in a way that was not asked for ({packing[:40]!r})")
        length = response.headers.get("Content-Length", "")
        if length.isdecimal() and len(length) < 20 and int(length) > LARGEST:
            raise _too_large()
        self._unpack = zlib.decompressobj(_PACKED[packing]) if packing in _PACKED else None
        self._sent, self._data, self._response = 0, bytearray(), response

    def add(self, part: bytes) -> None:
        """Take a part as sent. Raises `GaveUpError` when it is too much, `BrokenAnswerError` when it is damaged."""
        self._sent += len(part)
        if self._unpack is not None:
            try:
                part = self._unpack.decompress(part, LARGEST + 1 - len(self._data))
            except zlib.error as error:
                raise BrokenAnswerError(f"the answer cannot be unpacked ({type(error).__name__})") from None
        self._data += part
        if self._sent > LARGEST or len(self._data) > LARGEST:
            raise _too_large()

    def whole(self) -> httpx.Response:
        """Return the response with its body unpacked."""
        response = self._response
        if self._unpack is not None and not self._unpack.eof and self._sent:
            raise BrokenAnswerError("the answer ends before it is whole")
        headers = [(name, value) for name, value in response.headers.multi_items()
                   if name.lower() not in ("content-encoding", "content-length", "transfer-encoding")]  # fmt: skip
        return httpx.Response(
            response.status_code, headers=headers, content=bytes(self._data), request=response.request
        )


async def post(client: httpx.AsyncClient, url: str, content: Any) -> httpx.Response:
    """Send JSON and return the whole response. Raises `GaveUpError` for one that is larger than `LARGEST`."""
    async with client.stream("POST", url, json=content, headers=ACCEPTED) as response:
        body = _Body(response)
        async for part in response.aiter_raw():
            body.add(part)
        return body.whole()


def post_now(client: httpx.Client, url: str, content: Any, seconds: float) -> httpx.Response:
    """Send JSON and return the whole response, as `post`; `BrokenAnswerError` if it trickles for ``seconds``."""
    end = time.monotonic() + seconds
    with client.stream("POST", url, json=content, headers=ACCEPTED) as response:
        body = _Body(response)
        for part in response.iter_raw():
            body.add(part)
            if time.monotonic() > end:
                raise BrokenAnswerError("no answer in time")
        return body.whole()


def read_json(response: httpx.Response) -> Any:
    """Return the JSON of a response. Raises `ValueError` for what is none, or is nested too deeply."""
    try:
        found = json.loads(response.content)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    level: list[Any] = [found] if isinstance(found, dict | list) else []
    for _ in range(_DEEPEST):
        inner = [value for one in level for value in (one.values() if isinstance(one, dict) else one)]
        level = [one for one in inner if isinstance(one, dict | list)]
        if not level:
            return found
    raise ValueError("nested too deeply")


def _too_large() -> GaveUpError:
    return GaveUpError(f"the answer is larger than {LARGEST // 2**20} MiB")
