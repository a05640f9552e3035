"""Workers on a Ray cluster of this machine: the same answers as one process, whoever dies."""

import contextlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from msr_adapter.config.loader import load_pipeline
from msr_adapter.config.schema import ExecutionConfig
from msr_adapter.distributed.ray import connect
from msr_adapter.errors import StageError, UserError
from msr_adapter.generation import CompletionCache, Image, Request, request_shards
from msr_adapter.pipeline import check
from tests.support.spread_stages import scores, users
from tests.support.worker_pools import LoggedBackend, keeping_all, worker_pool

pytest.importorskip("ray")


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """One cluster for the module, started as a stage would start it."""
    with contextlib.ExitStack() as leave:
        connect(ExecutionConfig(engine="ray", workers=2), leave)
        yield


def test_two_workers_with_one_killed_give_the_same_summaries_and_scores(tmp_path: Path) -> None:
    local = LoggedBackend(tmp_path / "local.log")
    expected = users(tmp_path / "alone", local), scores(tmp_path / "alone", local)
    notes: list[str] = []
    with worker_pool(
        partial(LoggedBackend, tmp_path / "log", fatal="Title f", deaths=1), notes, engine="ray"
    ) as workers:
        assert (users(tmp_path / "pool", workers), scores(tmp_path / "pool", workers)) == expected
    worked = LoggedBackend(tmp_path / "log")
    assert set(worked.asked()) == set(local.asked())
    assert 0 < len(worked.asked()) - len(set(worked.asked())) < 7
    assert len(worked.workers()) == 3
    assert "a worker died" in notes[0]
    assert len(notes) == 1


def test_a_shard_that_kills_every_worker_is_given_up(tmp_path: Path) -> None:
    requests = [Request("worked", f"prompt {number}.", max_new_tokens=4) for number in range(6)]
    make = partial(LoggedBackend, tmp_path / "log", fatal="prompt 4.", deaths=9)
    with CompletionCache(tmp_path / "c.sqlite", shard_requests=3) as cache:
        with (
            worker_pool(make, engine="ray") as workers,
            pytest.raises(StageError, match="3 workers died over the same shard"),
        ):
            cache.complete(workers, requests)
        assert LoggedBackend(tmp_path / "log").read().count("†") == 3
        assert cache.stats.computed == 3


def test_the_next_worker_is_asked_for_what_is_left_of_a_slow_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_shards, "KEEP_EVERY_S", request_shards.KEEP_EVERY_S)
    requests = [Request("worked", f"prompt {number}.", max_new_tokens=4) for number in range(12)]
    make = partial(keeping_all, tmp_path / "log", fatal="prompt 8.", deaths=1, pause=0.2)
    with CompletionCache(tmp_path / "c.sqlite") as cache, worker_pool(make, engine="ray", workers=1) as workers:
        assert len(cache.complete(workers, requests)) == 12
        assert cache.stats == (0, 12, 0)
    # Mail that was under way when the worker died may be lost with it: an answer or two.
    assert len(LoggedBackend(tmp_path / "log").asked()) <= 14


def test_a_worker_that_does_not_see_the_images_says_where_it_is(tmp_path: Path) -> None:
    request = Request("worked", "<image>", (Image(tmp_path / "absent.png", "d"),), max_new_tokens=4)
    with worker_pool(partial(LoggedBackend, tmp_path / "log"), engine="ray", workers=1) as workers:
        with pytest.raises(StageError, match=r"absent\.png is not there(.|\n)*same path on every node") as caught:
            workers.complete([request])
        assert "in a worker" in str(caught.value.__cause__)


def test_a_cluster_without_enough_gpus_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[str] = []
    monkeypatch.setattr("msr_adapter.distributed.ray.connect", lambda _, leave: leave.callback(left.append, "left"))
    crewed = worker_pool(partial(LoggedBackend, tmp_path / "log"), engine="ray", gpus_per_worker=1)
    with pytest.raises(UserError, match="2 workers with 1 GPU each, but this machine has 0"), crewed:
        pass
    assert left == ["left"]


def test_nobody_at_the_address_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(StageError, match=r"no Ray cluster 127\.0\.0\.1:9: (.|\n)*ray start --head"):
        connect(ExecutionConfig(engine="ray", address="127.0.0.1:9"), contextlib.ExitStack())


def test_check_says_when_ray_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "p.yaml").write_text("extends: demo\nexecution: {engine: ray}\n")
    loaded = load_pipeline(str(tmp_path / "p.yaml"))
    monkeypatch.setattr("msr_adapter.pipeline.checks.is_there", lambda module: module != "ray")
    [problem] = [str(problem) for problem in check(loaded) if "execution" in str(problem)]
    assert "p.yaml:2 execution.engine: Ray is not installed. Run `pip install 'msr-adapter[ray]'`" in problem
