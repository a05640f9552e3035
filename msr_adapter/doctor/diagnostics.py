"""The whole examination, and its verdict."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msr_adapter.doctor.environment import variables
from msr_adapter.doctor.finding import Finding
from msr_adapter.doctor.hardware import devices, host
from msr_adapter.doctor.optional_libraries import optional, present
from msr_adapter.doctor.packages import packages
from msr_adapter.doctor.probes import probe_all


@dataclass(frozen=True)
class Diagnosis:
    """All findings, and the GPUs that torch sees."""

    findings: tuple[Finding, ...]
    devices: tuple[dict[str, Any], ...]
    """name, capability, total_bytes, free_bytes, bfloat16 of each GPU."""

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What keeps training from working at all."""
        return tuple(finding for finding in self.findings if finding.state == "error")

    @property
    def verdict(self) -> str:
        """One sentence."""
        if self.errors:
            return f"Training cannot work here: {', '.join(finding.name for finding in self.errors)}."
        number = len(self.devices)
        where = "on its processor" if not number else "on its GPU" if number == 1 else f"on its {number} GPUs"
        return f"This machine can train and score {where}."


def diagnose(run_dir: Path) -> Diagnosis:
    """Look at everything; runs are meant to be kept at ``run_dir``. Takes the seconds that the libraries' imports take.

    Nothing of what is broken raises: it is a finding.
    """
    probed = probe_all(["llamafactory", "torch", *present()])
    torch = probed["torch"]
    findings = [
        *packages(probed), *devices(torch), *host(run_dir, torch), *optional(probed, cuda=bool(torch.get("devices"))),
        *variables(os.environ),
    ]  # fmt: skip
    return Diagnosis(tuple(findings), tuple(torch.get("devices", ())))
