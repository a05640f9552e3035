"""A chat endpoint on loopback that answers by script; not collected by pytest."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LONGEST_STALL = 2.0


@dataclass
class Served:
    """What the server saw, and how it is to behave."""

    url: str = ""
    plan: Callable[[str, int], str] = lambda prompt, attempt: "ok"
    """(prompt, attempt from 0) -> a behaviour: see `_Handler.do_POST`."""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)
    attempts: Counter[str] = field(default_factory=Counter)
    busy: int = 0
    busiest: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


def text_of(body: dict[str, Any]) -> str:
    """Return the user's text, images as their placeholder."""
    content = body["messages"][-1]["content"]
    if isinstance(content, str):
        return content
    return "".join(part["text"] if part["type"] == "text" else "<image>" for part in content)


class _Handler(BaseHTTPRequestHandler):
    served: Served
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = text_of(body)
        with self.served.lock:
            attempt = self.served.attempts[prompt]
            self.served.attempts[prompt] += 1
            self.served.bodies.append(body)
            self.served.authorizations.append(self.headers["Authorization"])
            self.served.busy += 1
            self.served.busiest = max(self.served.busiest, self.served.busy)
        try:
            self._behave(self.served.plan(prompt, attempt), prompt)
        finally:
            with self.served.lock:
                self.served.busy -= 1

    def _behave(self, behaviour: str, prompt: str) -> None:
        name, _, value = behaviour.partition(" ")
        if name == "drop":
            self.close_connection = True
        elif name == "slow":
            time.sleep(min(float(value), LONGEST_STALL))
            self._send(200, answer(prompt))
        elif name == "half":
            self._send(200, answer(prompt), claim=10_000)
            self.close_connection = True
        elif name == "malformed":
            self._send(200, value.encode() or b'{"choices": [')
        elif name == "finish":
            self._send(200, answer(prompt, finish=value))
        elif name == "key":
            echoed = {"error": {"message": f"Incorrect key: {self.headers['Authorization']}"}}
            self._send(int(value), json.dumps(echoed).encode())
        elif name == "ok":
            self._send(200, answer(prompt))
        else:
            status, _, after = behaviour.partition(" after ")
            self._send(int(status), b'{"error": {"message": "no"}}', after=after)

    def _send(self, status: int, content: bytes, claim: int | None = None, after: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(claim or len(content)))
        if after:
            self.send_header("Retry-After", after)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Stay silent."""


def answer(prompt: str, finish: str = "stop") -> bytes:
    """Return a proper answer: the prompt, backwards."""
    choice = {"index": 0, "message": {"role": "assistant", "content": f" {prompt[::-1]} "}, "finish_reason": finish}
    return json.dumps({"choices": [choice], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}).encode()


@contextmanager
def serving(plan: Callable[[str, int], str] = lambda prompt, attempt: "ok") -> Iterator[Served]:
    """Serve on a free loopback port until the block ends."""
    served = Served(plan=plan)
    handler = type("Handler", (_Handler,), {"served": served})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    served.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)
