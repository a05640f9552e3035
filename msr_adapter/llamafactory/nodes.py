"""Which machine this is in a training, the command that starts its processes, and a Slurm script for all of them."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from msr_adapter.config.schema.execution import LaunchConfig
from msr_adapter.errors import Problem, UserError, plural

_RANKS = ("NODE_RANK", "SLURM_NODEID")
"""Variables that number the machines of a training from 0; the first that is set counts."""
# Slurm writes `gpu[03,07-09]x,cpu1`: the first host's name, its first number, and what follows the bracket.
_FIRST_HOST = re.compile(r"(?P<name>[^,\[]+)(?:\[(?P<number>\d+)[^\]]*\](?P<rest>[^,]*))?")


@dataclass(frozen=True)
class Node:
    """One machine's part in a training."""

    processes: int = 1
    """On this machine."""
    nodes: int = 1
    rank: int = 0
    """Of this machine, from 0."""
    address: str = ""
    port: int = 0
    gpus: int = 0
    """Visible on this machine; on a cluster, that its machines have some."""
    ray: bool = False
    """This machine starts all of them, through the Ray cluster at ``address`` (empty: Ray's own default)."""

    @property
    def world(self) -> int:
        """Processes on all machines."""
        return self.processes * self.nodes


ONE_PROCESS = Node()
"""One process on this machine, without a GPU."""


def find_place(launch: LaunchConfig, environment: Mapping[str, str], gpus: int) -> Node:
    """Return this machine's place from the settings, the environment and its number of visible GPUs.

    Raises `UserError` for a number that is none of this training's, a missing address, and more processes than GPUs.
    """
    processes = max(1, gpus) if launch.processes == "auto" else launch.processes
    problems = []
    if 0 < gpus < processes:
        found = f"{processes} processes, but {plural(gpus, 'visible GPU')}"
        problems.append(Problem("", "train.launch.processes", found, "at most one process per GPU", "Leave it at auto"))
    place = Node(processes, launch.nodes, 0, "", launch.port, gpus)
    if launch.nodes > 1 and launch.engine == "ray":
        place = replace(place, address=launch.address or "", ray=True)
    elif launch.nodes > 1:
        rank, address = _rank(launch, environment), launch.address or _address(environment)
        problems += [rank] if isinstance(rank, Problem) else []
        problems += [_NO_ADDRESS] if not address else []
        place = replace(place, rank=rank if isinstance(rank, int) else 0, address=address)
    if problems:
        raise UserError(problems)
    return place


def trainer_arguments(place: Node, yaml: Path) -> list[str]:
    """Return what `trainer_entrypoint` is to do here: one trainer, torchrun with several, or all of a cluster's."""
    if place.world == 1:
        return ["train", str(yaml)]
    if place.ray:
        numbers = [place.nodes, place.processes, place.gpus, place.port]
        return ["ray", place.address, *map(str, numbers), str(yaml)]
    return ["torchrun", *_torchrun_options(place), str(yaml)]


def by_hand(place: Node, yaml: Path) -> list[str]:
    """Return the shell commands that train without msr, one for each machine in their order."""
    if place.world == 1:
        only = "CUDA_VISIBLE_DEVICES=0 " if place.gpus > 1 else ""
        return [f"{only}llamafactory-cli train {shlex.quote(str(yaml))}"]
    head = place.address if not place.ray else "FIRST_MACHINE"
    nodes = [replace(place, rank=rank, address=head) for rank in range(place.nodes)]
    return [shlex.join(["torchrun", *_torchrun_options(node), "-m", "llamafactory.launcher", str(yaml)])
            for node in nodes]  # fmt: skip


def trainer_variables(place: Node, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that keep a single trainer to one GPU: with more in sight it would start others itself."""
    if place.world > 1 or place.gpus <= 1:
        return {}
    return {"CUDA_VISIBLE_DEVICES": environment.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]}


def _torchrun_options(place: Node) -> list[str]:
    each = f"--nproc-per-node={place.processes}"
    if place.nodes == 1:
        return ["--standalone", each]  # torchrun then finds a free port itself
    return [f"--nnodes={place.nodes}", f"--node-rank={place.rank}", each,
            f"--master-addr={place.address}", f"--master-port={place.port}"]  # fmt: skip


def _rank(launch: LaunchConfig, environment: Mapping[str, str]) -> int | Problem:
    """Return this machine's number from the environment, or the problem if it is not there or out of range."""
    name = next((name for name in _RANKS if environment.get(name)), None)
    allowed = f"a number from 0 to {launch.nodes - 1}, different on each machine"
    if name is None:
        found = f"train.launch.nodes is {launch.nodes}, but nothing says which one this machine is"
        return Problem("environment", _RANKS[0], found, allowed, "Run `NODE_RANK=0 msr ...` on the first machine")
    value = environment[name]
    if not value.isdecimal() or int(value) >= launch.nodes:
        return Problem("environment", name, value, allowed)
    return int(value)


def _address(environment: Mapping[str, str]) -> str:
    """Return the host name of the first machine, or nothing: Slurm lists hosts like ``gpu[03,07-09],cpu1``."""
    if address := environment.get("MASTER_ADDR"):
        return address
    first = _FIRST_HOST.match(environment.get("SLURM_JOB_NODELIST", ""))
    return "".join(part or "" for part in first.groups()) if first else ""


_NO_ADDRESS = Problem(
    "", "train.launch.address", "nothing says where the first machine is", "its host name or address",
    "Set it, or MASTER_ADDR in the environment",
)  # fmt: skip


_SCRIPT = """\
#!/bin/bash
#SBATCH --job-name={name}
#SBATCH --nodes={nodes}
#SBATCH --ntasks-per-node=1
{gpus}#SBATCH --output=%x-%j.log
# Your cluster may want more: --partition, --account, --time, --cpus-per-task.

# msr reads its number and the first host from Slurm's variables. Only the training is shared: the first machine does
# the rest, and the others wait for it. After a time limit, submit this again: it continues where it stopped.
srun {command}
"""


def slurm_script(place: Node, name: str, command: Sequence[str]) -> str:
    """Return a Slurm batch script that starts ``command``, which is msr's, on every machine of a training."""
    gpus = f"#SBATCH --gpus-per-node={place.processes}\n" if place.gpus else ""
    plain = re.sub(r"[^\w.-]+", "-", name)  # Slurm ends an option at a blank, and has its own meaning of %
    return _SCRIPT.format(name=plain, nodes=place.nodes, gpus=gpus, command=shlex.join(command))
