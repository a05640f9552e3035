"""Which GPUs and threads a worker gets, and what a machine that has too few says."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from msr_adapter import distributed, system
from msr_adapter.config.schema import ExecutionConfig
from msr_adapter.distributed.devices import environments, share_gpus, threads, visible_gpus
from msr_adapter.distributed.local import LocalWorkers
from msr_adapter.distributed.worker_messages import BackendRecipe
from msr_adapter.errors import UserError
from tests.support.worker_pools import LoggedBackend, worker_pool


@pytest.mark.parametrize(
    ("workers", "each", "gpus", "expected"),
    [
        (2, None, [], [[], []]),
        (2, None, ["0", "1", "2"], [["0"], ["1"]]),
        (2, 2, ["0", "1", "2", "3"], [["0", "1"], ["2", "3"]]),
        (3, 0.5, ["4", "7"], [["4"], ["4"], ["7"]]),
        (3, 1 / 3, ["0"], [["0"]] * 3),
        (2, 0, ["0", "1"], [[], []]),
        (1, 1, ["GPU-ab", "GPU-cd"], [["GPU-ab"]]),
    ],
)
def test_gpus_are_shared_out(workers: int, each: float | None, gpus: list[str], expected: list[list[str]]) -> None:
    assert share_gpus(workers, each, gpus) == expected


@pytest.mark.parametrize(
    ("workers", "each", "gpus", "said"),
    [
        (3, None, ["0", "1"], "3 workers with 1 GPU each, but this machine has 2 and room for 2"),
        (2, 2, ["0", "1", "2"], "has 3 and room for 1"),
        (3, 0.5, ["0"], "3 workers with 0.5 GPU each"),
        (1, 1, [], "has 0"),
        (1, 1.5, ["0", "1"], "a whole number"),
    ],
)
def test_too_few_gpus_are_an_error(workers: int, each: float | None, gpus: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        share_gpus(workers, each, gpus)


def test_a_worker_sees_its_own_gpu_and_keeps_the_rest_of_the_environment() -> None:
    made = environments(ExecutionConfig(workers=2), ["2", "5"], {"HOME": "/home/x"}, small=False)
    assert made == [{"HOME": "/home/x", "CUDA_VISIBLE_DEVICES": gpu} for gpu in ("2", "5")]


@pytest.mark.parametrize("gpus", [[], ["0"]])
@pytest.mark.parametrize("parent", [{}, {"CUDA_VISIBLE_DEVICES": "0"}])
def test_a_cpu_worker_on_a_machine_with_gpus_sees_none(gpus: list[str], parent: dict[str, str]) -> None:
    parent = {"OMP_NUM_THREADS": "3", **parent}
    made = environments(ExecutionConfig(workers=2, gpus_per_worker=0), gpus, parent, small=False)
    assert made == [{"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "3"}] * 2


def test_workers_on_the_cpu_are_started_without_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[dict[str, str]] = []

    class Noted(LocalWorkers):
        def __init__(self, recipe: BackendRecipe, slots: Sequence[dict[str, str]], logs: Path) -> None:
            started.extend(slots)
            super().__init__(recipe, slots, logs)

    monkeypatch.setattr(distributed, "LocalWorkers", Noted)
    with worker_pool(partial(LoggedBackend, tmp_path / "log"), gpus_per_worker=0):
        assert [environment["CUDA_VISIBLE_DEVICES"] for environment in started] == ["", ""]


def test_cpu_threads_are_divided_unless_the_user_or_the_backend_decides() -> None:
    two = ExecutionConfig(workers=2)
    assert environments(two, [], {}, small=False) == [{"OMP_NUM_THREADS": str(threads(2))}] * 2
    assert environments(two, [], {"OMP_NUM_THREADS": "7"}, small=False) == [{"OMP_NUM_THREADS": "7"}] * 2
    assert environments(two, [], {}, small=True) == [{}, {}]
    assert threads(10_000) == 1


def test_gpus_are_those_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(system, "GPU_DRIVERS", ("/",))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert visible_gpus({}) == ["0", "1"]
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "3, GPU-ab"}) == ["3", "GPU-ab"]
    monkeypatch.setattr(system, "GPU_DRIVERS", ("/dev/no such driver",))
    assert visible_gpus({}) == []
