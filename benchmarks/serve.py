"""`msr serve` under load, from a second process: requests of several clients in one batch, against one by one.

Three servers of one run of the demo's tiny model, alike but for how much they answer together: batched, request by
request (a list is still one call of the model, which shares what its prompts have in common), and pair by pair. Clients
ask as soon as they are answered, and never what was asked before:

- recommend: a new history of 3 items, which has to be summarised, and the 20 most popular items ranked for it
- score: a new user summary, and 5 items

They take turns, round by round, so that all meet the same machine; the CPU time of their processes is told beside. Then
the queue of another is overrun (`--queue 4`), and the first gets SIGTERM while 8 clients ask: every answer is compared
with the one that the same request gets alone, and no request that was taken may stay without one.

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
"""Times the requests per second of pair by pair, at 8 clients."""
ALONE = {"by request": ("--batch-requests", "1", "--batch-ms", "0"),
         "by pair": ("--batch-requests", "1", "--batch-pairs", "1", "--batch-ms", "0")}  # fmt: skip
ROUNDS = {1: 12, 8: 64, 64: 192}
"""Clients -> requests of a round: enough of them that the first and the last batch weigh little."""
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
    cpu_s: float
    """CPU time of the server."""

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
Started = tuple["subprocess.Popen[str]", str]
"""A server and its address."""


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


async def load(started: Started, make: Make, clients: int, requests: int) -> Load:
    """Let ``clients`` ask ``requests`` times together, each as soon as it is answered."""
    left, latencies, statuses = requests, list[float](), Counter[int]()
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)

    async with httpx.AsyncClient(base_url=started[1], timeout=120, limits=limits) as client:

        async def ask() -> None:
            nonlocal left
            while left > 0:
                left -= 1
                path, body = make()
                asked = time.perf_counter()
                response = await client.post(path, json=body)
                latencies.append(time.perf_counter() - asked)
                statuses[response.status_code] += 1

        begun, spent = time.perf_counter(), cpu_seconds(started[0].pid)
        await asyncio.gather(*(ask() for _ in range(clients)))
        seconds = time.perf_counter() - begun
        return Load(clients, seconds, latencies, statuses, cpu_seconds(started[0].pid) - spent)


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def joined(rounds: list[Load]) -> dict[str, Any]:
    """Return the numbers of the rounds of one server at one number of clients."""
    latencies = [one for load in rounds for one in load.latencies]
    p50, p95, p99 = (round(1000 * float(value), 1) for value in np.percentile(latencies, (50, 95, 99)))
    statuses = sum((load.statuses for load in rounds), Counter[int]())
    per_second = sum(load.statuses[200] for load in rounds) / sum(load.seconds for load in rounds)
    errors = sum(count for status, count in statuses.items() if status != 200)
    cpu = round(1000 * sum(load.cpu_s for load in rounds) / max(1, statuses[200]), 1)
    return {"per_second": round(per_second, 1), "p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "cpu_ms": cpu,
            "errors": errors}  # fmt: skip


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
    """Send SIGTERM while clients ask; whatever was read has to be answered, or refused aloud, by the server's count."""
    told, answered = Counter[str](), asyncio.Event()

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
                answered.set()
                if response.status_code == 503:
                    await asyncio.sleep(0.05)
                    if told["503"] > 200:
                        return

    async def end() -> None:
        await answered.wait()
        process.send_signal(signal.SIGTERM)

    await asyncio.gather(end(), *(ask() for _ in range(8)))
    code = await asyncio.to_thread(process.wait, 60)
    assert process.stdout is not None
    counts = json.loads(process.stdout.read().splitlines()[-1])
    lost = sum(count for name, count in told.items() if name.startswith("lost"))
    if counts["taken"] != counts["answered"] or counts["refused"] != told["503"] or lost or code:
        raise SystemExit(f"SIGTERM under load: clients got {dict(told)}, the server says {counts}, exit code {code}")
    return {"answered": told["200"], "refused_503": told["503"], "lost": lost, "exit_code": code, **counts}


def compare(servers: dict[str, Started], kinds: dict[str, Make], scale: int) -> dict[str, Any]:
    """Return what the servers did by kind of request and number of clients, measured in turns."""
    found: dict[str, Any] = {}
    for kind, make in kinds.items():
        for clients in ROUNDS:
            rounds: dict[str, list[Load]] = {name: [] for name in servers}
            for turn in range(scale if clients > 8 else 2 * scale):
                names = list(servers)
                for name in names if turn % 2 else names[::-1]:
                    requests = ROUNDS[clients]
                    rounds[name].append(asyncio.run(load(servers[name], make, clients, requests)))
            found[f"{kind}, {clients} clients"] = {name: joined(each) for name, each in rounds.items()}
            print(kind, clients, found[f"{kind}, {clients} clients"], file=sys.stderr, flush=True)
    return found


def tell(found: dict[str, Any]) -> None:
    print(f"{'':24}{'':12}{'req/s':>8}{'p50 ms':>10}{'p95 ms':>10}{'p99 ms':>10}{'CPU ms':>9}{'errors':>8}{'ratio':>8}")
    for name, one in found.items():
        for place, (kind, row) in enumerate(one.items()):
            ratio = one["batched"]["per_second"] / row["per_second"] if row["per_second"] else float("inf")
            print(f"{'' if place else name:24}{kind:12}{row['per_second']:>8.1f}{row['p50_ms']:>10.1f}"
                  f"{row['p95_ms']:>10.1f}{row['p99_ms']:>10.1f}{row['cpu_ms']:>9.1f}"
                  f"{row['errors']:>8}{ratio:>8.2f}")  # fmt: skip


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
        servers = {"batched": stack.enter_context(server(run_dir))}
        servers |= {name: stack.enter_context(server(run_dir, *more)) for name, more in ALONE.items()}
        (process, batched), (_, alone) = servers["batched"], servers["by request"]
        with httpx.Client(base_url=batched, timeout=60) as client:
            items = [one["item_id"] for one in client.get("/v1/items", params={"limit": 120}).json()["items"]]
        asker = Asker(items, seed=int(time.time()))  # a kept run has answers of earlier runs in its cache
        kinds = {"recommend": asker.recommend, "score": asker.score}
        found: dict[str, Any] = {"load": compare(servers, kinds, 4 if options.full else 1)}
        _, small = stack.enter_context(server(run_dir, "--queue", "4", "--batch-requests", "2"))
        found["overload"] = asyncio.run(overload(small, alone, asker.recommend))
        found["sigterm"] = asyncio.run(stop_under_load(process, batched, asker.recommend))
    if options.json:
        print(json.dumps(found))
        return
    tell(found["load"])
    print("overload:", found["overload"])
    print("SIGTERM under load of 8 clients:", found["sigterm"])
    eight = {name: one for name, one in found["load"].items() if ", 8 clients" in name}
    ratios = {name: one["batched"]["per_second"] / one["by pair"]["per_second"] for name, one in eight.items()}
    for name, ratio in ratios.items():
        print(f"{name}: {ratio:.2f} times pair by pair (goal {GOAL:g}; serve_batches.py tells what the model allows)")


if __name__ == "__main__":
    main()
