"""`msr serve` under load, from a second process: requests of several clients in one batch, against one by one.

Two servers of one run of the demo's tiny model, alike but for `--batch-requests`: the second answers one request at a
time, its list still in one call of the model. Clients ask as soon as they are answered, never what was asked before:

- recommend: a new history of 3 items, which has to be summarised, and the 20 most popular items ranked for it
- score: a new user summary, and 5 items

Both servers take turns, round by round, so that both meet the same machine. Then the queue of a third is overrun
(`--queue 4`), and the first gets SIGTERM while 8 clients ask: every answer is compared with the one that the same
request gets alone, and no request that was taken may stay without one.

    python benchmarks/serve.py [--full] [--json] [--run-dir FOLDER]
"""

# ruff: noqa: E402 - threads are pinned before anything heavy is imported, and in the servers
import os

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import argparse
import asyncio
import contextlib
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np

GOAL = 3.0
"""Times the requests per second of one by one, at 8 clients."""
CLIENTS = (1, 8, 64)
SETS = ("data.source.users=200", "data.source.items=120", "train.max_steps=4", "train.checkpoints=1", "train.keep=last")
WORDS = [
    "bold",
    "quiet",
    "red",
    "comic",
    "covers",
    "dogs",
    "ships",
    "night",
    "scenes",
    "short",
    "funny",
    "stories",
    "old",
    "friends",
    "blue",
    "maps",
    "green",
    "kites",
]


@dataclass(frozen=True)
class Load:
    """What a round of one server was."""

    clients: int
    seconds: float
    latencies: list[float]
    statuses: Counter[int]

    @property
    def per_second(self) -> float:
        """Requests answered in a second."""
        return self.statuses[200] / self.seconds


class Asker:
    """Makes requests that nobody has made before."""

    def __init__(self, items: list[str], seed: int) -> None:
        self._items, self._random = items, random.Random(seed)
        self._made: set[tuple[str, ...]] = set()

    def recommend(self) -> tuple[str, dict[str, Any]]:
        """Return a request for a new history."""
        return "/v1/recommend", {"history": list(self._new(self._items, 3)), "candidates": "popular:20", "k": 20}

    def score(self) -> tuple[str, dict[str, Any]]:
        """Return a request for a new user summary."""
        summary = " ".join(self._new(WORDS, 12))
        chosen = self._random.sample(self._items[:40], 5)
        return "/v1/score", {"pairs": [{"summary": summary, "item_id": item} for item in chosen]}

    def _new(self, words: list[str], count: int) -> tuple[str, ...]:
        while (made := tuple(self._random.sample(words, count))) in self._made:
            pass
        self._made.add(made)
        return made


Make = Callable[[], tuple[str, dict[str, Any]]]


@contextlib.contextmanager
def server(run_dir: Path, *options: str) -> "Iterator[tuple[subprocess.Popen[str], str]]":
    """Start a server on a free port; yields it and its address once it is ready."""
    sets = [part for one in SETS for part in ("--set", one)]
    command = [sys.executable, "-m", "msr_adapter", "serve", "demo", *sets, "--run-dir", str(run_dir), "--port", "0",
               "--json", "--candidates", "popular:20", *options]  # fmt: skip
    with (run_dir.parent / "serve.log").open("a") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise SystemExit(f"the server did not start: see {run_dir.parent / 'serve.log'}")
        yield process, json.loads(line)["url"]
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


async def load(url: str, make: Make, clients: int, requests: int) -> Load:
    """Let ``clients`` ask ``requests`` times together, each as soon as it is answered."""
    left, latencies, statuses = requests, list[float](), Counter[int]()
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)

    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as client:

        async def ask() -> None:
            nonlocal left
            while left > 0:
                left -= 1
                path, body = make()
                started = time.perf_counter()
                response = await client.post(path, json=body)
                latencies.append(time.perf_counter() - started)
                statuses[response.status_code] += 1

        started = time.perf_counter()
        await asyncio.gather(*(ask() for _ in range(clients)))
        return Load(clients, time.perf_counter() - started, latencies, statuses)


