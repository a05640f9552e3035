"""`msr serve` as a process: a real model, the documented examples, and a stop that loses nothing."""

import asyncio
import http.client
import json
import random
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from msr_adapter.config.loader import LoadedPipeline, load_pipeline
from msr_adapter.pipeline import run
from msr_adapter.pipeline.stage_context import Context
from msr_adapter.pipeline.stages import STAGES
from msr_adapter.progress import Reporter
from msr_adapter.workflows.serve import Batching
from tests.support.paths import ROOT
from tests.support.recommending import TAKEN, load, nothing, order, own_run, rows, trained, write_pipeline
from tests.support.scripted_pipeline import pretend_to_train_stages, scripted
from tests.support.serving import Served, listening, served, wait_until
from tests.support.tiny_models import tiny_model

SLOW_SCORES = """
import json, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import msr_adapter.pipeline.planning as planning
from msr_adapter.backends.scripted import ScriptedBackend
from msr_adapter.progress import Reporter
from msr_adapter.workflows.serve import ServeSettings
from msr_adapter.workflows.serve.workflow import serve
from tests.support.recommending import load, without_training

planning.STAGES = without_training()
answer = ScriptedBackend.complete

def slow(backend, requests, *follow):
    if requests and requests[0].choices:
        time.sleep(0.1)
    return answer(backend, requests, *follow)

ScriptedBackend.complete = slow
folder = Path(sys.argv[2])
told = serve(load(folder / "pipeline", folder), ServeSettings(port=0), Reporter(), as_json=True)
print(json.dumps(told), flush=True)
"""


