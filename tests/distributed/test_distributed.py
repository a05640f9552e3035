"""Workers of this machine: the same answers as one process, whoever dies."""

import os
import pickle
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest

from msr_adapter.backends.openai import ServerBackend
from msr_adapter.config.loader import load_pipeline
from msr_adapter.config.schema import ExecutionConfig, ModelConfig, ServerConfig
from msr_adapter.distributed import open_backend, worker_process
from msr_adapter.distributed.pool import WorkerPool
from msr_adapter.distributed.worker import Worker
from msr_adapter.distributed.worker_messages import BackendRecipe, Raised, WorkerTracebackError
from msr_adapter.errors import StageError
from msr_adapter.generation import CompletionCache, Image, Request, request_shards
from msr_adapter.generation.request_shards import RequestShard
from msr_adapter.pipeline import run as run_pipeline
from msr_adapter.schema import USER_SUMMARIES, read_table
from tests.support.paths import ROOT
from tests.support.scripted_pipeline import SCRIPTED
from tests.support.spread_stages import HISTORIES, scores, users
from tests.support.tiny_run import QUIET
from tests.support.worker_pools import LoggedBackend, OtherModel, answer, keeping_all, worker_pool


def test_a_worker_killed_in_the_middle_changes_no_summary_and_no_count(tmp_path: Path) -> None:
    expected = users(tmp_path / "alone", local := LoggedBackend(tmp_path / "local.log"))
    notes: list[str] = []
    with worker_pool(partial(LoggedBackend, tmp_path / "log", fatal="Title f", deaths=1), notes) as workers:
        assert users(tmp_path / "pool", workers) == expected
    worked = LoggedBackend(tmp_path / "log")
    assert set(worked.asked()) == set(local.asked())
    assert len(local.asked()) == len(set(local.asked())) == expected[1]["computed"] == 30
    # Only what the dead worker had not handed in was computed again.
    assert 0 < len(worked.asked()) - len(set(worked.asked())) < 7
    assert len(worked.workers()) == 3
    assert "died (killed (SIGKILL)" in notes[0]


