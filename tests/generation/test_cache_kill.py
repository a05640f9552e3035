import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from msr_adapter.generation import CompletionCache, Request
from tests.support.paths import ROOT
from tests.support.recording import Recording

COUNT, SHARD = 400, 5

WORKER = """
import hashlib, os, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.support.recording import Recording
from tests.generation.test_cache_kill import SHARD, requests
from msr_adapter.generation import CompletionCache

class Slow(Recording):
    def complete(self, requests, *rest):
        time.sleep(0.003)
        return super().complete(requests)

backend = Slow(lambda request: f"answer of process {os.getpid()}", log=Path(sys.argv[3]))
with CompletionCache(Path(sys.argv[2]), shard_requests=SHARD) as cache:
    answers = cache.complete(backend, requests())
print(hashlib.sha256("".join(answer.text for answer in answers).encode()).hexdigest())
"""


def requests() -> list[Request]:
    # Every third request twice: duplicates must not move the shards.
    return [Request("model", f"prompt {number}") for number in range(COUNT) for _ in range(2 if number % 3 == 0 else 1)]


def start(cache: Path, log: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", WORKER, str(ROOT), str(cache), str(log)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def calls(log: Path) -> list[list[str]]:
    return [line.split() for line in log.read_text().splitlines()] if log.exists() else []


def stored(cache: Path) -> set[str]:
    """Keys found without computing: a backend that answers nothing would fail on any other."""
    with CompletionCache(cache) as opened:
        return set(opened.known([request.key for request in requests()]))


def kill_after(process: "subprocess.Popen[str]", log: Path, lines: int, delay: float) -> None:
    """SIGKILL ``process`` a moment after ``log`` has ``lines`` lines; nothing if it ends before."""
    while process.poll() is None and len(calls(log)) < lines:
        time.sleep(0.001)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.mark.parametrize("seed", range(3))
def test_a_killed_run_loses_at_most_one_shard_and_resumes_with_the_same_batches(tmp_path: Path, seed: int) -> None:
    undisturbed = Recording()
    with CompletionCache(tmp_path / "undisturbed.sqlite", shard_requests=SHARD) as opened:
        opened.complete(undisturbed, requests())
    expected = [[request.key for request in call] for call in undisturbed.calls]
    draw = random.Random(seed)
    cache, done, kills = tmp_path / "c.sqlite", 0, 0
    for attempt in range(6):
        log = tmp_path / f"{attempt}.log"
        kill_after(start(cache, log), log, draw.randint(1, 5), draw.random() * 0.01)
        asked = calls(log)
        assert asked == expected[done : done + len(asked)]
        committed = stored(cache)
        # Of this run all shards are kept but perhaps the last one, and shards are kept whole.
        assert done + len(asked) - 1 <= len(committed) / SHARD <= done + len(asked)
        assert committed == {key for call in expected[: len(committed) // SHARD] for key in call}
        kills += len(asked) < len(expected) - done
        done = len(committed) // SHARD
    final = start(cache, tmp_path / "final.log")
    assert final.wait() == 0
    final.communicate()
    assert calls(tmp_path / "final.log") == expected[done:]
    assert kills >= 3  # otherwise this test proved nothing


def test_two_processes_on_one_file_agree_on_every_answer(tmp_path: Path) -> None:
    cache = tmp_path / "c.sqlite"
    workers = [start(cache, tmp_path / f"{name}.log") for name in ("a", "b")]
    printed = [worker.communicate()[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    # Each process signs its answers: equal digests mean that both report what was stored first.
    assert printed[0] == printed[1] != ""
    assert len(stored(cache)) == COUNT
