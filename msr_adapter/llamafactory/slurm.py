"""A Slurm batch script that starts the same msr command on every machine of a training."""

import shlex
from collections.abc import Sequence

from msr_adapter.llamafactory.nodes import Place

_SCRIPT = """\
#!/bin/bash
#SBATCH --job-name={name}
#SBATCH --nodes={nodes}
#SBATCH --ntasks-per-node=1
{gpus}#SBATCH --output=%x-%j.log
# Your cluster may want more: --partition, --account, --time, --cpus-per-task.

# msr reads its number and the first host from Slurm's variables. The first machine does everything but the training
# alone; the others wait for it and train with it. Submit it again after a time limit: it goes on where it stopped.
srun {command}
"""


def slurm_script(place: Place, name: str, command: Sequence[str]) -> str:
    """Return the script for ``place``'s numbers of machines and GPUs; ``command`` is msr's."""
    gpus = f"#SBATCH --gpus-per-node={place.processes}\n" if place.gpus else ""
    return _SCRIPT.format(name=name, nodes=place.nodes, gpus=gpus, command=shlex.join(command))
