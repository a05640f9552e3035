"""What a shard under way was answered is kept, whatever ends it: seconds of work are lost, never a slow shard."""

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from msr_adapter.generation import (
    Answer,
    Backend,
    Chain,
    Completion,
    CompletionCache,
    Failure,
    Follow,
    Request,
    ends_there,
)
from msr_adapter.generation import request_shards as shards_module
from msr_adapter.generation.completion_store import CompletionStore
from tests.support.paths import ROOT

Rule = Callable[[Request], Answer]


def text(request: Request) -> Completion:
    return Completion(request.key, f"on {request.prompt}", (), "stop", 1, 1)


class OneByOne(Backend):
    """Answers one request after another; ``before`` is called with the number of answers before each of them."""

    identity = label = "slow"

    def __init__(self, before: Callable[[int], None] = lambda _: None, rule: Rule = text) -> None:
        self.before, self.rule = before, rule
        self.asked: list[str] = []

    def complete(self, requests: Sequence[Request], follow: Follow = ends_there) -> list[Answer]:
        waiting, answers = list(requests), list[Answer]()
        while len(answers) < len(waiting):
            self.before(len(answers))
            request = waiting[len(answers)]
            self.asked.append(request.prompt)
            answers.append(self.rule(request))
            waiting += follow(answers[-1])
        return answers


def asked(count: int = 10) -> list[Request]:
    return [Request("slow", f"prompt {number}", max_new_tokens=4) for number in range(count)]


def stored(path: Path, requests: Sequence[Request]) -> int:
    with CompletionCache(path) as cache:
        return len(cache.known([request.key for request in requests]))


def stop_at(place: int) -> Callable[[int], None]:
    def stop(done: int) -> None:
        if done == place:
            raise KeyboardInterrupt

    return stop


@pytest.fixture
def every_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards_module, "KEEP_EVERY_S", 0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands where its one number says."""
    now = [0.0]
    monkeypatch.setattr(shards_module.time, "monotonic", lambda: now[0])
    return now


def test_a_slow_shard_is_committed_twice_a_minute(
    tmp_path: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, seen, added = tmp_path / "c.sqlite", list[int](), list[int]()
    add = CompletionStore.add

    def counted(store: CompletionStore, identity: str, label: str, *answers: Sequence[object]) -> int:
        added.append(len(answers[0]))
        return add(store, identity, label, *answers)  # type: ignore[arg-type]

    def pass_time(_: int) -> None:
        seen.append(stored(path, asked()))
        clock[0] += 12

    monkeypatch.setattr(CompletionStore, "add", counted)
    with CompletionCache(path) as cache:
        answers = cache.complete(OneByOne(pass_time), asked())
        assert cache.stats == (0, 10, 0)
    assert [answer.text for answer in answers] == [f"on prompt {number}" for number in range(10)]
    assert seen == [0, 0, 0, 3, 3, 3, 6, 6, 6, 9]  # every third of them comes 30 s after the last commit
    assert added == [3, 3, 3, 10]  # and the end of a shard is as it was: whole


def test_a_fast_shard_is_one_transaction(tmp_path: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    added: list[int] = []
    add = CompletionStore.add

    def counted(store: CompletionStore, identity: str, label: str, *answers: Sequence[object]) -> int:
        added.append(len(answers[0]))
        return add(store, identity, label, *answers)  # type: ignore[arg-type]

    monkeypatch.setattr(CompletionStore, "add", counted)
    with CompletionCache(tmp_path / "c.sqlite") as cache:
        cache.complete(OneByOne(lambda _: clock.__setitem__(0, clock[0] + 2.9)), asked())
    assert added == [10]


@pytest.mark.parametrize("place", [0, 1, 7])
def test_what_ends_a_shard_costs_none_of_its_answers(tmp_path: Path, place: int) -> None:
    path, backend = tmp_path / "c.sqlite", OneByOne(stop_at(place))
    with CompletionCache(path) as cache, pytest.raises(KeyboardInterrupt):
        cache.complete(backend, asked())
    assert stored(path, asked()) == place
    again = OneByOne()
    with CompletionCache(path) as cache:
        cache.complete(again, asked())
        assert cache.stats == (place, 10 - place, 0)
    assert again.asked == [request.prompt for request in asked()[place:]]


@pytest.mark.usefixtures("every_answer")
def test_only_what_the_end_of_a_shard_would_take_is_kept(tmp_path: Path) -> None:
    """Failures, numbers that are none, impossible ones, and answers that nobody asked for wait for the end."""
    requests = [Request("slow", f"prompt {number}", choices=("Yes", "No")) for number in range(5)]
    numbers = [(-1.0, -1.0), (math.nan, -1.0), (-0.1, -0.1), (-1.0,)]

    def rule(request: Request) -> Answer:
        place = requests.index(request)
        if place == len(numbers):
            return Failure(request.key, "no answer")
        return Completion(request.key, "", numbers[place], "choice", 1, 0)

    path = tmp_path / "c.sqlite"
    with CompletionCache(path) as cache, pytest.raises(ValueError, match="1 log-probabilities"):
        cache.attempt(OneByOne(rule=rule), requests)
    with CompletionCache(path) as cache:
        assert cache.known([request.key for request in requests]) == {requests[0].key}


def spelling(word: str) -> Callable[[], Chain[str]]:
    def chain() -> Chain[str]:
        found = ""
        for _ in word:
            answer = yield Request("slow", f"after {found!r}: {word[: len(found) + 1]}", max_new_tokens=4)
            assert isinstance(answer, Completion)
            found += answer.text[-1]
        return found

    return chain


@pytest.mark.usefixtures("every_answer")
@pytest.mark.parametrize("place", range(1, 12))
def test_chains_go_on_where_they_were_killed(tmp_path: Path, place: int) -> None:
    words = ["abcd", "abce", "xyz", "x"]

    def run(backend: OneByOne) -> list[str]:
        with CompletionCache(tmp_path / "c.sqlite") as cache:
            return [found for _, found in sorted(cache.run_chains(backend, [spelling(word) for word in words]))]

    first, again = OneByOne(stop_at(place)), OneByOne()
    if place < 8:  # five prefixes of "abc...", three of "xyz"
        with pytest.raises(KeyboardInterrupt):
            run(first)
    else:
        assert run(first) == words
    assert run(again) == words
    assert len(first.asked) == min(place, 8)
    assert not set(first.asked) & set(again.asked)
    assert len(first.asked) + len(again.asked) == 8


KILLED = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from msr_adapter.generation import CompletionCache
from msr_adapter.generation import request_shards
from tests.generation.test_keeping import OneByOne, asked

request_shards.KEEP_EVERY_S = 0.02

def before(done):
    Path(sys.argv[3]).write_text(str(done))
    time.sleep(0.005)

with CompletionCache(Path(sys.argv[2])) as cache:
    cache.complete(OneByOne(before), asked(256))
"""


def test_sigkill_in_a_shard_of_256_loses_the_latest_answers_alone(tmp_path: Path) -> None:
    path, told = tmp_path / "c.sqlite", tmp_path / "told"
    command = [sys.executable, "-c", KILLED, str(ROOT), str(path), str(told)]
    with subprocess.Popen(command) as process:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and int((told.exists() and told.read_text()) or 0) < 120:
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
    done = int(told.read_text() or 0) or 120
    assert 60 < stored(path, asked(256)) <= done + 1
