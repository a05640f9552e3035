"""One torchrun on each of several machines of a Ray cluster, all of them together; ends when they have.

Started by `trainer_entrypoint` as a process of its own: when that goes, Ray ends its tasks, and they take their
torchrun along.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from msr_adapter.llamafactory import trainer_entrypoint
from msr_adapter.llamafactory.launcher import UNSET
from msr_adapter.llamafactory.nodes import Node, trainer_arguments

_ROOM_S = 600
_PASSED = ("HF_HOME", "HF_DATASETS_CACHE", "HF_HUB_OFFLINE", "OMP_NUM_THREADS", "PYTHONPATH", "PYTHONUNBUFFERED",
           "RECORD_VRAM")  # fmt: skip
"""Variables that go along to the machines. Tokens do not: each machine has its own."""


def main(address: str, nodes: str, processes: str, gpus: str, port: str, yaml: str) -> int:
    """Train ``yaml`` on ``nodes`` machines; return the first exit code that is not 0, or 0.

    All arguments are texts: they come from the command line.
    """
    import ray
    from ray.util.placement_group import placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    ray.init(address=address or "auto", namespace="msr", configure_logging=False)
    each: dict[str, float] = {"GPU": int(processes), "CPU": 1} if int(gpus) else {"CPU": int(processes)}
    # STRICT_SPREAD puts each bundle on another machine; all are reserved before anything starts, or none is.
    group = placement_group([each] * int(nodes), strategy="STRICT_SPREAD")
    if not group.wait(_ROOM_S):
        print(f"The Ray cluster has no room for {nodes} machines with {each} within {_ROOM_S} s", flush=True)
        return 1

    def on(rank: int, function: Any) -> Any:
        place = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=rank)
        options = {"num_cpus": each["CPU"], "num_gpus": each.get("GPU", 0), "max_retries": 0}
        return ray.remote(function).options(scheduling_strategy=place, **options)

    head = ray.get(on(0, _own_address).remote())
    passed = {name: os.environ[name] for name in _PASSED if name in os.environ}
    places = [Node(int(processes), int(nodes), rank, head, int(port), int(gpus)) for rank in range(int(nodes))]
    running = [on(place.rank, _train).remote(place, yaml, passed) for place in places]
    while running:
        [ended, *_], running = ray.wait(running)
        if code := ray.get(ended):
            return int(code)  # the others cannot go on alone: Ray ends them with this process
    return 0


def _own_address() -> str:
    import ray

    return str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]


def _train(place: Node, yaml: str, environment: dict[str, str]) -> int:
    """Run this machine's torchrun; its output goes to the first machine's log."""
    command = [
        sys.executable,
        "-P",
        trainer_entrypoint.__file__,
        str(os.getpid()),
        *trainer_arguments(place, Path(yaml)),
    ]
    here = {name: value for name, value in os.environ.items() if name not in UNSET}
    return subprocess.run(command, env=here | environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