def test_a_worker_killed_in_the_middle_changes_no_score(tmp_path: Path) -> None:
    expected = scores(tmp_path / "alone", LoggedBackend(tmp_path / "local.log"))
    with worker_pool(partial(LoggedBackend, tmp_path / "log", fatal="candidate", deaths=1)) as workers:
        assert scores(tmp_path / "pool", workers) == expected
    assert "†" in LoggedBackend(tmp_path / "log").read()


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo what `keeping_all` sets in this process."""
    monkeypatch.setattr(request_shards, "KEEP_EVERY_S", request_shards.KEEP_EVERY_S)


@pytest.mark.usefixtures("slow")
def test_the_next_worker_is_asked_for_what_is_left_of_a_slow_shard(tmp_path: Path) -> None:
    requests = [Request("worked", f"prompt {number}.", max_new_tokens=4) for number in range(12)]
    make = partial(keeping_all, tmp_path / "log", fatal="prompt 8.", deaths=2)
    with CompletionCache(tmp_path / "c.sqlite") as cache, worker_pool(make, workers=1) as workers:
        assert cache.complete(workers, requests) == [answer(request) for request in requests]
        assert cache.stats == (0, 12, 0)
    worked = LoggedBackend(tmp_path / "log")
    assert worked.asked() == [request.key for request in requests]
    assert worked.read().count("†") == 2


@pytest.mark.usefixtures("slow")
def test_chains_of_a_dead_worker_go_on_from_their_last_answers(tmp_path: Path) -> None:
    expected = users(tmp_path / "alone", local := LoggedBackend(tmp_path / "local.log"))
    with worker_pool(partial(keeping_all, tmp_path / "log", fatal="Title f", deaths=1)) as workers:
        assert users(tmp_path / "pool", workers) == expected
    assert sorted(LoggedBackend(tmp_path / "log").asked()) == sorted(local.asked())


@pytest.mark.usefixtures("slow")
def test_what_a_stage_was_answered_is_kept_when_its_workers_die_for_good(tmp_path: Path) -> None:
    requests = [Request("worked", f"prompt {number}.", max_new_tokens=4) for number in range(12)]
    make = partial(keeping_all, tmp_path / "log", fatal="prompt 8.", deaths=9)
    with CompletionCache(tmp_path / "c.sqlite") as cache:
        with worker_pool(make, workers=1) as workers, pytest.raises(StageError, match="3 workers died"):
            cache.complete(workers, requests)
        assert cache.known([request.key for request in requests]) == {request.key for request in requests[:8]}


@pytest.mark.usefixtures("slow")
def test_an_error_in_a_worker_costs_no_answer(tmp_path: Path) -> None:
    requests = [Request("worked", f"prompt {number}.", max_new_tokens=4) for number in range(12)]
    make = partial(LoggedBackend, tmp_path / "log", raises="prompt 8.")
    with CompletionCache(tmp_path / "c.sqlite") as cache:
        with worker_pool(make, workers=1) as workers, pytest.raises(StageError, match="does not fit"):
            cache.complete(workers, requests)
        assert cache.known([request.key for request in requests]) == {request.key for request in requests[:8]}


def test_a_shard_that_kills_every_worker_is_given_up_and_the_others_are_kept(tmp_path: Path) -> None:
    requests = [Request("worked", f"prompt {number}.", max_new_tokens=4) for number in range(12)]
    with CompletionCache(tmp_path / "c.sqlite", shard_requests=3) as cache:
        with (
            worker_pool(partial(LoggedBackend, tmp_path / "log", fatal="prompt 10.", deaths=9)) as workers,
            pytest.raises(StageError, match=r"3 workers died over the same shard, the last one: killed") as caught,
        ):
            cache.complete(workers, requests)
        assert "execution.workers" in str(caught.value)
        assert LoggedBackend(tmp_path / "log").read().count("†") == 3
        assert cache.stats.computed == 9
        again = LoggedBackend(tmp_path / "again")
        cache.complete(again, requests)
    assert again.asked() == [request.key for request in requests[9:]]


def test_an_exception_in_a_worker_is_raised_here_with_its_cause(tmp_path: Path) -> None:
    requests = [Request("worked", f"prompt {number}.", max_new_tokens=4) for number in range(4)]
    make = partial(LoggedBackend, tmp_path / "log", raises="prompt 2.")
    with CompletionCache(tmp_path / "c.sqlite", shard_requests=1) as cache, worker_pool(make) as workers:
        with pytest.raises(StageError, match="this prompt does not fit") as caught:
            cache.complete(workers, requests)
        assert isinstance(caught.value.__cause__, WorkerTracebackError)
        assert "worker_pools.py" in str(caught.value.__cause__)
        # The same workers go on with other work.
        assert len(workers.complete([requests[0], requests[3]])) == 2
    assert len(LoggedBackend(tmp_path / "log").workers()) <= 2


def test_a_worker_with_another_model_answers_nothing(tmp_path: Path) -> None:
    make = partial(OtherModel, tmp_path / "log", os.getpid())
    with (
        worker_pool(make, workers=1, gpus_per_worker=0) as workers,
        pytest.raises(StageError, match="is not the one here"),
    ):
        workers.complete([Request("worked", "prompt", max_new_tokens=4)])
    assert LoggedBackend(tmp_path / "log").asked() == []


def test_other_versions_are_named() -> None:
    recipe = BackendRecipe(partial(OtherModel, Path("log"), 0), "worked", {"torch": "0.1", "msr-adapter": "x"})
    told = Worker(recipe).work(0, pickle.dumps(RequestShard(())), lambda _: None)
    assert isinstance(told, Raised)
    assert " for 0.1" in str(told.error)
    assert "same versions on every node" in str(told.error)


def test_a_node_without_the_images_is_named(tmp_path: Path) -> None:
    image = tmp_path / "a.png"
    worker = Worker(BackendRecipe.of(partial(LoggedBackend, tmp_path / "log"), "worked", shared=True))
    payload = pickle.dumps(RequestShard((Request("worked", "<image>", (Image(image, "d"),), max_new_tokens=4),)))
    for expected in ("a.png is not there", "a.png is another image there"):
        told = worker.work(0, payload, lambda _: None)
        assert isinstance(told, Raised)
        assert expected in str(told.error)
        assert os.uname().nodename in str(told.error)
        assert "same path on every node" in str(told.error)
        image.write_bytes(b"another")
    assert LoggedBackend(tmp_path / "log").asked() == []


DRIVER = """
import sys
from functools import partial
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.support.worker_pools import LoggedBackend, worker_pool
from msr_adapter.generation import CompletionCache, Request

