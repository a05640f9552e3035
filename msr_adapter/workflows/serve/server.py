"""The process: a socket, uvicorn, and a stop that finishes what was taken."""

import asyncio
import socket
import time
from collections.abc import Callable
from types import FrameType

import uvicorn
from starlette.types import ASGIApp
from uvicorn.config import Config

from msr_adapter.errors import Problem, UserError
from msr_adapter.workflows.serve.backlog import is_unread, let_nobody_in
from msr_adapter.workflows.serve.engine import ServingEngine
from msr_adapter.workflows.serve.gate import Gate
from msr_adapter.workflows.serve.settings import ServeSettings

_QUIET_S = 0.3
"""How long a stopping server goes on to refuse aloud after its last answer, before it lets nobody in any more."""
_HANDSHAKE_S = 0.2
"""How long connections that have begun may take to get in after that: several ways around the world."""
_UNREAD_S = 2.0
"""How long a stopping server goes on to read what clients have begun to send."""
_KEEP_ALIVE_S = 30
_BACKLOG = 2_048


def bind(settings: ServeSettings) -> socket.socket:
    """Return a socket at the address of the settings, which does not listen yet; `UserError` if that cannot be."""
    try:
        [family, kind, protocol, _, address] = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except (OSError, UnicodeError) as error:
        found = f"{settings.host}:{settings.port}: {getattr(error, 'strerror', None) or error}"
        raise UserError(Problem("", "--port", found, "", "Choose another --port, or --host")) from None
    return bound


class GracefulServer(uvicorn.Server):
    """uvicorn, which on a first signal refuses new requests until those it has are answered, and then ends.

    Its socket is closed when nobody is left on it whose request has not been answered, or refused aloud. A second
    signal ends it at once.
    """

    def __init__(self, app: ASGIApp, gate: Gate, engine: ServingEngine, settings: ServeSettings) -> None:
        config = Config(
            app, http="h11", log_config=None, access_log=False, lifespan="off", server_header=False, backlog=_BACKLOG,
            timeout_keep_alive=_KEEP_ALIVE_S, timeout_graceful_shutdown=max(1, round(settings.limits.grace_s)),
        )  # fmt: skip
        super().__init__(config)
        self.on_ready: Callable[[], None] = lambda: None
        """Called once, when the model is loaded."""
        self._gate, self._engine, self._grace_s = gate, engine, settings.limits.grace_s
        self._asked = self._busy = 0.0
        self._told = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop; at the second signal, stop."""
        # Unlike in `uvicorn.Server` the signal is not raised again: a server that was asked to end has done well.
        if self._gate.stopping:
            self.force_exit = self.should_exit = True
        self._gate.stopping = True
        self._asked = self._busy = time.monotonic()

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: tell that the model is loaded, and end when nothing is left to answer."""
        if not self._told and self._engine.ready:
            self._told = True
            self.on_ready()
        now = time.monotonic()
        if self._gate.at_work:
            self._busy = now
        if self._engine.failed and not self._told:
            self.should_exit = True
        if self._gate.stopping and (now - self._busy > _QUIET_S or now - self._asked > self._grace_s):
            self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let nobody in, answer whoever is there, and close."""
        if not self.force_exit:
            await self._empty(sockets or [])
        await super().shutdown(sockets)

    async def _empty(self, listening: list[socket.socket]) -> None:
        """Return when no connection has anything that was not answered; at once after that, all can be closed."""
        closed = [let_nobody_in(one) for one in listening]
        end = time.monotonic() + _UNREAD_S
        await asyncio.sleep(_HANDSHAKE_S)
        # Where the kernel lets new clients in all the same, they would be waited for without end.
        listening = listening if all(closed) else []
        while not self.force_exit and is_unread(self.server_state.connections, listening) and time.monotonic() < end:
            await asyncio.sleep(0.01)