def joined(rounds: list[Load]) -> dict[str, Any]:
    """Return the numbers of the rounds of one server at one number of clients."""
    latencies = [one for load in rounds for one in load.latencies]
    p50, p95, p99 = (round(1000 * float(value), 1) for value in np.percentile(latencies, (50, 95, 99)))
    statuses = sum((load.statuses for load in rounds), Counter[int]())
    per_second = sum(load.statuses[200] for load in rounds) / sum(load.seconds for load in rounds)
    errors = sum(count for status, count in statuses.items() if status != 200)
    return {"per_second": round(per_second, 1), "p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "errors": errors}


async def overload(url: str, alone: str, make: Make) -> dict[str, int]:
    """Ask far more than may wait, at once; compare what is answered with what the same requests get alone."""
    bodies = [make() for _ in range(40)]
    async with httpx.AsyncClient(timeout=120, limits=httpx.Limits(max_connections=64)) as client:
        found = await asyncio.gather(*(client.post(url + path, json=body) for path, body in bodies))
        answered = [(body, one) for body, one in zip(bodies, found, strict=True) if one.status_code == 200]
        wrong = 0
        for (path, body), one in answered:
            wrong += one.json() != (await client.post(alone + path, json=body)).json()
    refused = [one for one in found if one.status_code == 429]
    if len(answered) + len(refused) != len(bodies) or not refused or wrong:
        raise SystemExit(f"overload: {Counter(one.status_code for one in found)}, {wrong} wrong answers")
    if not all(int(one.headers["Retry-After"]) >= 1 for one in refused):
        raise SystemExit("a refusal without Retry-After")
    return {"asked": len(bodies), "answered": len(answered), "refused_429": len(refused), "wrong": wrong}


async def stop_under_load(process: "subprocess.Popen[str]", url: str, make: Make) -> dict[str, int]:
    """Send SIGTERM while clients ask; whatever was sent on a connection has to be answered, or refused aloud."""
    told = Counter[str]()

    async def ask() -> None:
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            while True:
                path, body = make()
                try:
                    response = await client.post(path, json=body)
                except httpx.ConnectError:
                    return  # nobody listens any more: nothing was taken
                except httpx.TransportError as error:
                    told[f"lost ({type(error).__name__})"] += 1
                    return
                told[str(response.status_code)] += 1
                if response.status_code == 503:
                    await asyncio.sleep(0.05)
                    if told["503"] > 200:
                        return

    async def end() -> None:
        await asyncio.sleep(1.0)
        process.send_signal(signal.SIGTERM)

    await asyncio.gather(end(), *(ask() for _ in range(8)))
    code = await asyncio.to_thread(process.wait, 60)
    if any(name.startswith("lost") for name in told) or set(told) - {"200", "503"} or code:
        raise SystemExit(f"SIGTERM under load: {dict(told)}, exit code {code}")
    return {"answered": told["200"], "refused_503": told["503"], "lost": 0, "exit_code": code}


def compare(batched: str, alone: str, kinds: dict[str, Make], scale: int) -> dict[str, Any]:
    """Return requests per second and latencies of both servers by kind and clients, measured in turns."""
    found: dict[str, Any] = {}
    for kind, make in kinds.items():
        for clients in CLIENTS:
            rounds: dict[str, list[Load]] = {"batched": [], "one by one": []}
            for turn in range(scale if clients > 8 else 2 * scale):
                order = [("batched", batched), ("one by one", alone)]
                for name, url in order if turn % 2 else order[::-1]:
                    requests = max(8, min(2 * clients, 64))
                    rounds[name].append(asyncio.run(load(url, make, clients, requests)))
            numbers = {name: joined(each) for name, each in rounds.items()}
            ratio = numbers["batched"]["per_second"] / numbers["one by one"]["per_second"]
            found[f"{kind}, {clients} clients"] = numbers | {"ratio": round(ratio, 2)}
            print(kind, clients, numbers, f"{ratio:.2f}", file=sys.stderr, flush=True)
    return found


def tell(found: dict[str, Any]) -> None:
    print(f"{'':24}{'':12}{'req/s':>8}{'p50 ms':>10}{'p95 ms':>10}{'p99 ms':>10}{'errors':>8}{'ratio':>8}")
    for name, one in found.items():
        for kind in ("batched", "one by one"):
            row = one[kind]
            ratio = f"{one['ratio']:>8.2f}" if kind == "batched" else ""
            print(f"{name if kind == 'batched' else '':24}{kind:12}{row['per_second']:>8.1f}{row['p50_ms']:>10.1f}"
                  f"{row['p95_ms']:>10.1f}{row['p99_ms']:>10.1f}{row['errors']:>8}{ratio}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="more rounds")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--run-dir", type=Path, help="a run of the demo made with the settings above; else one is made")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        run_dir = options.run_dir or Path(folder, "run")
        if not options.run_dir:
            sets = [part for one in SETS for part in ("--set", one)]
            command = [
                sys.executable,
                "-m",
                "msr_adapter",
                "train",
                "demo",
                *sets,
                "--run-dir",
                str(run_dir),
            ]
            subprocess.run(command, check=True, timeout=1_200)
        process, batched = stack.enter_context(server(run_dir))
        _, alone = stack.enter_context(server(run_dir, "--batch-requests", "1", "--batch-ms", "0"))
        with httpx.Client(base_url=batched, timeout=60) as client:
            items = [one["item_id"] for one in client.get("/v1/items", params={"limit": 120}).json()["items"]]
        asker = Asker(items, seed=int(time.time()))  # a kept run has answers of earlier runs in its cache
        kinds = {"recommend": asker.recommend, "score": asker.score}
        found: dict[str, Any] = {"load": compare(batched, alone, kinds, 4 if options.full else 1)}
        _, small = stack.enter_context(server(run_dir, "--queue", "4", "--batch-requests", "2"))
        found["overload"] = asyncio.run(overload(small, alone, asker.recommend))
        found["sigterm"] = asyncio.run(stop_under_load(process, batched, asker.recommend))
    if options.json:
        print(json.dumps(found))
        return
    tell(found["load"])
    print("overload:", found["overload"])
    print("SIGTERM under load of 8 clients:", found["sigterm"])
    least = min(one["ratio"] for name, one in found["load"].items() if ", 8 clients" in name)
    print(f"at 8 clients at least {least:.2f} times one by one (goal {GOAL:g})")


if __name__ == "__main__":
    main()
