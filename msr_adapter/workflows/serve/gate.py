"""What every request passes first: host, token, size, whether the server is stopping; and what is counted of it."""

import asyncio
import hmac
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from msr_adapter.errors import Problem
from msr_adapter.workflows.serve.refusals import RefusalError, busy, response_of
from msr_adapter.workflows.serve.serve_metrics import ServeMetrics
from msr_adapter.workflows.serve.settings import ServeSettings

_OPEN = ("/healthz", "/readyz")
"""What is answered without a token, and while the server is stopping."""
_RETRY_STOPPING_S = 5
_NOT_CARRIED_OUT = (429, 503)
"""What says that a request may be sent again, as it is."""
CLIENT_GONE = 499
"""What metrics show where nobody waited for the answer; nobody gets it."""
_OTHER = "(other)"
"""The path that metrics show where a client asked for one that is none."""
_SECURITY = [
    (b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"), (b"cross-origin-resource-policy", b"same-origin"),
]  # fmt: skip


class Gate:
    """The outermost ASGI application. Whatever is wrong with a request as such is refused here, its body unread."""

    def __init__(self, app: ASGIApp, settings: ServeSettings, token: str | None, metrics: ServeMetrics) -> None:
        self._app, self._limits, self._metrics = app, settings.limits, metrics
        self._hosts = settings.hosts
        self._token = None if token is None else f"Bearer {token}".encode()
        self.under_way = 0
        """Requests that are not answered yet."""
        self.at_work = 0
        """Those of them that are not refused here."""
        self.taken = self.answered = self.refused = 0
        """Requests that were read: those that were not put off by 429 or 503, those of them that got an answer, and
        the others. More taken than answered: clients went away before their answer was there."""
        self.stopping = False
        """Whether new requests are refused."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            return
        started, status, whole = time.monotonic(), 0, False

        async def watched(message: Message) -> None:
            nonlocal status, whole
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", []), *_SECURITY, *self._closing()]}
            await send(message)
            whole = message["type"] == "http.response.body" and not message.get("more_body", False)

        with self._counted("under_way"):
            try:
                self._check(scope)
                with self._counted("at_work"):
                    replay = await self._read(scope, receive)
                    await self._app(scope, replay, watched)
            except RefusalError as refusal:
                self._metrics.refused(refusal.reason)
                await response_of(refusal)(scope, receive, watched)
            finally:
                route = scope.get("route")
                self._metrics.answered(getattr(route, "path", _OTHER), status, time.monotonic() - started)
                self._tally(status, whole)

    @contextmanager
    def _counted(self, name: Literal["under_way", "at_work"]) -> Iterator[None]:
        setattr(self, name, getattr(self, name) + 1)
        try:
            yield
        finally:
            setattr(self, name, getattr(self, name) - 1)

    def _tally(self, status: int, whole: bool) -> None:
        """Count a request that has ended; ``whole``: all of the answer was handed over."""
        if whole and status in _NOT_CARRIED_OUT:
            self.refused += 1
            return
        self.taken += 1
        self.answered += whole and status != CLIENT_GONE

    def _closing(self) -> list[tuple[bytes, bytes]]:
        """Return the header that ends a connection, once the server is stopping."""
        return [(b"connection", b"close")] if self.stopping else []

    def _check(self, scope: Scope) -> None:
        headers = dict(scope["headers"])
        path = scope["path"]
        if self._hosts is not None and _host(headers.get(b"host", b"")) not in self._hosts:
            found = "the Host header names another server"
            step = "Start the server with --allowed-host NAME if that name is its own"
            raise RefusalError(421, Problem("", "Host", found, ", ".join(sorted(self._hosts)), step))
        if path in _OPEN:
            return
        if self.stopping:
            raise busy(503, "the server is stopping", _RETRY_STOPPING_S, "stopping")
        if self._token is not None and (path.startswith("/v1/") or path.startswith("/v2/") or path == "/metrics"):
            given = headers.get(b"authorization", b"")
            if not hmac.compare_digest(given.strip(), self._token):
                found = "no token" if not given else "a token that is not the server's"
                problem = Problem("", "Authorization", found, "Bearer and the token of MSR_SERVE_TOKEN")
                raise RefusalError(401, problem, {"WWW-Authenticate": "Bearer"}, "token")
        length = headers.get(b"content-length", b"0")
        if not length.isdigit():
            raise RefusalError(400, Problem("", "Content-Length", "not a number", "a number of bytes"))
        if int(length) > self._limits.body_bytes:
            raise self._too_large()
        if scope["method"] == "POST":
            kind = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
            if kind != b"application/json" and not kind.endswith(b"+json"):
                found = f"{kind.decode('latin-1')[:60]!r}" if kind else "none"
                raise RefusalError(415, Problem("", "Content-Type", found, "application/json"))
            packed = headers.get(b"content-encoding", b"identity").strip().lower()
            if packed not in (b"identity", b""):
                problem = Problem(
                    "", "Content-Encoding", repr(packed.decode("latin-1")[:60]), "a body that is not packed"
                )
                raise RefusalError(415, problem)

    async def _read(self, scope: Scope, receive: Receive) -> Receive:
        """Return what hands on the whole body; it is bounded in bytes and in time."""
        if scope["method"] in ("GET", "HEAD"):
            return receive
        body = bytearray()
        more = True
        try:
            async with asyncio.timeout(self._limits.timeout_s):
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise RefusalError(CLIENT_GONE, Problem("", "", "the client went away"), reason="client gone")
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
                    if len(body) > self._limits.body_bytes:
                        raise self._too_large()
        except TimeoutError:
            raise RefusalError(408, Problem("", "", "the body did not come whole in time")) from None
        waiting: list[Any] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def replay() -> Message:
            return waiting.pop() if waiting else await receive()

        return replay

    def _too_large(self) -> RefusalError:
        problem = Problem("", "", "the body is too large", f"at most {self._limits.body_bytes:,} bytes")
        return RefusalError(413, problem, {"Connection": "close"})


def _host(header: bytes) -> str:
    """Return the name in a Host header, without its port."""
    name = header.decode("latin-1").strip().lower()
    return name[: name.index("]") + 1] if name.startswith("[") and "]" in name else name.partition(":")[0]
