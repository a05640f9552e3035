"""A web server on loopback that misbehaves in every way a test asks for; it stops with the test."""

import io
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image

Answer = Callable[["Handler"], None]


def image_bytes(colour: str = "red", kind: str = "PNG", size: int = 8) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), colour).save(buffer, kind)
    return buffer.getvalue()


class Handler(BaseHTTPRequestHandler):
    """Answers by path: what comes before the first dot or slash of the path chooses the behaviour."""

    protocol_version = "HTTP/1.1"
    server: "Server"

    def do_GET(self) -> None:
        with self.server.lock:
            self.server.hits[self.path] += 1
            self.server.active += 1
            self.server.most = max(self.server.most, self.server.active)
        try:
            self.server.answers[self.path.strip("/").split("/")[0].partition(".")[0]](self)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            with self.server.lock:
                self.server.active -= 1

    def send(self, body: bytes, status: int = 200, length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass

    @property
    def hit(self) -> int:
        """How often this path was asked for, this time included."""
        return self.server.hits[self.path]


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, **answers: Answer) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = answers
        self.hits: Counter[str] = Counter()
        self.lock, self.stopping = threading.Lock(), threading.Event()
        self.active = self.most = 0

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{path}"

    def handle_error(self, *_: Any) -> None:
        pass


@contextmanager
def serving(**answers: Answer) -> Iterator[Server]:
    with Server(**answers) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.stopping.set()
            server.shutdown()
            thread.join()


def ok(handler: Handler) -> None:
    handler.send(image_bytes(), Content_Type="image/png")


def endless(handler: Handler) -> None:
    """Send for as long as somebody listens, at most 64 MiB."""
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    for _ in range(64):
        handler.wfile.write(b"100000\r\n" + b"x" * 2**20 + b"\r\n")


def drip(handler: Handler) -> None:
    """Send one byte at a time, for at most ten seconds."""
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and not handler.server.stopping.wait(0.02):
        handler.wfile.write(b"x")


def silent(handler: Handler) -> None:
    """Take the request and say nothing."""
    handler.server.stopping.wait(10)
    handler.close_connection = True
