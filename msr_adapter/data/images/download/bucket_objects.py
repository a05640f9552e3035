"""Images in buckets: the bytes of one object, bounded in size and time, by the credentials of the environment.

A table of items names bucket and key alone. Which service answers, and as whom it is asked, the environment says.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

from msr_adapter.data.readers.remote_files import file_system
from msr_adapter.redaction import redact

BUCKETS = ("s3", "gs", "gcs", "az", "abfs")
"""Schemes of addresses."""
_CHUNK = 2**20
_FORBIDDEN = ("ACCESS_DENIED", "INVALID_ACCESS_KEY", "SIGNATURE_DOES_NOT_MATCH", "HTTP status 401", "HTTP status 403",
              "PERMISSION_DENIED", "UNAUTHENTICATED")  # fmt: skip
"""What services say of a request that may not be made."""
_NOWHERE = ("HTTP status 404", "NO_SUCH_KEY", "NO_SUCH_BUCKET", "NOT_FOUND")

FileSystemOf = Callable[[str, float], tuple[Any, str]]
"""Address and seconds -> a file system and what the object is called in it."""


class ObjectError(Exception):
    """An address that gave no bytes: the reason, and whether another try may give them."""

    def __init__(self, reason: str, *, again: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.again = reason, again


class BucketObjects:
    """Reads objects, each on a thread: the libraries of the services wait without the event loop."""

    def __init__(self, threads: Executor, silence_s: float, open_system: FileSystemOf = file_system) -> None:
        """``silence_s``: longest silence of a service, where its library can be told."""
        self._threads, self._silence_s, self._open_system = threads, silence_s, open_system
        self._systems: dict[str, Any] = {}
        self._lock = threading.Lock()

    async def read(self, address: str, limit: int) -> bytes:
        """Return an object of at most ``limit`` bytes; `ObjectError` with the reason why not."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._read, address, limit)

    def _read(self, address: str, limit: int) -> bytes:
        if redact(address) != address:
            raise ObjectError("secret_in_address")
        scheme, _, key = address.partition("://")
        scheme = scheme.lower()
        bucket, _, name = key.partition("/")
        if not bucket or not name.strip("/"):
            raise ObjectError("bad_url")
        try:
            with self._lock:
                if scheme not in self._systems:
                    self._systems[scheme] = self._open_system(f"{scheme}://{key}", self._silence_s)[0]
            with self._systems[scheme].open_input_stream(key, compression=None, buffer_size=0) as stream:
                data = bytearray()
                while len(data) <= limit and (part := stream.read(min(_CHUNK, limit + 1 - len(data)))):
                    data += part
        except Exception as error:
            raise _told(error) from None  # the library's words may hold what the environment holds
        if len(data) > limit:
            raise ObjectError("too_large")
        return bytes(data)


def is_of_a_bucket(address: str) -> bool:
    """Say whether an address is one of a bucket."""
    return address.partition("://")[0].lower() in BUCKETS and "://" in address


def _told(error: Exception) -> ObjectError:
    said = str(error)
    if isinstance(error, FileNotFoundError) or any(word in said for word in _NOWHERE):
        return ObjectError("not_found")
    if isinstance(error, PermissionError) or any(word in said for word in _FORBIDDEN):
        return ObjectError("forbidden")
    if isinstance(error, OSError):
        return ObjectError("no_answer", again=True)
    return ObjectError("bad_url")
