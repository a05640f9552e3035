"""A Ray cluster that runs already, and one whose driver is killed: minutes long."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from msr_adapter.schema import SCORES, USER_SUMMARIES, read_table
from tests.support.paths import ROOT
from tests.support.spread_stages import scores, users
from tests.support.worker_pools import LoggedBackend

pytestmark = pytest.mark.slow
RAY = Path(sys.executable).parent / "ray"


@pytest.fixture(params=[{"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a" * 64}, {"RAY_AUTH_MODE": "disabled"}])
def head(request: pytest.FixtureRequest) -> Iterator[tuple[str, dict[str, str]]]:
    """The address of a head node, as ``ray start`` makes it, and the environment of who may use it.

    Workers find the tests' modules through PYTHONPATH.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0", **request.param}
    command = ["start", "--head", f"--port={port}", "--node-ip-address=127.0.0.1", "--include-dashboard=false",
               "--num-cpus=2", "--disable-usage-stats", f"--temp-dir={folder}", "--block"]  # fmt: skip
    with subprocess.Popen([RAY, *command], env=environment, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not listens(port):
            time.sleep(0.2)
        yield f"127.0.0.1:{port}", environment
        process.send_signal(signal.SIGTERM)
    shutil.rmtree(folder, ignore_errors=True)


def listens(port: int) -> bool:
    with socket.socket() as line:
        return line.connect_ex(("127.0.0.1", port)) == 0


TWO_RUNS = """
import sys
from functools import partial
from pathlib import Path
from tests.support.worker_pools import LoggedBackend, worker_pool
from tests.support.spread_stages import scores, users

folder = Path(sys.argv[1])
for name in ("one", "two"):
    make = partial(LoggedBackend, folder / "log", fatal="Title f", deaths=1)
    with worker_pool(make, engine="ray", address=sys.argv[2]) as workers:
        users(folder / name, workers)
        scores(folder / name, workers)
"""


def test_a_running_cluster_gives_the_same_and_is_left_running(tmp_path: Path, head: tuple[str, dict[str, str]]) -> None:
    local = LoggedBackend(tmp_path / "local.log")
    summaries, logits = users(tmp_path / "alone", local)[0], scores(tmp_path / "alone", local)[0]
    address, environment = head
    subprocess.run([sys.executable, "-c", TWO_RUNS, str(tmp_path), address], env=environment, check=True, timeout=400)
    for name in ("one", "two"):
        assert read_table(tmp_path / name / "users" / "users.parquet", USER_SUMMARIES) == summaries
        assert read_table(tmp_path / name / "score" / "scores.parquet", SCORES) == logits
    assert "†" in LoggedBackend(tmp_path / "log").read()


DRIVER = """
import sys
from functools import partial
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.support.worker_pools import LoggedBackend, worker_pool
from msr_adapter.generation import CompletionCache, Request
requests = [Request("worked", f"prompt {number}.", max_new_tokens=4) for number in range(9000)]
folder = Path(sys.argv[2])
with CompletionCache(folder / "c.sqlite", shard_requests=4) as cache:
    with worker_pool(partial(LoggedBackend, folder / "log", pause=0.02), engine="ray") as workers:
        cache.complete(workers, requests)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_driver_that_is_killed_takes_its_cluster_along(tmp_path: Path, how: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", DRIVER, str(ROOT), str(tmp_path)], stderr=subprocess.PIPE) as driver:
        deadline = time.monotonic() + 240
        while (
            len(LoggedBackend(tmp_path / "log").asked()) < 40 and driver.poll() is None and time.monotonic() < deadline
        ):
            time.sleep(0.1)
        started = psutil.Process(driver.pid).children(recursive=True)
        assert len(started) >= 4  # the cluster's own two, and the workers
        driver.send_signal(how)
        driver.communicate(timeout=120)
    # Ray's own helpers look for their parent now and then.
    _, left = psutil.wait_procs(started, timeout=240)
    assert left == []