@contextmanager
def process(folder: Path) -> "Iterator[tuple[subprocess.Popen[str], str]]":
    command = [sys.executable, "-c", SLOW_SCORES, str(ROOT), str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as started:
        try:
            assert started.stdout is not None
            line = started.stdout.readline()
            assert line, started.stderr and started.stderr.read()
            yield started, json.loads(line)["url"]
        finally:
            started.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_under_load_loses_no_request_that_was_taken(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "data").mkdir()
    write_pipeline(tmp_path / "data")
    with trained(tmp_path / "data"):
        folder = own_run(tmp_path / "data", tmp_path)
    told = Counter[int]()

    async def ask(url: str, started: asyncio.Event, client_number: int) -> None:
        async with httpx.AsyncClient(base_url=url, timeout=30) as client:
            for turn in range(10_000):
                history = ["abcdefghij"[(client_number + turn * step) % 10] for step in range(4)]
                try:
                    response = await client.post("/v1/recommend", json={"history": history})
                except httpx.ConnectError:
                    return  # nobody listens any more
                told[response.status_code] += 1
                started.set()
                if response.status_code == 503:
                    assert response.headers["Retry-After"]
                    return

    async def crowd(server: "subprocess.Popen[str]", url: str) -> None:
        started = asyncio.Event()

        async def end() -> None:
            await started.wait()
            server.send_signal(number)

        await asyncio.gather(end(), *(ask(url, started, one) for one in range(8)))

    with process(folder) as (server, url):
        asyncio.run(crowd(server, url))
        assert server.stdout is not None
        rest = server.stdout.read()
        assert server.wait(30) == 0
    assert set(told) <= {200, 503}  # any other end of a request would have raised
    counts = json.loads(rest)
    assert counts["taken"] == counts["answered"] == told[200] > 0
    assert counts["refused"] == told[503]


def hammer(port: int, number: int, told: "Counter[str]") -> None:
    """Ask again and again, on a connection of its own each time, until nobody listens any more."""
    chosen = random.Random(number)
    while True:
        body = json.dumps({"history": chosen.sample("abcdefghij", 4)})
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            client.connect()
        except ConnectionError:
            return
        try:
            client.request("POST", "/v1/recommend", body, {"Content-Type": "application/json", "Connection": "close"})
            told[str(client.getresponse().status)] += 1
        except (ConnectionError, http.client.HTTPException):
            told["lost"] += 1
        finally:
            client.close()


@pytest.mark.parametrize("turn", [0, *(pytest.param(one, marks=pytest.mark.slow) for one in range(1, 10))])
def test_whatever_a_stopping_server_has_read_is_answered_and_what_it_has_not_read_is_not_carried_out(
    tmp_path: Path, turn: int
) -> None:
    (tmp_path / "data").mkdir()
    write_pipeline(tmp_path / "data")
    with trained(tmp_path / "data"):
        folder = own_run(tmp_path / "data", tmp_path)
    told = Counter[str]()
    with process(folder) as (server, url):
        port = int(url.rpartition(":")[2])
        # What has been sent in part when the signal comes, is answered too.
        half = socket.create_connection(("127.0.0.1", port), timeout=30)
        half.sendall(b"GET /v1/users HTTP/1.1\r\nHost: 127.0.0.1\r\n")
        crowd = [threading.Thread(target=hammer, args=(port, number, told)) for number in range(16)]
        for one in crowd:
            one.start()
        wait_until(lambda: told["200"] > turn)
        server.send_signal(signal.SIGTERM)
        wait_until(lambda: told["503"] > 0)
        half.sendall(b"\r\n")
        assert half.recv(1_000).startswith(b"HTTP/1.1 503 ")
        half.close()
        for one in crowd:
            one.join(60)
        assert server.stdout is not None
        counts = json.loads(server.stdout.read())
        assert server.wait(60) == 0
    assert set(told) <= {"200", "503", "lost"}
    assert counts["taken"] == counts["answered"] == told["200"] > 0
    assert counts["refused"] == told["503"] + 1  # and the one that had been sent in part
    assert told["lost"] == 0 or sys.platform != "linux"


def test_the_documented_examples_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every `curl` of the page is run as it stands, against ids of the demo and a model that answers by script."""
    (tmp_path / "scripted.yaml").write_text(scripted(120).replace("items: 60", "items: 120"))
    loaded = load_pipeline(str(tmp_path / "scripted.yaml"), (), tmp_path / "run")
    pretend_to_train_stages(monkeypatch)
    run(loaded, ("train",), reporter=Reporter(quiet=True))
    page = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    commands = [line for block in blocks for line in block.replace("\\\n", " ").splitlines() if line.strip()]
    assert len(commands) >= 6
    with served(loaded, ("popular:20",)) as server, listening(server) as url:
        for command in commands:
            words = shlex.split(command.replace("http://127.0.0.1:8000", url))
            assert words[0] == "curl"
            done = subprocess.run([*words, "--fail-with-body", "--max-time", "20"], capture_output=True, check=False)
            assert done.returncode == 0, (command, done.stdout)
            answer = json.loads(done.stdout)
            assert answer
            assert "error" not in answer


MODEL = """\
name: modelled
data:
  source: {kind: table, interactions: log.csv, items: items.csv}
split: {fractions: [0.5, 0.2, 0.3], max_history: 3}
summarize:
  items: {model: &model {path: MODEL, template: qwen2_vl, image_max_pixels: 12544, image_min_pixels: 784}, mode: none}
  users: {model: *model, block: 2, max_new_tokens: 6}
train:
  model: *model
  method: full
  cutoff_len: 130
  too_long: truncate
evaluate: {protocol: next-item, baselines: [popularity]}
"""


def finish_training(context: Context) -> dict[str, Any]:
    """Take the random weights for trained ones."""
    shutil.copytree(tiny_model("qwen2_vl"), context.out / "model")
    return {}


def modelled(folder: Path, monkeypatch: pytest.MonkeyPatch, *sets: str) -> LoadedPipeline:
    """Return a "trained" pipeline with a model in memory."""
    write_pipeline(folder)
    (folder / "scripted.yaml").write_text(MODEL.replace("MODEL", str(tiny_model("qwen2_vl"))))
    replaced = {"train": finish_training, "lengths": nothing, "dataset": nothing}
    stages = tuple(replace(stage, run=replaced.get(stage.name, stage.run)) for stage in STAGES)
    monkeypatch.setattr("msr_adapter.pipeline.planning.STAGES", stages)
    (folder / "pipeline").symlink_to(folder)
    return load(folder, folder, *sets)


def everybody(server: Served) -> dict[str, list[tuple[str, float, float]]]:
    """Ask for everybody's list at once, so that requests are answered in batches."""

    async def crowd() -> list[Any]:
        bodies = [{"user_id": user, "candidates": "all", "k": 10} for user in TAKEN]
        return await asyncio.gather(*(server.client.ask("POST", "/v1/recommend", json=one) for one in bodies))

    responses = asyncio.run(crowd())
    assert {one.status_code for one in responses} == {200}, responses[0].text
    found = [one.json() for one in responses]
    return {one["user_id"]: [(row["item_id"], row["score"], row["logit"]) for row in one["items"]] for one in found}


def written(folder: Path, *sets: str) -> dict[str, list[tuple[str, float, float]]]:
    order(folder, sets, candidates="all", top=10)
    lists: dict[str, list[tuple[str, float, float]]] = {user: [] for user in TAKEN}
    for row in rows(folder):
        lists[row["user_id"]].append((row["item_id"], row["score"], row["logit"]))
    return lists


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["summarize.users.mode=recurrent", "summarize.users.mode=none"])
def test_a_real_models_answers_are_those_of_msr_recommend_to_the_last_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """Whoever asks first: the server, in batches of several users, or the command; and within rounding without a cache
    in common. User summaries are truncated on the way."""
    batching = Batching(window_ms=200)
    folders = [tmp_path / name for name in ("server-first", "command-first")]
    for folder in folders:
        folder.mkdir()
    first, second = (modelled(folder, monkeypatch, mode) for folder in folders)
    with served(first, ("all",), batching=batching) as server:
        told = everybody(server)
        assert server.metric("msr_batch_requests_count") < len(TAKEN)
        assert server.metric("msr_pairs_total") == sum(len(one) for one in told.values())
    assert told == written(folders[0], mode)
    commanded = written(folders[1], mode)
    with served(second, ("all",), batching=batching) as server:
        assert everybody(server) == commanded
    for user, mine in told.items():
        theirs = {item: logit for item, _, logit in commanded[user]}
        np.testing.assert_allclose([logit for _, _, logit in mine], [theirs[item] for item, _, _ in mine], atol=1e-4)
