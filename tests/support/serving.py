"""`msr serve` in this process: a pipeline whose model answers by script, behind the whole application."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from msr_adapter.config.loader import LoadedPipeline
from msr_adapter.progress import Reporter
from msr_adapter.workflows.serve import Batching, RequestLimits, ServeSettings
from msr_adapter.workflows.serve.app import ServedRun
from msr_adapter.workflows.serve.gate import Gate
from msr_adapter.workflows.serve.server import GracefulServer, bind
from msr_adapter.workflows.serve.workflow import gated, prepare

RETRIEVERS = ("popular:6", "item-knn:4", "all")
BASE = "http://127.0.0.1"


_LIMITS, _BATCHING = RequestLimits(), Batching(window_ms=0)


class Client:
    """Asks an application in this process, one request at a time."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        # In a thread: a browser's library has a loop of its own in this one.
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(lambda: asyncio.run(self.ask(method, path, **more))).result()

    async def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        transport = httpx.ASGITransport(self._app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url=BASE, timeout=30) as client:
            return await client.request(method, path, **more)

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.request("GET", path, **more)

    def post(self, path: str, **more: Any) -> httpx.Response:
        return self.request("POST", path, **more)


class Served:
    """A server without a socket: its run, and a client."""

    def __init__(self, run: ServedRun, gate: Gate, client: Client) -> None:
        self.run, self.gate, self.client = run, gate, client

    def post(self, path: str, body: Any, status: int = 200, **headers: str) -> Any:
        """Send a body and return the answer, whose status has to be ``status``."""
        response = self.client.post(path, json=body, headers=headers)
        assert response.status_code == status, response.text
        return response.json()

    def get(self, path: str, status: int = 200, **params: Any) -> Any:
        response = self.client.get(path, params=params)
        assert response.status_code == status, response.text
        return response.json()

    def metric(self, name: str) -> float:
        """Return the sum of a metric over its labels."""
        lines = self.client.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.split("{")[0].split(" ")[0] == name)


@contextlib.contextmanager
def served(
    loaded: LoadedPipeline,
    candidates: Sequence[str] = RETRIEVERS,
    limits: RequestLimits = _LIMITS,
    batching: Batching = _BATCHING,
    token: str | None = None,
) -> Iterator[Served]:
    """Serve a run that is up to date; the models are loaded when the block begins."""
    settings = ServeSettings(candidates=tuple(candidates), limits=limits, batching=batching)
    run = prepare(loaded, settings, Reporter(quiet=True))
    gate = gated(run, token)
    run.engine.start()
    try:
        wait_until(lambda: run.engine.ready or run.engine.failed)
        if run.engine.error is not None:
            raise run.engine.error
        yield Served(run, gate, Client(gate))
    finally:
        run.engine.close(10)


@contextlib.contextmanager
def listening(server: Served) -> Iterator[str]:
    """Let a server listen on loopback, in a thread; yields its address."""
    settings = replace(server.run.settings, port=0)
    with bind(settings) as bound:
        uvicorn = GracefulServer(server.gate, server.gate, server.run.engine, settings)
        thread = threading.Thread(target=uvicorn.run, kwargs={"sockets": [bound]}, daemon=True)
        thread.start()
        wait_until(lambda: uvicorn.started)
        try:
            yield f"{BASE}:{bound.getsockname()[1]}"
        finally:
            uvicorn.should_exit = uvicorn.force_exit = True
            thread.join(10)


def wait_until(true: Any, timeout_s: float = 30) -> None:
    """Wait for a condition; fails after ``timeout_s``."""
    end = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def serve_folder(folder: Path) -> LoadedPipeline:
    """Return the pipeline of a folder that `own_run` made."""
    from tests.support.recommending import load

    return load(folder / "pipeline", folder)
