"""How a server listens, batches and refuses: the options of `msr serve`, and what is wrong with them."""

import ipaddress
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from msr_adapter.errors import Problem, UserError
from msr_adapter.workflows.recommend.request import OFFERED, Retrieval, parse_retrieval

TOKEN_VARIABLE = "MSR_SERVE_TOKEN"
_LEAST_TOKEN = 16
"""Characters of the shortest token that is no easy guess."""


@dataclass(frozen=True)
class RequestLimits:
    """What one request, and all that wait, may take."""

    queue: int = 256
    """Requests that wait; one more is refused."""
    candidates: int = 1_000
    """Pairs that one request may have scored."""
    body_bytes: int = 4 * 1024 * 1024
    timeout_s: float = 30.0
    """Time from a request's arrival to its answer."""
    grace_s: float = 30.0
    """Time that what was taken has after a signal to stop."""


@dataclass(frozen=True)
class Batching:
    """How requests of different clients are answered together."""

    window_ms: float = 10.0
    """How long the model waits for each further request, where more are expected."""
    pairs: int = 512
    """Pairs that are scored in one call of the model, about."""
    requests: int = 64
    """Requests that are taken from the queue together."""


@dataclass(frozen=True)
class ServeSettings:
    """All options of the command."""

    host: str = "127.0.0.1"
    port: int = 8000
    candidates: tuple[str, ...] = ("popular:200",)
    """What retrieves, as `parse_retrieval` reads it; the first is the default."""
    limits: RequestLimits = RequestLimits()
    batching: Batching = Batching()
    allowed_hosts: tuple[str, ...] = ()
    """Further names by which browsers may call a server on loopback."""

    @cached_property
    def retrievals(self) -> dict[str, Retrieval]:
        """Return what retrieves, by its name in requests."""
        return {text: parse_retrieval(text) for text in self.candidates}

    @property
    def on_loopback(self) -> bool:
        """Say whether nobody but this machine can reach the server."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def hosts(self) -> frozenset[str] | None:
        """Return the names under which the server answers; None = any.

        On loopback, a page of the web that lets its own name point here must not read answers in somebody's browser.
        """
        if not self.on_loopback:
            return None
        return frozenset({"localhost", "127.0.0.1", "[::1]", self.host.lower(), *map(str.lower, self.allowed_hosts)})


def read_token(environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the token that clients have to bring; None = no such thing. `UserError` on one that can be guessed."""
    token = environment.get(TOKEN_VARIABLE)
    if token is None:
        return None
    if len(token) < _LEAST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        found = f"a token of {len(token)} characters" if token.isascii() else "a token with other letters than ASCII"
        allowed = f"{_LEAST_TOKEN} or more printable ASCII characters without blanks"
        step = f"Set it to the output of `openssl rand -hex 32`, or unset {TOKEN_VARIABLE}"
        raise UserError(Problem("", TOKEN_VARIABLE, found, allowed, step))
    return token


def setting_problems(settings: ServeSettings) -> Iterator[Problem]:
    """Yield what is wrong with the options that can be known before anything is read."""
    for text in settings.candidates:
        try:
            retrieval = parse_retrieval(text)
        except UserError as error:
            yield from error.problems
            continue
        if retrieval.kind == "file":
            step = "Name a retriever; requests bring lists of their own"
            yield Problem("", "--candidates", f"{text} is a file", OFFERED, step)
        if retrieval.count > settings.limits.candidates:
            found = f"{text}: more than the {settings.limits.candidates:,} pairs that a request may have"
            yield Problem("", "--candidates", found, "", "Retrieve fewer, or raise --max-candidates")
