"""Many processes and machines: who this is, what it starts, how the machines meet, and a real training of two."""

import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest

from msr_adapter.config.loader import load_pipeline
from msr_adapter.config.schema import LaunchConfig
from msr_adapter.config.schema.execution import Strategy
from msr_adapter.errors import StageError, UserError
from msr_adapter.llamafactory import parallelism, ray_launch, rendezvous, trainer_entrypoint
from msr_adapter.llamafactory.launcher import UNSET, TrainerRun, launch, trainer_process
from msr_adapter.llamafactory.nodes import (
    Node,
    by_hand,
    find_place,
    slurm_script,
    trainer_arguments,
    trainer_variables,
)
from msr_adapter.llamafactory.parallelism import STRATEGIES, check_launch, parallel_arguments
from msr_adapter.llamafactory.rendezvous import RENDEZVOUS, announced, join
from msr_adapter.llamafactory.training_yaml import training_config, write_yaml
from msr_adapter.pipeline import runner
from msr_adapter.train import commands_by_hand, first_place
from tests.support.tiny_run import QUIET, stages, train_config

YAML = Path("/runs/my shop/train.yaml")


@pytest.mark.parametrize(("gpus", "processes"), [(0, 1), (1, 1), (4, 4)])
def test_one_process_for_each_gpu_unless_told_otherwise(gpus: int, processes: int) -> None:
    assert find_place(LaunchConfig(), {}, gpus) == Node(processes, port=29_500, gpus=gpus)
    assert find_place(LaunchConfig(processes=1), {}, gpus).world == 1


@pytest.mark.parametrize(
    ("environment", "rank", "address"),
    [
        ({"NODE_RANK": "2", "MASTER_ADDR": "10.0.0.1"}, 2, "10.0.0.1"),
        ({"SLURM_NODEID": "0", "SLURM_JOB_NODELIST": "gpu[03,07-09],cpu1"}, 0, "gpu03"),
        ({"SLURM_NODEID": "1", "SLURM_JOB_NODELIST": "rack1-n[007-012]-ib,other"}, 1, "rack1-n007-ib"),
        ({"SLURM_NODEID": "1", "SLURM_JOB_NODELIST": "alpha,beta"}, 1, "alpha"),
        ({"NODE_RANK": "1", "SLURM_NODEID": "0", "MASTER_ADDR": "a", "SLURM_JOB_NODELIST": "b"}, 1, "a"),
    ],
)
def test_the_environment_says_which_machine_this_is(environment: dict[str, str], rank: int, address: str) -> None:
    place = find_place(LaunchConfig(nodes=4, processes=8), environment, 8)
    assert (place.rank, place.address, place.world) == (rank, address, 32)
    told = find_place(LaunchConfig(nodes=4, address="told"), environment, 8)
    assert told.address == "told"


def test_everything_wrong_with_a_place_is_said_at_once() -> None:
    with pytest.raises(UserError) as caught:
        find_place(LaunchConfig(nodes=2, processes=4), {"NODE_RANK": "2"}, 3)
    said = str(caught.value)
    assert "train.launch.processes: 4 processes, but 3 visible GPUs" in said
    assert "environment NODE_RANK: 2; a number from 0 to 1" in said
    assert "train.launch.address: nothing says where the first machine is" in said
    with pytest.raises(UserError, match="nothing says which one this machine is"):
        find_place(LaunchConfig(nodes=2, address="a"), {}, 0)


def test_a_dry_run_needs_to_know_no_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MASTER_ADDR", "SLURM_JOB_NODELIST", "NODE_RANK", "SLURM_NODEID"):
        monkeypatch.delenv(name, raising=False)
    train = train_config(launch=LaunchConfig(nodes=2))
    first, second = commands_by_hand(train, YAML)
    assert "--master-addr=FIRST_HOST" in first
    assert "--node-rank=1" in second
    assert "#SBATCH --nodes=2\n" in slurm_script(first_place(train), "msr-my", ["msr"])
    monkeypatch.setenv("SLURM_JOB_NODELIST", "gpu[03-04]")
    assert first_place(train).address == "gpu03"
    monkeypatch.setenv("MASTER_ADDR", "head")
    assert first_place(train).address == "head"


