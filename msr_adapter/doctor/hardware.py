"""Devices, cores, memory and disk of this machine, as far as this process may use them."""

import os
import platform
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msr_adapter.doctor.diagnosis import Finding, State
from msr_adapter.system import cpu_count, memory_bytes

_DEVICES, _HOST = "Devices", "Processor, memory, disk"
_GB = 10**9
_LEAST_FREE = 2**30
_LARGE_MODEL_GB = 20
_DRIVER = Path("/proc/driver/nvidia/version")


def devices(torch: Mapping[str, Any]) -> list[Finding]:
    """Return a finding for each GPU that torch sees, or what its absence means; ``torch`` is the probe's answer."""
    if "error" in torch:
        return [Finding(_DEVICES, "GPU", "warning", "unknown", "torch cannot be imported")]
    if error := torch.get("device_error"):
        return [Finding(_DEVICES, "GPU", "error", "cannot be queried", error, "nvidia-smi")]
    if found := [_device(place, device) for place, device in enumerate(torch["devices"])]:
        return found
    if torch["mps"]:
        return [Finding(_DEVICES, "GPU", "warning", "Apple MPS", "msr is not tested on it")]
    means = "training and scoring run on the processor: suitable for small models"
    if _DRIVER.exists() or shutil.which("nvidia-smi"):
        means = "there is an NVIDIA driver, but torch sees no GPU; " + means
        mend = "nvidia-smi" if torch["cuda"] else "install torch from PyPI, which has CUDA"
        return [Finding(_DEVICES, "GPU", "warning", "none visible", means, mend)]
    return [Finding(_DEVICES, "GPU", "absent", "none", means)]


def _device(place: int, device: Mapping[str, Any]) -> Finding:
    major, minor = device["capability"]
    found = (f"{device['name']}, {device['free_bytes'] / _GB:.1f} of {device['total_bytes'] / _GB:.1f} GB free, "
             f"capability {major}.{minor}, bfloat16 {'yes' if device['bfloat16'] else 'no'}")  # fmt: skip
    if device["bfloat16"]:
        return Finding(_DEVICES, f"GPU {place}", "ok", found)
    return Finding(_DEVICES, f"GPU {place}", "warning", found, "it has no bfloat16", "set train.model.dtype: float16")


def host(run_dir: Path) -> list[Finding]:
    """Return findings on cores, memory, and the disks of ``run_dir`` and of the models."""
    from huggingface_hub.constants import HF_HUB_CACHE

    total, available = memory_bytes()
    free = "" if available is None else f"{available / _GB:.1f} of "
    return [
        Finding(_HOST, "processor", "ok", f"{platform.machine()}, {cpu_count()} usable cores"),
        Finding(_HOST, "memory", "ok", f"{free}{total / _GB:.1f} GB{'' if available is None else ' available'}"),
        *_shared_memory(),
        _disk("run folder", run_dir, _LEAST_FREE, "error", "at least 1 GB is needed",
              "free some space, or choose another --run-dir"),
        _disk("model cache", Path(HF_HUB_CACHE), _LARGE_MODEL_GB * _GB, "warning",
              "a model of 7B parameters takes about 16 GB", "set HF_HOME to a folder on a larger disk"),
    ]  # fmt: skip


def _shared_memory() -> list[Finding]:
    """Containers often have 64 MB of it, which ends the workers of a data loader with a bus error."""
    path = Path("/dev/shm")
    if not path.is_dir() or (size := shutil.disk_usage(path).total) >= 2**30:
        return []
    means = "too little for several data loader workers (dataloader_num_workers) or several GPUs"
    return [Finding(_HOST, "shared memory", "warning", f"{size / 1e6:.0f} MB", means, "docker run --shm-size=8g ...")]


def _disk(name: str, folder: Path, least: int, state: State, means: str, mend: str) -> Finding:
    folder = folder.expanduser().absolute()
    # The run folder need not exist yet: what counts is the disk that it will be on.
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    found = f"{free / _GB:.1f} GB free for {folder}"
    if not os.access(existing, os.W_OK):
        return Finding(_HOST, name, state, found, f"{existing} is not writable", mend)
    return Finding(_HOST, name, "ok", found) if free >= least else Finding(_HOST, name, state, found, means, mend)
