"""What this machine has and lacks for training and scoring. Heavy libraries are imported in child processes only.

diagnosis     what was found: `Finding`, `Diagnosis`
libraries     Python, the libraries that are needed, the optional ones
gpu_libraries what is true of vLLM, flash-attention, Liger and bitsandbytes, by version
hardware      GPUs, processor, memory, disks
environment   environment variables that would change a run
probes        imports of libraries in processes of their own
probe_script  what runs in them
"""

import os
from collections.abc import Iterator
from pathlib import Path

from msr_adapter.doctor.diagnosis import Diagnosis, Finding
from msr_adapter.doctor.environment import variables
from msr_adapter.doctor.hardware import devices, host
from msr_adapter.doctor.libraries import needed, optional, present
from msr_adapter.doctor.probes import probe_all

__all__ = ["Diagnosis", "Finding", "diagnose", "examine"]


def diagnose(run_dir: Path) -> Diagnosis:
    """Look at everything; runs are meant to be kept at ``run_dir``. Takes the seconds that the libraries' imports take.

    Nothing that is broken raises: it is a finding.
    """
    parts = list(examine(run_dir))
    return Diagnosis(
        tuple(finding for _, findings, _ in parts for finding in findings),
        tuple(device for _, _, found in parts for device in found),
    )


def examine(run_dir: Path) -> Iterator[tuple[str, list[Finding], list[dict[str, object]]]]:
    """Yield section by section what is found, and the GPUs with their section: what is known at once comes first.

    The libraries are imported meanwhile, in processes of their own; the text says what the next section waits for.
    """
    probed = probe_all(["llamafactory", "torch", *present()])
    yield "importing torch", [*variables(os.environ), *host(run_dir)], []
    torch = probed["torch"]
    gpus = list(torch.get("devices", ()))
    yield "importing LLaMA-Factory", devices(torch), gpus
    yield "importing the optional libraries", needed(probed), []
    yield "", optional(probed, cuda=bool(gpus)), []