def test_only_a_training_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "my.yaml"
    path.write_text("extends: demo\ntrain: {launch: {nodes: 2, wait: 0.6}}\n")
    loaded = load_pipeline(str(path), (), tmp_path / "run")
    for name in ("MASTER_ADDR", "SLURM_JOB_NODELIST", "NODE_RANK", "SLURM_NODEID"):
        monkeypatch.delenv(name, raising=False)
    assert not runner.join(loaded, ("data", "users"), reporter=QUIET)  # whichever machine this is
    with pytest.raises(UserError, match="nothing says which one this machine is"):
        runner.join(loaded, ("train",), reporter=QUIET)
    monkeypatch.setenv("NODE_RANK", "1")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with pytest.raises(StageError, match="did not start training within"):
        runner.join(loaded, ("evaluate",), reporter=QUIET)
    with pytest.raises(StageError, match="did not start training within"):
        runner.join(loaded, ("data",), force=("train",), reporter=QUIET)
    with pytest.raises(StageError, match="did not start training within"):  # nothing is trained yet
        runner.join(loaded, ("evaluate",), reporter=QUIET, retrain="refuse")
    with monkeypatch.context() as patch:
        patch.setattr(runner, "is_there", lambda *_: True)
        assert runner.join(loaded, ("evaluate",), reporter=QUIET, retrain="refuse")
    monkeypatch.setattr(runner, "plan", lambda *_, **__: {"train": "up to date"})
    assert runner.join(loaded, ("evaluate",), reporter=QUIET)
    with pytest.raises(StageError, match="did not start training within"):
        runner.join(loaded, ("evaluate",), force=("train",), reporter=QUIET)
    monkeypatch.setenv("NODE_RANK", "0")
    assert not runner.join(loaded, ("evaluate",), reporter=QUIET)


def test_the_commands_of_every_machine() -> None:
    assert by_hand(Node(), Path("a.yaml")) == ["llamafactory-cli train a.yaml"]
    assert by_hand(Node(gpus=2), Path("a.yaml")) == ["CUDA_VISIBLE_DEVICES=0 llamafactory-cli train a.yaml"]
    [alone] = by_hand(Node(processes=4, gpus=4), YAML)
    assert shlex.split(alone) == [
        "torchrun", "--standalone", "--nproc-per-node=4", "-m", "llamafactory.launcher", str(YAML),
    ]  # fmt: skip
    first, second = by_hand(Node(8, 2, 1, "head", 29_500, 8), YAML)
    assert "--nnodes=2 --node-rank=0 --nproc-per-node=8 --master-addr=head --master-port=29500" in first
    assert second == first.replace("--node-rank=0", "--node-rank=1")
    assert trainer_arguments(Node(8, 2, 1, "head", 29_500), YAML)[1:] == [*shlex.split(second)[1:-3], str(YAML)]


def test_a_single_trainer_sees_a_single_gpu() -> None:
    assert trainer_variables(Node(gpus=1), {}) == {}
    assert trainer_variables(Node(processes=2, gpus=2), {}) == {}
    assert trainer_variables(Node(gpus=2), {}) == {"CUDA_VISIBLE_DEVICES": "0"}
    assert trainer_variables(Node(gpus=2), {"CUDA_VISIBLE_DEVICES": "5,7"}) == {"CUDA_VISIBLE_DEVICES": "5"}


def test_strategies_are_written_where_there_is_somebody_to_share_with() -> None:
    ddp, zero_2, zero_3, fsdp = (LaunchConfig(strategy=row.name) for row in STRATEGIES)
    assert all(parallel_arguments(launch, 1, cuda=True) == {} for launch in (ddp, zero_2, zero_3, fsdp))
    assert parallel_arguments(ddp, 2, cuda=True) == {}
    assert parallel_arguments(ddp, 2, cuda=False) == {"ddp_backend": "gloo"}
    assert parallel_arguments(zero_3, 2, cuda=True)["deepspeed"]["zero_optimization"]["stage"] == 3
    assert parallel_arguments(fsdp, 2, cuda=True)["fsdp_config"]["state_dict_type"] == "FULL_STATE_DICT"
    assert all((row.library == "deepspeed") == ("deepspeed" in row.arguments) for row in STRATEGIES)


