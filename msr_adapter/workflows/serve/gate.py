"""What every request passes first: host, token, size, whether the server is stopping; and what is counted of it."""

import asyncio
import hmac
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from msr_adapter.errors import Problem
from msr_adapter.workflows.serve.refusals import RefusalError, busy, response_of
from msr_adapter.workflows.serve.serve_metrics import ServeMetrics
from msr_adapter.workflows.serve.settings import ServeSettings

_OPEN = ("/healthz", "/readyz")
"""What is answered without a token, and while the server is stopping."""
_RETRY_STOPPING_S = 5
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
        self.answered = 0
        self.stopping = False
        """Whether new requests are refused."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            return
        started, status = time.monotonic(), 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", []), *_SECURITY, *self._closing()]}
            await send(message)

        with self._counted():
            try:
                self._check(scope)
                replay = await self._read(scope, receive)
                await self._app(scope, replay, watched)
            except RefusalError as refusal:
                self._metrics.refused(refusal.reason)
                await response_of(refusal)(scope, receive, watched)
            finally:
                route = scope.get("route")
                self._metrics.answered(getattr(route, "path", _OTHER), status, time.monotonic() - started)
                self.answered += 200 <= status < 300

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self.under_way += 1
        try:
            yield
        finally:
            self.under_way -= 1

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
            raise RefusalError(400, Problem("", "Content-Length", "no number", "a number of bytes"))
        if int(length) > self._limits.body_bytes:
            raise self._too_large()
        if scope["method"] == "POST":
            kind = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
            if kind != b"application/json" and not kind.endswith(b"+json"):
                found = f"{kind.decode('latin-1')[:60]!r}" if kind else "none"
                raise RefusalError(415, Problem("", "Content-Type", found, "application/json"))

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
                        break
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
