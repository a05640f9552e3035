"""One address, of the web or of a bucket -> the bytes of an image that decodes, or the reason why not."""

import asyncio
import random
import socket
from concurrent.futures import Executor
from dataclasses import dataclass

import httpcore
import httpx

from msr_adapter.config.schema import ImagesConfig
from msr_adapter.data.images.decode import ImageError
from msr_adapter.data.images.download.addresses import RefusedAddressError
from msr_adapter.data.images.download.bucket_objects import BucketObjects, ObjectError, is_of_a_bucket
from msr_adapter.data.images.frames import suffix_of
from msr_adapter.system import retry_after

_HEADERS = {"Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": "msr fetch-images"}
_LATER = {408, 425, 429, 500, 502, 503, 504}
"""Answers after which the same request may succeed."""


@dataclass(frozen=True)
class DownloadPolicy:
    """How hard, how long and how much is tried for one URL; times in seconds."""

    limits: ImagesConfig
    """Bytes and pixels of an image."""
    workers: int = 16
    """Simultaneous requests."""
    per_host: int = 4
    """Requests at a time to one host, those that wait to be repeated included."""
    retries: int = 3
    """Repetitions of a request that may succeed later."""
    connect_s: float = 10.0
    read_s: float = 20.0
    """Longest silence of a server."""
    total_s: float = 120.0
    """Longest single try, whatever arrives."""
    backoff_s: float = 0.5
    """Mean wait before the first repetition; it doubles from one to the next."""
    longest_wait_s: float = 120.0
    """A server that asks for a longer wait (Retry-After) is not asked again."""
    redirects: int = 5
    allow_private: bool = False
    """Connect to private, loopback, link-local, multicast and reserved addresses too."""
    overwrite: bool = False
    """Replace a file of an image's name that was not downloaded."""

    @property
    def max_bytes(self) -> int:
        """Largest body."""
        return self.limits.max_file_mb * 2**20


@dataclass(frozen=True)
class Download:
    """An image as it was sent."""

    data: bytes
    suffix: str
    """Of its true format, with the dot."""


class FetchError(Exception):
    """A URL that gave no image; ``again`` says whether another try may, ``after`` how long the server asks to wait."""

    def __init__(self, reason: str, *, again: bool = False, after: float = 0.0) -> None:
        super().__init__(reason)
        self.reason, self.again, self.after = reason, again, after


_KNOWN = (FetchError, ObjectError, RefusedAddressError, OSError, UnicodeError, httpcore.TimeoutException,
          httpcore.NetworkError, httpcore.ProtocolError, httpx.InvalidURL)  # fmt: skip
"""What `_failure` gives a reason of its own."""


@dataclass(frozen=True)
class Sources:
    """Who answers."""

    client: httpx.AsyncClient
    """The web."""
    buckets: BucketObjects


async def download(
    sources: Sources, url: str, policy: DownloadPolicy, slots: asyncio.Semaphore, decoders: Executor
) -> Download:
    """Return the image at ``url``; `FetchError` with the reason of the last try.

    A slot is held while something is sent, received or decoded, not while it is waited for the next try.
    """
    for attempt in range(policy.retries + 1):
        try:
            async with slots, asyncio.timeout(policy.total_s):
                data = await _get(sources, url, policy)
                suffix = await asyncio.get_running_loop().run_in_executor(decoders, _check, data, policy)
            return Download(data, suffix)
        except Exception as error:
            failure = _failure(error)
            if not failure.again or attempt == policy.retries or failure.after > policy.longest_wait_s:
                raise failure from error
        wait = policy.backoff_s * 2**attempt * random.uniform(0.5, 1.5)
        await asyncio.sleep(max(failure.after, min(wait, policy.longest_wait_s)))
    raise AssertionError("the last try returns or raises")


async def _get(sources: Sources, url: str, policy: DownloadPolicy) -> bytes:
    """Return the bytes at ``url``. Whatever the answers do on the way is `FetchError` or one that `_failure` knows."""
    try:
        if is_of_a_bucket(url):
            return await sources.buckets.read(url, policy.max_bytes)
        return await _follow(sources.client, url, policy)
    except (*_KNOWN, MemoryError):
        raise
    except Exception as error:  # an answer is data: nothing that is in it is a bug of ours
        raise FetchError("broken_answer") from error


async def _follow(client: httpx.AsyncClient, url: str, policy: DownloadPolicy) -> bytes:
    place = httpx.URL(url)
    for _ in range(policy.redirects + 1):
        if place.scheme not in ("http", "https") or not place.host:
            raise FetchError("not_http")
        if not 0 < (place.port or 80) < 2**16:
            raise FetchError("bad_url")
        async with client.stream("GET", place, headers=_HEADERS) as response:
            if not response.has_redirect_location:
                return await _body(response, policy)
            place = place.join(response.headers["Location"])
    raise FetchError("too_many_redirects")


async def _body(response: httpx.Response, policy: DownloadPolicy) -> bytes:
    if response.status_code != 200:
        again = response.status_code in _LATER
        wait = retry_after(response.headers.get("Retry-After")) if again else None
        raise FetchError(f"http_{response.status_code}", again=again, after=wait or 0.0)
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise FetchError("compressed")  # we asked for plain bytes; nothing is unpacked before its size is known
    length = response.headers.get("Content-Length", "")
    if length.isdecimal() and int(length) > policy.max_bytes:
        raise FetchError("too_large")
    data = bytearray()
    async for part in response.aiter_raw():
        data += part
        if len(data) > policy.max_bytes:
            raise FetchError("too_large")
    return bytes(data)


def _check(data: bytes, policy: DownloadPolicy) -> str:
    """Return the suffix of an image that decodes; a broken one may have been cut on its way."""
    try:
        return suffix_of(data, policy.limits)
    except ImageError as error:
        raise FetchError(error.fault, again=error.fault == "broken") from error


def _failure(error: Exception) -> FetchError:
    """Return what an exception means; what is no failure of the network or the server is raised again."""
    if isinstance(error, FetchError):
        return error
    if isinstance(error, ObjectError):
        return FetchError(error.reason, again=error.again)
    if isinstance(error, RefusedAddressError):
        return FetchError("private_address")
    if isinstance(error, socket.gaierror):
        return FetchError("unknown_host", again=error.errno == socket.EAI_AGAIN)
    if isinstance(error, TimeoutError | httpcore.TimeoutException):
        return FetchError("timeout", again=True)
    if isinstance(error, httpcore.ConnectError):
        return FetchError("no_connection", again=True)
    if isinstance(error, httpcore.NetworkError | httpcore.ProtocolError | OSError):
        return FetchError("cut_short", again=True)
    if isinstance(error, httpx.InvalidURL | UnicodeError):
        return FetchError("bad_url")
    raise error