def test_the_strategies_of_the_config_are_the_rows_of_the_table() -> None:
    assert get_args(Strategy) == tuple(row.name for row in STRATEGIES)


def test_a_killed_msr_leaves_no_trainer_behind(tmp_path: Path) -> None:
    stand_in = tmp_path / "llamafactory"
    stand_in.mkdir()
    (stand_in / "__init__.py").touch()
    (stand_in / "launcher.py").write_text(
        "import os, pathlib, sys, time\n"
        "rank = os.environ['RANK']\n"
        "part = pathlib.Path(sys.argv[1] + f'.{rank}.tmp')\n"
        "part.write_text(str(os.getpid()))\npart.rename(sys.argv[1] + f'.{rank}')\ntime.sleep(600)\n"
    )
    yaml = tmp_path / "a run" / "train.yaml"
    yaml.parent.mkdir()
    starter = (
        "import os, subprocess, sys; "
        f"subprocess.Popen([sys.executable, '-P', {trainer_entrypoint.__file__!r}, str(os.getpid()), 'torchrun', "
        "'--standalone', "
        f"'--nproc-per-node=2', {str(yaml)!r}]).wait()"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    started = subprocess.Popen([sys.executable, "-c", starter], env=environment, stderr=subprocess.DEVNULL)
    written = [yaml.with_name(f"{yaml.name}.{rank}") for rank in (0, 1)]
    for _ in range(1200):
        if all(path.exists() for path in written):
            break
        time.sleep(0.1)
    pids = [int(path.read_text()) for path in written]
    started.send_signal(signal.SIGKILL)
    started.wait()
    for _ in range(300):
        if not any(alive(pid) for pid in pids):
            return
        time.sleep(0.1)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    pytest.fail(f"still alive: {pids}")


def test_what_a_launch_lacks_is_said_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallelism, "find_spec", lambda _: None)
    problems = check_launch(LaunchConfig(nodes=2, strategy="zero-3", engine="ray"), "my.yaml:7")
    assert [problem.field for problem in problems] == [
        "train.launch.strategy", "train.launch.engine", "train.launch.processes",
    ]  # fmt: skip
    assert "deepspeed, which is not installed" in str(problems[0])
    assert check_launch(LaunchConfig(engine="ray"), "") == []  # one machine needs no cluster


@pytest.mark.slow
def test_a_ray_cluster_starts_one_torchrun_on_each_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.cluster_utils import Cluster

    stand_in = tmp_path / "llamafactory"
    stand_in.mkdir()
    (stand_in / "__init__.py").touch()
    (stand_in / "launcher.py").write_text(
        "import os, pathlib, sys\n"
        "names = ('RANK', 'WORLD_SIZE', 'GROUP_RANK', 'LOCAL_WORLD_SIZE')\n"
        "said = ' '.join(os.environ[name] for name in names)\n"
        "pathlib.Path(sys.argv[1]).with_name(f'rank-{os.environ[\"RANK\"]}').write_text(said)\n"
        "sys.exit(int(os.environ['RANK']) if 'fail' in sys.argv[1] else 0)\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{Path(trainer_entrypoint.__file__).parents[2]}")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        place = Node(1, 2, 0, cluster.address, free_port(), ray=True)
        for name, code in (("train.yaml", 0), ("fail.yaml", 1)):
            yaml = tmp_path / "a run" / name
            yaml.parent.mkdir(exist_ok=True)
            with trainer_process(place, yaml, dict(os.environ), subprocess.DEVNULL) as process:
                assert (process.wait(240) != 0) == code
        assert [(yaml.parent / f"rank-{rank}").read_text() for rank in (0, 1)] == ["0 2 0 1", "1 2 1 1"]
    finally:
        cluster.shutdown()