if __name__ == "__main__":
    requests = [Request("worked", f"prompt {number}.", max_new_tokens=4) for number in range(4000)]
    make = partial(LoggedBackend, Path(sys.argv[3]), pause=0.02)
    with CompletionCache(Path(sys.argv[2]), shard_requests=4) as cache, worker_pool(make) as workers:
        cache.complete(workers, requests)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_driver_that_is_killed_leaves_no_worker_and_loses_no_commit(tmp_path: Path, how: signal.Signals) -> None:
    arguments = [str(ROOT), str(tmp_path / "c.sqlite"), str(tmp_path / "log")]
    worked = LoggedBackend(tmp_path / "log")
    with subprocess.Popen([sys.executable, "-c", DRIVER, *arguments], stderr=subprocess.PIPE) as driver:
        while len(worked.asked()) < 40 and driver.poll() is None:
            time.sleep(0.01)
        assert workers_of(driver.pid)
        driver.send_signal(how)
        driver.communicate(timeout=60)
    deadline = time.monotonic() + 30
    while workers_of(driver.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not workers_of(driver.pid)
    requests = [Request("worked", f"prompt {number}.", max_new_tokens=4) for number in range(400)]
    with CompletionCache(tmp_path / "c.sqlite", shard_requests=4) as cache:
        committed = cache.known([request.key for request in requests])
        again = LoggedBackend(tmp_path / "again")
        cache.complete(again, requests)
    assert len(committed) >= 16  # all but the shards under way
    assert set(again.asked()) == {request.key for request in requests} - committed


def workers_of(driver: int) -> list[int]:
    """Return the processes that were started as workers of ``driver``."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        command = process.info["cmdline"] or []
        if worker_process.__file__ in command and str(driver) in command and process.info["status"] != "zombie":
            found.append(process.pid)
    return found


def test_two_workers_with_a_model_give_what_one_process_gives(tmp_path: Path) -> None:
    model = ModelConfig(path="tiny", batch_size=4)
    summaries, tables, spent = {}, {}, {}
    for name, count in (("alone", 1), ("pool", 2)):
        execution = ExecutionConfig(workers=count)
        with open_backend(execution, model, tmp_path / "logs", lambda _: None) as backend:
            assert isinstance(backend, WorkerPool) == (count == 2)
            summaries[name] = users(tmp_path / name, backend, HISTORIES[:8])
            tables[name], _ = scores(tmp_path / name, backend)
            counted = backend.stats
            assert counted is not None
            spent[name] = counted.rows, counted.tokens_flat, counted.tokens_processed
    assert summaries["pool"] == summaries["alone"]
    assert spent["pool"] == spent["alone"]
    assert spent["pool"][0] == 16
    one, two = tables["alone"], tables["pool"]
    assert two.select(["example_id", "item_id"]) == one.select(["example_id", "item_id"])
    # A worker that has seen other images encodes them in other batches, which rounds differently.
    for column in ("logit", "score", "answer_mass"):
        np.testing.assert_allclose(two[column], one[column], atol=1e-5)
    assert len(list((tmp_path / "logs").iterdir())) == 2


def test_a_pipeline_says_where_and_its_stages_stay_up_to_date(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(SCRIPTED)
    found = {}
    for name, sets in (("one", ()), ("two", ("execution.workers=2",))):
        loaded = load_pipeline(str(tmp_path / "p.yaml"), sets, tmp_path / name)
        run_pipeline(loaded, ("users",), reporter=QUIET)
        found[name] = [read_table(tmp_path / name / "users" / "users.parquet", USER_SUMMARIES)]
    assert found["one"] == found["two"]
    assert (tmp_path / "two" / "logs" / "worker-1.log").exists()
    again = run_pipeline(load_pipeline(str(tmp_path / "p.yaml"), (), tmp_path / "two"), ("users",), reporter=QUIET)
    assert {stage.state for stage in again.stages} == {"up to date"}


def test_a_server_is_asked_by_one_process(tmp_path: Path) -> None:
    model = ModelConfig(path="served", backend="server", server=ServerConfig(url="http://127.0.0.1:9/v1"))
    with open_backend(ExecutionConfig(workers=4), model, tmp_path / "logs", lambda _: None) as backend:
        assert isinstance(backend, ServerBackend)
    assert not (tmp_path / "logs").exists()
