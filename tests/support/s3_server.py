"""An S3-compatible server on loopback, for the tests that want a real one; what the environment says of it."""

import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.support.server_process import free_port, serving

CANARY = "canary-Of-S3-55102"
"""Stands in no file, log or message."""


@contextmanager
def s3_server(folder: Path) -> Iterator[str]:
    """Yield the address of an empty server, whose log lies in ``folder``; skips where none is installed."""
    server = shutil.which("moto_server")
    if server is None:
        pytest.skip("needs an S3-compatible server: moto_server (pip install 'moto[server]') on the PATH")
    port = free_port()
    with serving([server, "-H", "127.0.0.1", "-p", str(port)], dict(os.environ), folder / "log"):
        for _ in range(300):
            with socket.socket() as one:
                if one.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"


def empty_bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the address of an empty bucket `shop`, to which the environment gives a key."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "shop")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", CANARY)
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    httpx.post(f"{endpoint}/moto-api/reset")
    httpx.put(f"{endpoint}/shop").raise_for_status()
    return f"{endpoint}/shop"


def put(bucket: str, key: str, data: bytes) -> None:
    """Store an object."""
    # The server looks at who signs, not at the signature.
    signed = "AWS4-HMAC-SHA256 Credential=shop/20240101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
    headers = {"Authorization": signed}
    httpx.put(f"{bucket}/{key}", content=data, headers=headers, timeout=60).raise_for_status()