def test_a_machine_of_the_cluster_trains_by_the_same_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, str]] = []

    def started(_: Any, env: dict[str, str], check: bool) -> SimpleNamespace:
        seen.append(env)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(ray_launch.subprocess, "run", started)
    for name in UNSET:
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("ITS_OWN", "1")
    assert ray_launch._train(Node(1, 2, 1, "a", 1), "a.yaml", {"RECORD_VRAM": "1"}) == 0
    assert not seen[0].keys() & set(UNSET)
    assert (seen[0]["ITS_OWN"], seen[0]["RECORD_VRAM"]) == ("1", "1")
    assert "RECORD_VRAM" in ray_launch._PASSED


def test_a_joined_training_leaves_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (stale := tmp_path / ".datasets-cache-1").mkdir()
    (stale / "of a killed one").touch()
    found: list[list[Path]] = []

    @contextlib.contextmanager
    def trainer(_: Node, __: Path, environment: dict[str, str], ___: Any) -> Iterator[Any]:
        cache = Path(environment["HF_DATASETS_CACHE"])
        found.append(list(cache.glob("*")))
        cache.mkdir(exist_ok=True)
        yield SimpleNamespace(wait=lambda: 0)

    monkeypatch.setattr(rendezvous, "trainer_process", trainer)
    monkeypatch.setattr(rendezvous, "_meet", lambda *_: tmp_path / "a.yaml")
    join(tmp_path, Node(1, 2, 1, "a", 1), 1, small=True, reporter=QUIET)
    assert found == [[]]
    assert not stale.exists()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_training_that_never_begins_or_is_long_gone_is_not_joined(tmp_path: Path) -> None:
    place = Node(1, 2, 1, "127.0.0.1", 1)
    with pytest.raises(StageError, match="did not start training within"):
        join(tmp_path, place, 1.2, small=True, reporter=QUIET)
    (tmp_path / RENDEZVOUS).write_text(json.dumps({"yaml": "left behind", "nodes": 2, "processes": 1}))
    with pytest.raises(StageError, match="did not start training within"):
        join(tmp_path, place, 1.2, small=True, reporter=QUIET)


def test_machines_that_disagree_do_not_train_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "_BEAT_S", 0.1)
    with announced(tmp_path / RENDEZVOUS, tmp_path / "train.yaml", Node(4, 2, 0, "a", 1)):
        with pytest.raises(StageError, match="2 machines of 4 processes, but this one would with 2 of 3"):
            join(tmp_path, Node(3, 2, 1, "a", 1), 30, small=True, reporter=QUIET)
        assert (tmp_path / RENDEZVOUS).is_file()
    assert not (tmp_path / RENDEZVOUS).exists()


def test_one_machine_announces_nothing(tmp_path: Path) -> None:
    with announced(tmp_path / RENDEZVOUS, tmp_path / "train.yaml", Node(2)):
        assert not list(tmp_path.iterdir())


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_two_machines_train_one_model(tmp_path: Path) -> None:
    """Two torchrun agents on this machine stand for two machines; gloo, on the CPU, in a folder with a blank."""
    made, run_dir = stages(), tmp_path / "a run"
    out = run_dir / ".train.partial"
    out.mkdir(parents=True)
    yaml, model = out / "train.yaml", out / "model"
    config = training_config(train_config(), made.data, made.dataset, model, 0, Node(processes=2))
    assert config["ddp_backend"] == "gloo"
    write_yaml(yaml, config, "")
    port = free_port()
    first, second = (Node(1, 2, rank, "127.0.0.1", port) for rank in (0, 1))
    failed: list[Exception] = []

    def other() -> None:
        try:
            join(run_dir, second, 300, small=True, reporter=QUIET)
        except StageError as error:
            failed.append(error)

    thread = threading.Thread(target=other)
    thread.start()
    with announced(run_dir / RENDEZVOUS, yaml, first):
        trained = launch(TrainerRun(yaml, model, "adapter_model*.safetensors", small=True, place=first), QUIET)
    thread.join(120)
    assert not thread.is_alive()
    assert failed == []
    assert trained.steps == 3
    state: dict[str, Any] = json.loads((model / "trainer_state.json").read_text())
    # 3 steps of 4 rows in each of 2 processes, of 32 rows
    assert state["epoch"] == pytest.approx(24 / 32)
    assert (run_dir / "train-node-1.log").is_file()
