"""What this machine has and lacks for training and scoring. Heavy libraries are imported in child processes only.

diagnosis     what was found: `Finding`, `Diagnosis`
libraries     Python, the libraries that are needed, the optional ones
hardware      GPUs, processor, memory, disks
environment   environment variables that would change a run
probes        imports of libraries in processes of their own
probe_script  what runs in them
"""

import os
from pathlib import Path

from msr_adapter.doctor.diagnosis import Diagnosis, Finding
from msr_adapter.doctor.environment import variables
from msr_adapter.doctor.hardware import devices, host
from msr_adapter.doctor.libraries import needed, optional, present
from msr_adapter.doctor.probes import probe_all

__all__ = ["Diagnosis", "Finding", "diagnose"]


def diagnose(run_dir: Path) -> Diagnosis:
    """Look at everything; runs are meant to be kept at ``run_dir``. Takes the seconds that the libraries' imports take.

    Nothing that is broken raises: it is a finding.
    """
    probed = probe_all(["llamafactory", "torch", *present()])
    torch = probed["torch"]
    findings = [
        *needed(probed), *devices(torch), *host(run_dir, torch), *optional(probed, cuda=bool(torch.get("devices"))),
        *variables(os.environ),
    ]  # fmt: skip
    return Diagnosis(tuple(findings), tuple(torch.get("devices", ())))
