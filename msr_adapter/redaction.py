"""What servers and exceptions say, as it may be printed, logged and stored: without secrets, on one line, short.

Secrets are taken out before anything is cut, so that none leaves its head behind.
"""

import os
import re
import urllib.parse
from collections.abc import Iterable, Mapping
from typing import Any

HIDDEN = "***"
QUOTED = 300
"""Characters that a message quotes at most."""

_SECRET = r"(?:[\w-]*(?:api[_-]?key|access[_-]?key|token|secret|passw(?:or)?d|credential|signature)|key|sig|auth|pwd)"
_HEADER = r"(?:(?:proxy-)?authorization|cookie|set-cookie|x-[\w-]*(?:key|token|secret|auth)|api-key)"
_RULES = tuple((re.compile(pattern, re.IGNORECASE), put) for pattern, put in (
    (
        rf"(\b{_HEADER}[\"'\\]*\s*[:=,]\s*(?:b(?=[\"']))?[\"'\\]*(?:(?:bearer|basic|token|digest|negotiate)\s+)?)"
        r"[^\s\"'\\,;})\]]+",
        rf"\g<1>{HIDDEN}",
    ),
    (r"\b((?:bearer|basic)\s+)(?!\*\*\*)[\w.~+/=-]{8,}", rf"\g<1>{HIDDEN}"),
    (r"(\b[a-z][a-z0-9+.-]*://)[^\s/@?#\"']+@", rf"\g<1>{HIDDEN}@"),
    (rf"([?&;]{_SECRET}=)[^\s&;#\"'<>]+", rf"\g<1>{HIDDEN}"),
))  # fmt: skip
_NAMES = re.compile(r"(?:TOKEN|KEY|SECRET|PASSWORD|PASSWD|CREDENTIALS)$", re.IGNORECASE)
_SHORTEST = 8
"""Shorter values of the environment may be words of any message."""


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """Return ``text`` without the ``secrets``, those of the environment, and what looks like one.

    That is: values of headers that carry keys, passwords in addresses, tokens in their queries.
    """
    for secret in sorted({*secrets, *_of_the_environment()}, key=len, reverse=True):
        for spelling in _spellings(secret):
            text = text.replace(spelling, HIDDEN)
    for pattern, put in _RULES:
        text = pattern.sub(put, text)
    return text


def redact_values(value: Any, secrets: Iterable[str] = ()) -> Any:
    """Return a JSON-able ``value`` with every text in it redacted."""
    if isinstance(value, str):
        return redact(value, secrets)
    if isinstance(value, Mapping):
        return {key: redact_values(each, secrets) for key, each in value.items()}
    return [redact_values(each, secrets) for each in value] if isinstance(value, list | tuple) else value


def without(text: str, secret: str) -> str:
    """Return ``text`` without one known secret, however it is spelled; all else stays as it is."""
    for spelling in _spellings(secret):
        text = text.replace(spelling, HIDDEN)
    return text


def quoted(said: object, secrets: Iterable[str] = ()) -> str:
    """Return what somebody else said: redacted, on one line, and only then cut."""
    text = str(said).encode("utf-8", "backslashreplace").decode()
    return " ".join(redact(text, secrets).split())[:QUOTED]


def _spellings(secret: str) -> list[str]:
    """Return a secret as it is, as JSON and Python write it, and as addresses do; longest first."""
    if not secret:
        return []
    found = {
        secret,
        secret.strip(),
        repr(secret)[1:-1],
        urllib.parse.quote(secret),
        urllib.parse.quote(secret, safe=""),
    }
    return sorted(found - {""}, key=len, reverse=True)


def _of_the_environment() -> list[str]:
    return [
        value for name, value in os.environ.items()
        if _NAMES.search(name) and len(value) >= _SHORTEST and not value.startswith(("/", ".", "~"))
    ]  # fmt: skip
